/**
 * The ledger against a model that knows nothing but sets of bytes: after any schedule of admissions, clearings, drops
 * and releases both say the same writes may go, and in the end every write has gone, overlapping ones one after the other.
 */

import fc from 'fast-check'
import { beforeEach, describe, expect, it } from 'vitest'
import { RangeLedger } from '../../src/interlock/range-ledger.ts'
import { SlotList } from '../../src/interlock/slot-list.ts'
import type { Hold } from '../../src/interlock/range.ts'

const SLOTS = 24

interface ModelEntry {
  readonly slot: number
  readonly write: number
  readonly bytes: ReadonlySet<number>
}

/** The order of admission, in the open. */
class Model {
  entries: ModelEntry[] = []
  holds: { readonly generation: number; readonly bytes: ReadonlySet<number> }[] = []

  mayGo(): Set<number> {
    const free = this.entries.filter(
      (entry, index) =>
        this.entries.slice(0, index).every((earlier) => disjoint(earlier.bytes, entry.bytes)) &&
        this.holds.every((hold) => disjoint(hold.bytes, entry.bytes)),
    )
    return new Set(free.map((entry) => entry.slot))
  }
}

const bytesOf = (offset: number, length: number): Set<number> =>
  new Set(Array.from({ length }, (_, index) => offset + index))

const disjoint = (a: ReadonlySet<number>, b: ReadonlySet<number>): boolean => [...a].every((byte) => !b.has(byte))

const range = fc.record({ offset: fc.nat(60), length: fc.integer({ min: 0, max: 12 }) })
const step = fc.oneof(
  { weight: 5, arbitrary: fc.record({ kind: fc.constant('admit' as const), range }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('clear' as const), pick: fc.nat() }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('drop' as const), pick: fc.nat() }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('release' as const), generation: fc.nat(2) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('hold' as const), range, generation: fc.nat(2) }) },
)
const holds = fc.array(
  fc.record({ offset: fc.nat(60), length: fc.integer({ min: 1, max: 12 }), generation: fc.nat(2) }),
  { maxLength: 4 },
)

/** Runs the ledger and the model side by side. */
class Pair {
  readonly ledger = new RangeLedger(SLOTS)
  readonly model = new Model()
  readonly ready = new SlotList(SLOTS)
  /** What the ledger has let go, as a caller would know it. */
  readonly going = new Set<number>()
  readonly admitted: ModelEntry[] = []
  readonly wentAt = new Map<number, number>()
  readonly leftAt = new Map<number, number>()
  #time = 0

  constructor(initial: readonly Hold[]) {
    this.ledger.hold(initial)
    this.model.holds = initial.map((hold) => ({
      generation: hold.generation,
      bytes: bytesOf(hold.offset, hold.length),
    }))
  }

  /** A hold may come late, as long as it holds nothing that is going already. */
  hold(hold: Hold): void {
    const bytes = bytesOf(hold.offset, hold.length)
    const going = this.model.entries.filter((entry) => this.going.has(entry.slot))
    if (going.some((entry) => !disjoint(entry.bytes, bytes))) return
    this.ledger.hold([hold])
    this.model.holds.push({ generation: hold.generation, bytes })
  }

  admit(offset: number, length: number): void {
    const slot = Array.from({ length: SLOTS }, (_, index) => index).find((index) => !this.ledger.has(index))
    if (slot === undefined) return
    const entry = { slot, write: this.admitted.length, bytes: bytesOf(offset, length) }
    this.admitted.push(entry)
    this.model.entries.push(entry)
    if (this.ledger.admit(slot, offset, length)) this.#goes(slot)
  }

