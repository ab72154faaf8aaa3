import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { BufferArena } from '../../src/data/buffer-arena.ts'
import { AssertionFailure } from '../../src/foundation/assert.ts'

const PAGE = 4096
const BASE = 16 * PAGE

/** Which pages are taken, and nothing cleverer: a block is free if all its pages are. */
class NaiveArena {
  readonly #pages: boolean[]

  constructor(pages: number) {
    this.#pages = new Array<boolean>(pages).fill(false)
  }

  /** Whether a block of so many pages, aligned to its size, is free anywhere. */
  hasRoom(pages: number): boolean {
    for (let first = 0; first < this.#pages.length; first += pages) {
      if (this.#pages.slice(first, first + pages).every((taken) => !taken)) return pages <= this.#pages.length
    }
    return false
  }

  isFree(first: number, pages: number): boolean {
    return this.#pages.slice(first, first + pages).every((taken) => !taken)
  }

  mark(first: number, pages: number, taken: boolean): void {
    this.#pages.fill(taken, first, first + pages)
  }
}

describe('the buffer arena', () => {
  test('gives out what a naive allocator says is free, aligned and disjoint, and takes it all back', () => {
    const step = fc.oneof(
      fc.record({ allocate: fc.integer({ min: 1, max: 40 * PAGE }) }),
      fc.record({ release: fc.nat() }),
    )
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
        const arena = new BufferArena(BASE, 32 * PAGE)
        const naive = new NaiveArena(32)
        const taken: { offset: number; pages: number }[] = []
        for (const one of steps) {
          if ('allocate' in one) {
            const pages = BufferArena.footprint(one.allocate) / PAGE
            const offset = arena.allocate(one.allocate)
            expect(offset >= 0).toBe(naive.hasRoom(pages))
            if (offset < 0) continue
            const first = (offset - BASE) / PAGE
            expect(first % pages).toBe(0)
            expect(pages * PAGE).toBeGreaterThanOrEqual(one.allocate)
            expect(naive.isFree(first, pages)).toBe(true)
            naive.mark(first, pages, true)
            taken.push({ offset, pages })
          } else if (taken.length > 0) {
            const [given] = taken.splice(one.release % taken.length, 1)
            arena.release(given!.offset)
            naive.mark((given!.offset - BASE) / PAGE, given!.pages, false)
          }
          arena.invariants()
          expect(arena.usedBytes).toBe(taken.reduce((sum, { pages }) => sum + pages * PAGE, 0))
        }
        for (const { offset } of taken) arena.release(offset)
        arena.invariants()
        expect(arena.usedBytes).toBe(0)
        expect(arena.allocate(32 * PAGE)).toBe(BASE)
      }),
    )
  })

  test('has nothing for more than it is', () => {
    const arena = new BufferArena(0, 4 * PAGE)
    expect(arena.allocate(4 * PAGE + 1)).toBe(-1)
    expect(arena.allocate(4 * PAGE)).toBe(0)
    expect(arena.allocate(1)).toBe(-1)
  })

  test('takes a buffer back once, and only where it begins', () => {
    const arena = new BufferArena(0, 4 * PAGE)
    const buffer = arena.allocate(2 * PAGE)
    expect(() => {
      arena.release(buffer + PAGE)
    }).toThrow(AssertionFailure)
    arena.release(buffer)
    expect(() => {
      arena.release(buffer)
    }).toThrow(AssertionFailure)
    expect(() => {
      arena.release(64 * PAGE)
    }).toThrow(AssertionFailure)
  })

  test('is made of a power of two pages, on a page', () => {
    expect(() => new BufferArena(0, 3 * PAGE)).toThrow(AssertionFailure)
    expect(() => new BufferArena(100, 4 * PAGE)).toThrow(AssertionFailure)
    expect(new BufferArena(0, PAGE).allocate(1)).toBe(0)
  })
})
