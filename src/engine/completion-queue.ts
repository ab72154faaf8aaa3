/**
 * Completions that wait for the next turn, first in, first out: two columns that grow by doubling and are then reused,
 * so that a completion costs no allocation.
 */

import { assert } from '../foundation/assert.ts'
import type { Completion, Token } from './contract.ts'

const INITIAL_CAPACITY = 1024

export class CompletionQueue {
  count = 0
  #tokens = new Float64Array(INITIAL_CAPACITY)
  #results = new Int32Array(INITIAL_CAPACITY)
  #head = 0

  push(token: Token, result: number): void {
    if (this.count === this.#tokens.length) this.#grow()
    const index = (this.#head + this.count) & (this.#tokens.length - 1)
    this.#tokens[index] = token
    this.#results[index] = result
    this.count += 1
  }

  shift(into: Completion): boolean {
    if (this.count === 0) return false
    into.token = this.#tokens[this.#head] ?? 0
    into.result = this.#results[this.#head] ?? 0
    this.#head = (this.#head + 1) & (this.#tokens.length - 1)
    this.count -= 1
    return true
  }

  #grow(): void {
    const capacity = this.#tokens.length
    assert((capacity & (capacity - 1)) === 0, 'the capacity is a power of two')
    const tokens = new Float64Array(capacity * 2)
    const results = new Int32Array(capacity * 2)
    for (let index = 0; index < this.count; index += 1) {
      const from = (this.#head + index) & (capacity - 1)
      tokens[index] = this.#tokens[from] ?? 0
      results[index] = this.#results[from] ?? 0
    }
    this.#tokens = tokens
    this.#results = results
    this.#head = 0
  }
}