  /** A write that went has been completed, or one that waits is dropped. */
  leave(slots: readonly number[], pick: number): void {
    const slot = slots[pick % slots.length]
    if (slot === undefined) return
    const left = this.model.entries.find((entry) => entry.slot === slot)
    this.model.entries = this.model.entries.filter((entry) => entry.slot !== slot)
    this.leftAt.set(left?.write ?? -1, this.#tick())
    this.going.delete(slot)
    this.ledger.clear(slot, this.ready)
    this.#takeReady()
  }

  release(generation: number): void {
    this.model.holds = this.model.holds.filter((hold) => hold.generation !== generation)
    this.ledger.release(generation, this.ready)
    this.#takeReady()
  }

  waiting(): number[] {
    return this.model.entries.map((entry) => entry.slot).filter((slot) => !this.going.has(slot))
  }

  agree(): void {
    this.ledger.invariants()
    expect(this.going).toEqual(this.model.mayGo())
    expect(this.ledger.count).toBe(this.model.entries.length)
    expect(this.model.entries.map(({ slot }) => this.ledger.isHeld(slot))).toEqual(
      this.model.entries.map(({ slot }) => !this.going.has(slot)),
    )
    expect(this.ledger.ranges().map(({ offset, length }) => bytesOf(offset, length))).toEqual(
      this.model.entries.map(({ bytes }) => bytes).filter((bytes) => bytes.size > 0),
    )
    const waiting = this.model.entries.filter(({ slot }) => !this.going.has(slot))
    expect(this.ledger.holds().map((hold) => hold.waiting)).toEqual(
      this.model.holds.map((hold) => waiting.filter(({ bytes }) => !disjoint(bytes, hold.bytes)).length),
    )
  }

  /** Guarantee 4, from the times alone: of two that overlap the later went after the earlier had left. */
  overlapsRanInOrder(): void {
    for (const later of this.admitted) {
      for (const earlier of this.admitted.slice(0, later.write)) {
        if (disjoint(earlier.bytes, later.bytes) || !this.wentAt.has(later.write)) continue
        expect(this.wentAt.get(later.write)).toBeGreaterThan(this.leftAt.get(earlier.write) ?? Infinity)
      }
    }
  }

  #takeReady(): void {
    const order = this.model.entries.map((entry) => entry.slot)
    const positions = this.ready.toArray().map((slot) => order.indexOf(slot))
    expect(positions).toEqual([...positions].sort((a, b) => a - b))
    for (const slot of this.ready.toArray()) this.#goes(slot)
    this.ready.empty()
  }

  #goes(slot: number): void {
    expect(this.going.has(slot)).toBe(false)
    this.going.add(slot)
    const write = this.model.entries.find((entry) => entry.slot === slot)?.write ?? -1
    this.wentAt.set(write, this.#tick())
  }

  #tick(): number {
    this.#time += 1
    return this.#time
  }
}

describe('the ledger and its model', () => {
  it('let the same writes go under any schedule, overlapping ones in order of admission, and every one in the end', () => {
    fc.assert(
      fc.property(
        holds,
        fc.array(step, { maxLength: 150, size: 'max' }),
        fc.infiniteStream(fc.nat()),
        (initial, steps, picks) => {
          const pair = new Pair(initial)
          const dropped = new Set<number>()
          for (const next of steps) {
            if (next.kind === 'admit') pair.admit(next.range.offset, next.range.length)
            else if (next.kind === 'clear') pair.leave([...pair.going], next.pick)
            else if (next.kind === 'release') pair.release(next.generation)
            else if (next.kind === 'hold') pair.hold({ ...next.range, generation: next.generation })
            else {
              const waiting = pair.waiting()
              const slot = waiting[next.pick % waiting.length]
              const entry = pair.model.entries.find((candidate) => candidate.slot === slot)
              if (entry !== undefined) dropped.add(entry.write)
              pair.leave(waiting, next.pick)
            }
            pair.agree()
          }
          for (const generation of [0, 1, 2]) pair.release(generation)
          pair.agree()
          while (pair.model.entries.length > 0) {
            expect(pair.going.size).toBeGreaterThan(0)
            pair.leave([...pair.going], picks.next().value)
            pair.agree()
          }
          expect(pair.admitted.filter(({ write }) => !pair.wentAt.has(write)).map(({ write }) => write)).toEqual(
            [...dropped].sort((a, b) => a - b),
          )
          pair.overlapsRanInOrder()
        },
      ),
      { numRuns: 80 },
    )
  })
})

