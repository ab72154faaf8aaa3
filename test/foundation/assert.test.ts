import { describe, expect, it } from 'vitest'
import { AssertionFailure, assert, present, unreachable } from '../../src/foundation/assert.ts'

describe('an assertion', () => {
  it('throws what was expected, in words', () => {
    expect(() => {
      assert(false, 'water is wet')
    }).toThrow(new AssertionFailure('water is wet'))
    expect(() => {
      assert(true, 'water is wet')
    }).not.toThrow()
  })

  it('takes 0, false and the empty text for present, and names what is missing', () => {
    expect([present(0, 'a'), present(false, 'b'), present('', 'c')]).toEqual([0, false, ''])
    expect(() => present(undefined, 'the lock')).toThrow('the lock is missing')
    expect(() => present(null, 'the lock')).toThrow('the lock is missing')
  })

  it('shows the value that nobody expected', () => {
    expect(() => unreachable('sideways' as never)).toThrow('unreachable value "sideways"')
  })
})
