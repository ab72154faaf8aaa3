/**
 * QEMU's machine protocol as messages: bytes in, however they are cut, and greetings, answers and events out, one JSON
 * object a line. Pure. A line that is none of these is a fault of the peer, told as a value; the parser is then at its
 * end, because nothing says where the next message begins. A line without end is bounded.
 */

/** Of a command that QEMU refused, in its own words. */
export interface QmpRefusal {
  readonly class: string
  readonly description: string
}

export interface QmpEvent {
  readonly name: string
  readonly data: Readonly<Record<string, unknown>>
}

export type QmpMessage =
  | { readonly kind: 'greeting'; readonly version: string }
  | { readonly kind: 'value'; readonly id: number | null; readonly value: unknown }
  | { readonly kind: 'refusal'; readonly id: number | null; readonly refusal: QmpRefusal }
  | ({ readonly kind: 'event' } & QmpEvent)
  | { readonly kind: 'malformed'; readonly detail: string }

/** The longest answers (query-qmp-schema) have some 200 KiB. */
export const QMP_LINE_BYTES_MAX = 16 * 1024 * 1024

const LINE_FEED = 0x0a

export class QmpParser {
  readonly #lineBytesMax: number
  #pieces: Uint8Array[] = []
  #pendingBytes = 0
  #broken = false

  constructor(lineBytesMax = QMP_LINE_BYTES_MAX) {
    this.#lineBytesMax = lineBytesMax
  }

  /** The messages that this piece completes. After a malformed one, which is the last, there are no more. */
  push(bytes: Uint8Array): QmpMessage[] {
    const messages: QmpMessage[] = []
    let start = 0
    while (!this.#broken) {
      const end = bytes.indexOf(LINE_FEED, start)
      this.#keep(bytes.subarray(start, end === -1 ? bytes.length : end))
      if (this.#pendingBytes > this.#lineBytesMax) {
        messages.push(this.#malformed(`a line of more than ${this.#lineBytesMax} bytes`))
      } else if (end === -1) {
        return messages
      } else {
        const line = this.#takeLine()
        if (line !== '') messages.push(this.#messageOf(line))
        start = end + 1
      }
    }
    return messages
  }

  #keep(piece: Uint8Array): void {
    if (piece.length === 0) return
    // A copy: whoever received these bytes may receive the next ones in the same place.
    this.#pieces.push(Uint8Array.from(piece))
    this.#pendingBytes += piece.length
  }

  #takeLine(): string {
    const line = Buffer.concat(this.#pieces).toString('utf8').trim()
    this.#pieces = []
    this.#pendingBytes = 0
    return line
  }

  #messageOf(line: string): QmpMessage {
    let parsed: unknown
    try {
      parsed = JSON.parse(line)
    } catch {
      return this.#malformed(`no JSON: ${line.slice(0, 80)}`)
    }
    return isObject(parsed)
      ? (readMessage(parsed) ?? this.#malformed(`no message: ${line.slice(0, 80)}`))
      : this.#malformed(`no object: ${line.slice(0, 80)}`)
  }

  #malformed(detail: string): QmpMessage {
    this.#broken = true
    this.#pieces = []
    this.#pendingBytes = 0
    return { kind: 'malformed', detail }
  }
}

/** One command as a line. */
export function formatQmpCommand(name: string, id: number, commandArguments: object): string {
  return `${JSON.stringify({ execute: name, arguments: commandArguments, id })}\n`
}

function readMessage(message: Readonly<Record<string, unknown>>): QmpMessage | null {
  const id = typeof message['id'] === 'number' ? message['id'] : null
  if (isObject(message['QMP'])) return { kind: 'greeting', version: versionOf(message['QMP']) }
  if ('return' in message) return { kind: 'value', id, value: message['return'] }
  if (isObject(message['error'])) {
    const { class: kind, desc } = message['error']
    return { kind: 'refusal', id, refusal: { class: textOf(kind), description: textOf(desc) } }
  }
  if (typeof message['event'] !== 'string') return null
  return { kind: 'event', name: message['event'], data: isObject(message['data']) ? message['data'] : {} }
}

/** As `MAJOR.MINOR.MICRO`, or nothing where the greeting does not say. */
function versionOf(greeting: Readonly<Record<string, unknown>>): string {
  const version = isObject(greeting['version']) ? greeting['version']['qemu'] : undefined
  if (!isObject(version)) return ''
  return [version['major'], version['minor'], version['micro']].map(String).join('.')
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : ''
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
