import { expect, test } from 'vitest'
import { eachAtOnce } from '../../src/foundation/at-once.ts'

/** Work that ends when it is told to. */
function bench() {
  const begun: number[] = []
  const ends: (() => void)[] = []
  const work = (item: number): Promise<void> => {
    begun.push(item)
    return new Promise((resolve) => {
      ends[item] = resolve
    })
  }
  return { begun, ends, work }
}

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

test('no more at once than allowed, in order, and a slow one delays only its place', async () => {
  const { begun, ends, work } = bench()
  const all = eachAtOnce([0, 1, 2, 3, 4], 2, work)
  expect(begun).toEqual([0, 1])
  ends[1]?.()
  await settled()
  ends[2]?.()
  await settled()
  expect(begun).toEqual([0, 1, 2, 3])
  for (const item of [3, 0]) ends[item]?.()
  await settled()
  ends[4]?.()
  await all
  expect(begun).toEqual([0, 1, 2, 3, 4])
})

test('after a failure nothing more is begun', async () => {
  const begun: number[] = []
  const failing = eachAtOnce([0, 1, 2, 3], 1, (item) => {
    begun.push(item)
    return item === 1 ? Promise.reject(new Error('one')) : Promise.resolve()
  })
  await expect(failing).rejects.toThrow('one')
  expect(begun).toEqual([0, 1])
})

test('nothing is done at once', async () => {
  await expect(eachAtOnce([], 4, () => Promise.reject(new Error('none')))).resolves.toBeUndefined()
})
