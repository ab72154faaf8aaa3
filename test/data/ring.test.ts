import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Ring } from '../../src/data/ring.ts'
import { WaitingLine } from '../../src/data/waiting-line.ts'
import { AssertionFailure } from '../../src/foundation/assert.ts'

describe('the ring', () => {
  test('is a bounded queue', () => {
    const step = fc.oneof(
      fc.record({ push: fc.integer({ min: 0, max: 1000 }) }),
      fc.constant('shift' as const),
      fc.record({ keepBelow: fc.integer({ min: 0, max: 1000 }) }),
    )
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 9 }), fc.array(step, { maxLength: 100 }), (capacity, steps) => {
        const ring = new Ring(capacity)
        let model: number[] = []
        for (const one of steps) {
          if (one === 'shift') {
            if (model.length > 0) expect(ring.shift()).toBe(model.shift())
          } else if ('push' in one) {
            if (model.length === capacity) continue
            ring.push(one.push)
            model.push(one.push)
          } else {
            ring.filter((item) => item < one.keepBelow)
            model = model.filter((item) => item < one.keepBelow)
          }
          expect(ring.count).toBe(model.length)
          expect(model.map((_, index) => ring.at(index))).toEqual(model)
        }
      }),
    )
  })

  test('asserts its bounds', () => {
    const ring = new Ring(1)
    expect(() => ring.shift()).toThrow(AssertionFailure)
    ring.push(7)
    expect(() => {
      ring.push(8)
    }).toThrow(AssertionFailure)
    expect(() => ring.at(1)).toThrow(AssertionFailure)
  })
})

describe('the waiting line', () => {
  test('serves in turn, and knows since when the first has waited', () => {
    const line = new WaitingLine(4)
    expect(line.first).toBe(-1)
    line.join(3, 10)
    line.join(1, 20)
    expect([line.first, line.count, line.sinceMs]).toEqual([3, 2, 10])
    line.leave(3, 30)
    expect([line.first, line.count, line.sinceMs]).toEqual([1, 1, 30])
  })

  test('lets nobody pass', () => {
    const line = new WaitingLine(4)
    line.join(3, 10)
    line.join(1, 20)
    expect(() => {
      line.leave(1, 30)
    }).toThrow(AssertionFailure)
  })

  test('forgets whoever has gone, wherever it stands', () => {
    const line = new WaitingLine(4)
    for (const row of [3, 1, 2]) line.join(row, 10)
    line.forget(1)
    line.forget(3)
    expect([line.first, line.count]).toEqual([2, 1])
    line.forget(2)
    expect(line.first).toBe(-1)
  })
})
