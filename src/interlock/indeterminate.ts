/**
 * The ranges whose bytes are not known since a write to them failed: old, new, or a mixture by logical blocks. They stay
 * listed until they have been overwritten, and a close names them in its receipt.
 *
 * 1. The ranges are sorted, disjoint, not empty, and do not touch.
 * 2. There are never more than `countMax`: beyond that the two with the smallest gap between them become one. So the
 *    list may say too much, and never too little.
 */

import { assert } from '../foundation/assert.ts'
import type { Range } from './range.ts'

export class IndeterminateRanges {
  readonly #countMax: number
  #ranges: Range[] = []

  constructor(countMax: number) {
    assert(countMax >= 1, 'there is room for one indeterminate range')
    this.#countMax = countMax
  }

  get count(): number {
    return this.#ranges.length
  }

  /** A write to the range has failed. */
  add(offset: number, length: number): void {
    if (length === 0) return
    let start = offset
    let end = offset + length
    const before: Range[] = []
    const after: Range[] = []
    for (const other of this.#ranges) {
      if (endOf(other) < start) before.push(other)
      else if (other.offset > end) after.push(other)
      else {
        start = Math.min(start, other.offset)
        end = Math.max(end, endOf(other))
      }
    }
    this.#ranges = [...before, { offset: start, length: end - start }, ...after]
    this.#mergeNearest()
  }

  /** A write to the range has been made durable. Every write comes by here, nearly always to find nothing listed. */
  overwrite(offset: number, length: number): void {
    if (this.#ranges.length === 0 || length === 0) return
    const start = offset
    const end = offset + length
    this.#ranges = this.#ranges.flatMap((other) =>
      [
        { offset: other.offset, length: Math.min(endOf(other), start) - other.offset },
        { offset: Math.max(other.offset, end), length: endOf(other) - Math.max(other.offset, end) },
      ].filter((rest) => rest.length > 0),
    )
    this.#mergeNearest()
  }

  /** A copy, in the order of their offsets. */
  list(): Range[] {
    return [...this.#ranges]
  }

  invariants(): void {
    assert(this.#ranges.length <= this.#countMax, 'the ranges are bounded')
    let reached = -1
    for (const range of this.#ranges) {
      assert(range.length > 0, 'an indeterminate range is not empty')
      assert(range.offset > reached, 'indeterminate ranges are sorted and do not touch')
      reached = endOf(range)
    }
  }

  #mergeNearest(): void {
    while (this.#ranges.length > this.#countMax) {
      let nearest = 0
      let gapMin = Infinity
      for (let index = 0; index + 1 < this.#ranges.length; index++) {
        const gap = this.#gapAfter(index)
        if (gap < gapMin) [nearest, gapMin] = [index, gap]
      }
      const [left, right] = this.#ranges.slice(nearest, nearest + 2)
      assert(left !== undefined && right !== undefined, 'two ranges are nearest')
      this.#ranges.splice(nearest, 2, { offset: left.offset, length: endOf(right) - left.offset })
    }
  }

  #gapAfter(index: number): number {
    const left = this.#ranges[index]
    const right = this.#ranges[index + 1]
    return left === undefined || right === undefined ? Infinity : right.offset - endOf(left)
  }
}

function endOf(range: Range): number {
  return range.offset + range.length
}