describe('the rules of the ledger', () => {
  let ledger: RangeLedger
  let ready: SlotList

  beforeEach(() => {
    ledger = new RangeLedger(8)
    ready = new SlotList(8)
  })

  it('a write that overlaps nothing goes at once, also when it touches', () => {
    expect(ledger.admit(0, 4096, 4096)).toBe(true)
    expect(ledger.admit(1, 0, 4096)).toBe(true)
    expect(ledger.admit(2, 8192, 4096)).toBe(true)
  })

  it('a write waits for an earlier one that shares one byte', () => {
    expect(ledger.admit(0, 4096, 4096)).toBe(true)
    expect(ledger.admit(1, 8191, 1)).toBe(false)
    expect(ledger.admit(2, 0, 4097)).toBe(false)
    ledger.clear(0, ready)
    expect(ready.toArray()).toEqual([1, 2])
  })

  it('a write waits for an earlier one that itself waits', () => {
    ledger.admit(0, 0, 10)
    expect(ledger.admit(1, 5, 10)).toBe(false)
    // Overlaps only the waiting one: letting it go now would let the older bytes land last.
    expect(ledger.admit(2, 12, 10)).toBe(false)
    ledger.clear(0, ready)
    expect(ready.toArray()).toEqual([1])
    ready.empty()
    ledger.clear(1, ready)
    expect(ready.toArray()).toEqual([2])
  })

  it('a write waits for all that it overlaps', () => {
    ledger.admit(0, 0, 10)
    ledger.admit(1, 10, 10)
    expect(ledger.admit(2, 5, 10)).toBe(false)
    ledger.clear(1, ready)
    expect(ready.count).toBe(0)
    ledger.clear(0, ready)
    expect(ready.toArray()).toEqual([2])
  })

  it('a held write waits for its hold and for its predecessors, whichever is last', () => {
    ledger.hold([{ offset: 0, length: 4, generation: 6 }])
    ledger.admit(0, 8, 8)
    expect(ledger.admit(1, 0, 16)).toBe(false)
    ledger.clear(0, ready)
    expect(ready.count).toBe(0)
    expect(ledger.isHeld(1)).toBe(true)
    expect(ledger.holds()).toEqual([{ offset: 0, length: 4, generation: 6, waiting: 1 }])
    ledger.release(6, ready)
    expect(ready.toArray()).toEqual([1])
    expect(ledger.holds()).toEqual([])
  })

  it('a hold that comes while a write waits is one more thing that it waits for', () => {
    ledger.admit(0, 0, 4)
    expect(ledger.admit(1, 0, 16)).toBe(false)
    ledger.hold([{ offset: 8, length: 4, generation: 6 }])
    ledger.clear(0, ready)
    expect(ready.count).toBe(0)
    ledger.release(6, ready)
    expect(ready.toArray()).toEqual([1])
  })

  it('the release of one generation leaves the holds of another', () => {
    ledger.hold([
      { offset: 0, length: 4, generation: 6 },
      { offset: 2, length: 4, generation: 7 },
    ])
    expect(ledger.admit(0, 3, 1)).toBe(false)
    ledger.release(6, ready)
    expect(ready.count).toBe(0)
    ledger.release(7, ready)
    expect(ready.toArray()).toEqual([0])
  })

  it('dropping a waiting write lets go of what waited for it alone', () => {
    ledger.admit(0, 0, 10)
    ledger.admit(1, 5, 10)
    ledger.admit(2, 12, 10)
    ledger.clear(1, ready)
    expect(ready.toArray()).toEqual([2])
  })

  it('an empty range overlaps nothing and is not listed', () => {
    ledger.admit(0, 0, 100)
    expect(ledger.admit(1, 50, 0)).toBe(true)
    expect(ledger.ranges()).toEqual([{ offset: 0, length: 100 }])
  })

  it('ranges are exact at the end of the largest export', () => {
    const last = Number.MAX_SAFE_INTEGER - 4096
    expect(ledger.admit(0, last, 4096)).toBe(true)
    expect(ledger.admit(1, last - 4096, 4096)).toBe(true)
    expect(ledger.admit(2, last - 1, 1)).toBe(false)
  })

  it('a slot is admitted once, cleared once, and a hold never comes after the write that it holds', () => {
    ledger.admit(0, 0, 10)
    expect(() => ledger.admit(0, 20, 10)).toThrow('cannot be admitted')
    expect(() => ledger.admit(8, 20, 10)).toThrow('cannot be admitted')
    expect(() => {
      ledger.hold([{ offset: 9, length: 1, generation: 1 }])
    }).toThrow('a hold comes before')
    ledger.clear(0, ready)
    expect(() => {
      ledger.clear(0, ready)
    }).toThrow('not in the ledger')
  })

  it('keeps its order through many more writes than it has rows', () => {
    const slow = new RangeLedger(200)
    const list = new SlotList(200)
    slow.admit(199, 1_000_000, 1)
    for (let round = 0; round < 5; round++) {
      for (let slot = 0; slot < 150; slot++) slow.admit(slot, slot, 2)
      slow.invariants()
      const went: number[] = [0]
      slow.clear(0, list)
      for (let slot = 1; slot < 150; slot++) {
        went.push(...list.toArray())
        list.empty()
        slow.clear(slot, list)
      }
      expect(went).toEqual(Array.from({ length: 150 }, (_, slot) => slot))
      slow.invariants()
    }
    expect(slow.ranges()).toEqual([{ offset: 1_000_000, length: 1 }])
  })
})
