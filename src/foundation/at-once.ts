/**
 * The same work for many things, so many at once and no more: a start opens hundreds of exports, and each waits for its
 * record and its disk. It is no queue and keeps no order of the ends; whoever needs a result keeps it himself.
 */

import { assert } from './assert.ts'

/** Begins in the order of the items. Rejects with the first failure; what was begun goes on, nothing more is begun. */
export async function eachAtOnce<T>(
  items: readonly T[],
  countMax: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  assert(countMax > 0, 'something may be done at once')
  let next = 0
  const take = async (): Promise<void> => {
    while (next < items.length) {
      const item = items[next] as T
      next += 1
      try {
        await work(item)
      } catch (error) {
        next = items.length
        throw error
      }
    }
  }
  await Promise.all(Array.from({ length: Math.min(countMax, items.length) }, take))
}
