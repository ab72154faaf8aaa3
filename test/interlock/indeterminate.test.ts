/** The list of failed ranges against a set of bytes: it may say too much once it is full, and never too little. */

import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { IndeterminateRanges } from '../../src/interlock/indeterminate.ts'

const operation = fc.record({
  kind: fc.constantFrom('add' as const, 'add' as const, 'overwrite' as const),
  offset: fc.nat(80),
  length: fc.nat(12),
})
const operations = fc.array(operation, { maxLength: 60 })

const bytesOf = (ranges: readonly { offset: number; length: number }[]): Set<number> =>
  new Set(ranges.flatMap(({ offset, length }) => Array.from({ length }, (_, index) => offset + index)))

describe('indeterminate ranges', () => {
  it('are exactly the failed bytes that were not overwritten, as long as there is room', () => {
    fc.assert(
      fc.property(operations, (steps) => {
        const ranges = new IndeterminateRanges(1000)
        const model = new Set<number>()
        for (const { kind, offset, length } of steps) {
          ranges[kind](offset, length)
          for (const byte of bytesOf([{ offset, length }])) {
            if (kind === 'add') model.add(byte)
            else model.delete(byte)
          }
          ranges.invariants()
          expect(bytesOf(ranges.list())).toEqual(model)
        }
      }),
      { numRuns: 300 },
    )
  })

  it('never lose a failed byte and never exceed their bound', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 4 }), operations, (countMax, steps) => {
        const ranges = new IndeterminateRanges(countMax)
        const model = new Set<number>()
        for (const { kind, offset, length } of steps) {
          ranges[kind](offset, length)
          for (const byte of bytesOf([{ offset, length }])) {
            if (kind === 'add') model.add(byte)
            else model.delete(byte)
          }
          ranges.invariants()
          const listed = bytesOf(ranges.list())
          expect([...model].filter((byte) => !listed.has(byte))).toEqual([])
          expect(ranges.count).toBeLessThanOrEqual(countMax)
        }
      }),
      { numRuns: 300 },
    )
  })

  it('merge the two with the smallest gap when there are too many', () => {
    const ranges = new IndeterminateRanges(2)
    ranges.add(0, 4096)
    ranges.add(65536, 4096)
    ranges.add(73728, 4096)
    expect(ranges.list()).toEqual([
      { offset: 0, length: 4096 },
      { offset: 65536, length: 12288 },
    ])
  })

  it('that touch are one', () => {
    const ranges = new IndeterminateRanges(8)
    ranges.add(4096, 4096)
    ranges.add(0, 4096)
    expect(ranges.list()).toEqual([{ offset: 0, length: 8192 }])
  })

  it('are cut in two by an overwrite in their middle', () => {
    const ranges = new IndeterminateRanges(8)
    ranges.add(0, 12288)
    ranges.overwrite(4096, 4096)
    expect(ranges.list()).toEqual([
      { offset: 0, length: 4096 },
      { offset: 8192, length: 4096 },
    ])
    expect(ranges.count).toBe(2)
  })
})
