import { describe, expect, it } from 'vitest'
import { overlaps } from '../../src/interlock/range.ts'

describe('two ranges', () => {
  it.each([
    [0, 10, 10, 10, false],
    [0, 11, 10, 10, true],
    [10, 10, 0, 10, false],
    [19, 1, 10, 10, true],
    [20, 1, 10, 10, false],
    [12, 2, 10, 10, true],
    [5, 20, 10, 10, true],
    [15, 0, 10, 10, false],
    [10, 0, 10, 0, false],
    [Number.MAX_SAFE_INTEGER - 1, 1, Number.MAX_SAFE_INTEGER - 2, 1, false],
  ])('%i+%i and %i+%i overlap: %s', (offset, length, otherOffset, otherLength, expected) => {
    expect(overlaps({ offset, length }, { offset: otherOffset, length: otherLength })).toBe(expected)
    expect(overlaps({ offset: otherOffset, length: otherLength }, { offset, length })).toBe(expected)
  })
})
