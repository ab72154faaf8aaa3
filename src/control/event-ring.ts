/**
 * The recent events of the exports, numbered, so that a reader whose connection broke can go on where it was. A number
 * only means something within one run of the daemon, so an event's id is `RUN-NUMBER`. The ring is bounded; a reader
 * that asks for more than it still holds is told that it missed something, never left to believe that it did not.
 */

import { assert } from '../foundation/assert.ts'
import type { ExportEvent } from '../exports/verbs.ts'

export interface NumberedEvent {
  readonly number: number
  readonly event: ExportEvent
  /** As it goes over the wire; formatted once for all readers. */
  readonly text: string
}

export interface Replay {
  /** Some events between the reader's last one and these are gone. */
  readonly missed: boolean
  readonly events: readonly NumberedEvent[]
}

export class EventRing {
  readonly #run: string
  readonly #countMax: number
  readonly #lengthMax: number
  readonly #events: NumberedEvent[] = []
  #next = 1
  #length = 0

  /** `lengthMax` bounds the characters of all kept events together. */
  constructor(run: string, countMax: number, lengthMax: number) {
    assert(run !== '' && countMax > 0, 'a run has a name, and a ring has room')
    this.#run = run
    this.#countMax = countMax
    this.#lengthMax = lengthMax
  }

  get lastId(): string {
    return this.#idOf(this.#next - 1)
  }

  add(event: ExportEvent): NumberedEvent {
    const number = this.#next++
    const text = `id: ${this.#idOf(number)}\nevent: ${event.kind}\ndata: ${JSON.stringify(event)}\n\n`
    const numbered = { number, event, text }
    this.#events.push(numbered)
    this.#length += text.length
    while (this.#events.length > this.#countMax || this.#length > this.#lengthMax) {
      this.#length -= this.#events.shift()?.text.length ?? 0
    }
    return numbered
  }

  /** What came after the event with this id. An id of another run, or none of ours, has missed everything. */
  since(lastId: string): Replay {
    const number = this.#numberOf(lastId)
    if (number === undefined) return { missed: true, events: this.#events }
    const oldest = this.#events[0]?.number ?? this.#next
    return { missed: number + 1 < oldest, events: this.#events.filter((event) => event.number > number) }
  }

  #idOf(number: number): string {
    return `${this.#run}-${number}`
  }

  #numberOf(id: string): number | undefined {
    if (!id.startsWith(`${this.#run}-`)) return undefined
    const digits = id.slice(this.#run.length + 1)
    const number = /^\d{1,15}$/.test(digits) ? Number(digits) : Number.NaN
    return number < this.#next ? number : undefined
  }
}
