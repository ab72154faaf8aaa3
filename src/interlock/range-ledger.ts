/**
 * The writes of one export that have been admitted and have not cleared, in the order of their admission, and the ranges
 * that a predecessor may still write. It says which write may go to the disk now and which must wait.
 *
 * 1. Overlapping writes run in the order of their admission: a write goes only once every earlier one that overlaps it
 *    has left the ledger, whether that one was submitted or waited itself.
 * 2. A write that overlaps a hold goes only once that hold has been released.
 * 3. Nothing waits for ever: a write waits only for earlier ones and for holds, never for a later write.
 *
 * Each entry carries the number of entries and holds in its way, its blockers. What leaves takes one off every later
 * entry that it overlaps: those are exactly the entries that counted it when they came. So admitting and clearing are
 * one pass each over a dense column. An entry that has left stays as a gap until the gaps outnumber the entries; the
 * columns double when they are full, so that an export that is little used costs little, and nothing else allocates.
 */

import { AssertionFailure, assert } from '../foundation/assert.ts'
import type { Hold, Range } from './range.ts'
import type { SlotList } from './slot-list.ts'

const NOWHERE = -1
/** Gaps and empty ranges end before they start: they overlap nothing. */
const EMPTY_START = Infinity
const EMPTY_END = -Infinity
const GAPS_MIN = 16
const ROWS_MIN = 64

export class RangeLedger {
  readonly #slotsMax: number
  // One row per entry, in admission order, gaps included.
  #start = new Float64Array(ROWS_MIN)
  #end = new Float64Array(ROWS_MIN)
  #blockers = new Int32Array(ROWS_MIN)
  #slot = new Int32Array(ROWS_MIN)
  /** One more than the row of a slot; 0 for a slot that is not here. */
  readonly #rowPlusOne: Int32Array
  #rows = 0
  #count = 0
  #holds: readonly Hold[] = []

  constructor(slotsMax: number) {
    assert(slotsMax > 0, 'a ledger has room for a request')
    this.#slotsMax = slotsMax
    this.#rowPlusOne = new Int32Array(slotsMax)
  }

  /** Writes admitted and not cleared. */
  get count(): number {
    return this.#count
  }

