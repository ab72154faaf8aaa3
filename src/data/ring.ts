/** A bounded queue of small integers (slots, connections). It never grows: a full one is a bug of its owner. */

import { assert } from '../foundation/assert.ts'

export class Ring {
  count = 0
  readonly #items: Int32Array
  #head = 0

  constructor(capacity: number) {
    this.#items = new Int32Array(capacity)
  }

  push(item: number): void {
    assert(this.count < this.#items.length, 'the ring has room')
    this.#items[(this.#head + this.count) % this.#items.length] = item
    this.count += 1
  }

  /** The item `index` places behind the head. */
  at(index: number): number {
    assert(index < this.count, 'the ring has that item')
    return this.#items[(this.#head + index) % this.#items.length] as number
  }

  shift(): number {
    const item = this.at(0)
    this.#head = (this.#head + 1) % this.#items.length
    this.count -= 1
    return item
  }

  /** Takes out every item for which `drop` says so; the order of the others stays. */
  filter(keep: (item: number) => boolean): void {
    const count = this.count
    for (let index = 0; index < count; index += 1) {
      const item = this.shift()
      if (keep(item)) this.push(item)
    }
  }
}
