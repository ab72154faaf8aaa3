/**
 * A list of request slots that is filled, read and emptied again and again without allocating. Its capacity is fixed:
 * no caller can produce more slots than the tracker has, so overflowing it is a bug.
 */

import { AssertionFailure } from '../foundation/assert.ts'

export class SlotList {
  /** Only the first `count` are meant. */
  readonly items: Int32Array
  count = 0

  constructor(capacity: number) {
    this.items = new Int32Array(capacity)
  }

  push(slot: number): void {
    if (this.count === this.items.length) throw new AssertionFailure('a slot list overflowed')
    this.items[this.count] = slot
    this.count += 1
  }

  at(index: number): number {
    const slot = this.items[index]
    if (slot === undefined || index >= this.count) throw new AssertionFailure('a slot list was read beyond its end')
    return slot
  }

  empty(): void {
    this.count = 0
  }

  /** A copy; for tests and listings. */
  toArray(): number[] {
    return Array.from(this.items.subarray(0, this.count))
  }
}