  /** True: it may be submitted now. False: it is held, and a later `clear` or `release` will name it as ready. */
  admit(slot: number, offset: number, length: number): boolean {
    if (this.#rowPlusOne[slot] !== 0) throw new AssertionFailure(`slot ${slot} cannot be admitted to the ledger`)
    if (this.#rows === this.#slot.length) this.#grow()
    const start = length > 0 ? offset : EMPTY_START
    const end = length > 0 ? offset + length : EMPTY_END
    const rows = this.#rows
    let blockers = this.#holds.length === 0 ? 0 : this.#holdsOver(start, end)
    for (let row = 0; row < rows; row++) {
      if (start < (this.#end[row] ?? EMPTY_END) && (this.#start[row] ?? EMPTY_START) < end) blockers += 1
    }
    this.#start[rows] = start
    this.#end[rows] = end
    this.#blockers[rows] = blockers
    this.#slot[rows] = slot
    this.#rowPlusOne[slot] = rows + 1
    this.#rows += 1
    this.#count += 1
    return blockers === 0
  }

  /**
   * The write has cleared, or was dropped before it was submitted. Appends to `ready` the slots that nothing blocks any
   * more, in the order of their admission; they stay in the ledger.
   */
  clear(slot: number, ready: SlotList): void {
    const cleared = this.#rowOf(slot)
    const start = this.#start[cleared] ?? EMPTY_START
    const end = this.#end[cleared] ?? EMPTY_END
    this.#start[cleared] = EMPTY_START
    this.#end[cleared] = EMPTY_END
    this.#slot[cleared] = NOWHERE
    this.#rowPlusOne[slot] = 0
    this.#count -= 1
    for (let row = cleared + 1; row < this.#rows; row++) {
      if (start < (this.#end[row] ?? EMPTY_END) && (this.#start[row] ?? EMPTY_START) < end) this.#unblock(row, 1, ready)
    }
    if (this.#rows - this.#count >= this.#count + GAPS_MIN) this.#closeGaps()
  }

  /** Whether the slot is in the ledger and must wait. */
  isHeld(slot: number): boolean {
    const row = (this.#rowPlusOne[slot] ?? 0) - 1
    return row !== NOWHERE && (this.#blockers[row] ?? 0) > 0
  }

  /** Whether the slot is in the ledger at all. */
  has(slot: number): boolean {
    return (this.#rowPlusOne[slot] ?? 0) !== 0
  }

  /** Adds holds. A write that was already free to go cannot be called back, so that none overlaps is asserted. */
  hold(holds: readonly Hold[]): void {
    this.#holds = this.#holds.concat(holds)
    for (let row = 0; row < this.#rows; row++) {
      const over = countOver(holds, this.#start[row] ?? EMPTY_START, this.#end[row] ?? EMPTY_END)
      if (over === 0) continue
      assert((this.#blockers[row] ?? 0) > 0, 'a hold comes before the writes that it holds')
      this.#blockers[row] = (this.#blockers[row] ?? 0) + over
    }
  }

  /** Drops all holds of a generation; what they held alone is appended to `ready`, in the order of admission. */
  release(generation: number, ready: SlotList): void {
    const released = this.#holds.filter((hold) => hold.generation === generation)
    this.#holds = this.#holds.filter((hold) => hold.generation !== generation)
    for (let row = 0; row < this.#rows; row++) {
      const over = countOver(released, this.#start[row] ?? EMPTY_START, this.#end[row] ?? EMPTY_END)
      if (over > 0) this.#unblock(row, over, ready)
    }
  }

  /** Each hold with the number of writes that wait and overlap it. */
  holds(): (Hold & { readonly waiting: number })[] {
    return this.#holds.map((hold) => ({ ...hold, waiting: this.#waitingOver(hold) }))
  }

  /** The ranges of all writes that have not cleared, in the order of admission. */
  ranges(): Range[] {
    const ranges: Range[] = []
    for (let row = 0; row < this.#rows; row++) {
      const start = this.#start[row] ?? EMPTY_START
      const end = this.#end[row] ?? EMPTY_END
      if (start < end) ranges.push({ offset: start, length: end - start })
    }
    return ranges
  }

  /** Throws unless every count of blockers is what a fresh count finds. For tests; quadratic. */
  invariants(): void {
    let count = 0
    for (let row = 0; row < this.#rows; row++) {
      const slot = this.#slot[row] ?? NOWHERE
      if (slot === NOWHERE) {
        assert(this.#start[row] === EMPTY_START, 'a gap overlaps nothing')
        continue
      }
      count += 1
      assert(this.#rowPlusOne[slot] === row + 1, `slot ${slot} knows its row`)
      const start = this.#start[row] ?? EMPTY_START
      const end = this.#end[row] ?? EMPTY_END
      let blockers = this.#holdsOver(start, end)
      for (let earlier = 0; earlier < row; earlier++) {
        if (start < (this.#end[earlier] ?? EMPTY_END) && (this.#start[earlier] ?? EMPTY_START) < end) blockers += 1
      }
      assert(this.#blockers[row] === blockers, `slot ${slot} has ${blockers} blockers`)
    }
    assert(count === this.#count, 'the count is that of the rows in use')
    const known = this.#rowPlusOne.reduce((sum, rowPlusOne) => sum + (rowPlusOne === 0 ? 0 : 1), 0)
    assert(known === count, 'every slot that has a row is in the rows')
    assert(this.#rows - count < count + GAPS_MIN, 'gaps do not outnumber the entries')
  }

  #rowOf(slot: number): number {
    const row = (this.#rowPlusOne[slot] ?? 0) - 1
    if (row === NOWHERE) throw new AssertionFailure(`slot ${slot} is not in the ledger`)
    return row
  }

  #unblock(row: number, by: number, ready: SlotList): void {
    const blockers = (this.#blockers[row] ?? 0) - by
    if (blockers < 0) throw new AssertionFailure('a write was unblocked by what never blocked it')
    this.#blockers[row] = blockers
    if (blockers === 0) ready.push(this.#slot[row] ?? NOWHERE)
  }

  #holdsOver(start: number, end: number): number {
    return countOver(this.#holds, start, end)
  }

  #waitingOver(hold: Hold): number {
    let waiting = 0
    for (let row = 0; row < this.#rows; row++) {
      if ((this.#blockers[row] ?? 0) === 0) continue
      waiting += countOver([hold], this.#start[row] ?? EMPTY_START, this.#end[row] ?? EMPTY_END)
    }
    return waiting
  }

  #grow(): void {
    const rowsMax = this.#slot.length * 2
    this.#start = copyOf(this.#start, new Float64Array(rowsMax))
    this.#end = copyOf(this.#end, new Float64Array(rowsMax))
    this.#blockers = copyOf(this.#blockers, new Int32Array(rowsMax))
    this.#slot = copyOf(this.#slot, new Int32Array(rowsMax))
  }

  #closeGaps(): void {
    let to = 0
    for (let row = 0; row < this.#rows; row++) {
      const slot = this.#slot[row] ?? NOWHERE
      if (slot === NOWHERE) continue
      this.#start[to] = this.#start[row] ?? EMPTY_START
      this.#end[to] = this.#end[row] ?? EMPTY_END
      this.#blockers[to] = this.#blockers[row] ?? 0
      this.#slot[to] = slot
      this.#rowPlusOne[slot] = to + 1
      to += 1
    }
    this.#rows = to
    if (this.#count !== to || to > this.#slotsMax) throw new AssertionFailure('the ledger lost count of its entries')
  }
}

function countOver(holds: readonly Hold[], start: number, end: number): number {
  let count = 0
  for (const hold of holds) if (start < hold.offset + hold.length && hold.offset < end && hold.length > 0) count += 1
  return count
}

function copyOf<Column extends Float64Array | Int32Array>(from: Column, to: Column): Column {
  to.set(from)
  return to
}
