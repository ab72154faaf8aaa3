/**
 * Remembers what was answered to which Idempotency-Key, so that a request whose answer got lost can be sent again: the
 * same key and request give the same answer, also while the first one still runs; the same key with another request is
 * refused. Answers of 500 and above are not remembered, because they are no outcome: a close that was still draining is
 * to be asked again. Memory is bounded, in entries and in bytes; the oldest finished entry goes first.
 */

import { LIMITS } from '../config/limits.ts'
import { assert, present } from '../foundation/assert.ts'
import { Refusal } from '../foundation/refusal.ts'

export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  /** Serialized; empty where there is no body. */
  readonly body: string
}

interface Entry {
  readonly request: string
  readonly answer: Promise<Answer>
  /** 0 while it runs. */
  bytes: number
}

export class IdempotencyMemory {
  /** In the order of arrival. */
  readonly #entries = new Map<string, Entry>()
  readonly #entriesMax: number
  readonly #bytesMax: number
  #bytes = 0

  constructor(entriesMax: number = LIMITS.idempotencyKeysMax, bytesMax: number = LIMITS.idempotencyBytesMax) {
    this.#entriesMax = entriesMax
    this.#bytesMax = bytesMax
  }

  /** `request` is everything that makes the request what it is: method, address and body. */
  async answer(key: string, request: string, run: () => Promise<Answer>): Promise<Answer> {
    const known = this.#entries.get(key)
    if (known !== undefined) {
      if (known.request === request) return known.answer
      throw new Refusal('idempotency-conflict', `The key '${key}' came with another request before.`)
    }
    this.#makeRoom(0)
    const entry: Entry = { request, answer: run(), bytes: 0 }
    this.#entries.set(key, entry)
    return this.#settle(key, entry)
  }

  async #settle(key: string, entry: Entry): Promise<Answer> {
    let answer: Answer
    try {
      answer = await entry.answer
    } catch (error) {
      this.#entries.delete(key)
      throw error
    }
    const bytes = 2 * (key.length + entry.request.length + answer.body.length) + 256
    if (answer.status >= 500 || bytes > this.#bytesMax) {
      this.#entries.delete(key)
      return answer
    }
    this.#makeRoom(bytes)
    entry.bytes = bytes
    this.#bytes += bytes
    this.#invariants()
    return answer
  }

  /** Forgets finished entries until another one, or the bytes of one that has finished, fit. */
  #makeRoom(bytes: number): void {
    const room = (): boolean =>
      bytes > 0 ? this.#bytes + bytes <= this.#bytesMax : this.#entries.size < this.#entriesMax
    for (const [key, entry] of this.#entries) {
      if (room()) return
      if (entry.bytes === 0) continue
      this.#entries.delete(key)
      this.#bytes -= entry.bytes
    }
    if (!room()) throw new Refusal('busy', `${this.#entries.size} requests with an Idempotency-Key are running.`)
  }

  #invariants(): void {
    let bytes = 0
    for (const key of this.#entries.keys()) bytes += present(this.#entries.get(key), key).bytes
    assert(bytes === this.#bytes, 'the bytes of the remembered answers add up')
    assert(this.#entries.size <= this.#entriesMax, 'no more keys are remembered than allowed')
  }
}
