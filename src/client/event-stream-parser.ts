/**
 * Server-sent events out of text, however it is cut into pieces. Pure. It keeps what the specification of HTML asks for
 * (any line ending, comments, several data lines, an id that outlives its event) and bounds what an endless line costs.
 */

export interface SentEvent {
  /** Of this or an earlier event; empty when there was none yet. */
  readonly id: string
  /** "message" where none was named. */
  readonly type: string
  readonly data: string
}

const EVENT_LENGTH_MAX = 16 * 1024 * 1024

export class EventStreamParser {
  #rest = ''
  #type = ''
  #data: string[] = []
  #dataLength = 0
  #id = ''

  /** The events that this piece completes. Throws a RangeError when an event grows beyond all bounds. */
  push(text: string): SentEvent[] {
    const events: SentEvent[] = []
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/)
    this.#rest = lines.pop() ?? ''
    for (const line of lines) {
      const event = this.#line(line)
      if (event !== undefined) events.push(event)
    }
    if (this.#rest.length + this.#dataLength > EVENT_LENGTH_MAX) throw new RangeError('an event is too long')
    return events
  }

  #line(line: string): SentEvent | undefined {
    if (line === '') return this.#dispatch()
    if (line.startsWith(':')) return undefined
    const colon = line.indexOf(':')
    const field = colon === -1 ? line : line.slice(0, colon)
    const value = colon === -1 ? '' : line.slice(colon + 1).replace(/^ /, '')
    if (field === 'data') {
      this.#data.push(value)
      this.#dataLength += value.length
    } else if (field === 'event') this.#type = value
    else if (field === 'id' && !value.includes('\0')) this.#id = value
    return undefined
  }

  #dispatch(): SentEvent | undefined {
    const event = { id: this.#id, type: this.#type === '' ? 'message' : this.#type, data: this.#data.join('\n') }
    const empty = this.#data.length === 0
    this.#type = ''
    this.#data = []
    this.#dataLength = 0
    return empty ? undefined : event
  }
}
