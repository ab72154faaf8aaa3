import { writeSync } from 'node:fs'
import { expect, test } from 'vitest'
import { closeDescriptor, closesOnExec } from '../../src/posix/descriptor.ts'
import { ERRNO } from '../../src/posix/errno.ts'
import { createEventfd, drainEventfd, ringEventfd } from '../../src/posix/eventfd.ts'

test('rings add up until they are drained', () => {
  const bell = createEventfd()
  expect(closesOnExec(bell)).toBe(true)
  expect(drainEventfd(bell)).toBe(0)
  for (let ring = 0; ring < 5; ring += 1) expect(ringEventfd(bell)).toBe(0)
  expect(drainEventfd(bell)).toBe(5)
  expect(drainEventfd(bell)).toBe(0)
  expect(closeDescriptor(bell)).toBe(0)
  expect(ringEventfd(bell)).toBe(-ERRNO.EBADF)
  expect(drainEventfd(bell)).toBe(-ERRNO.EBADF)
})

test('a full counter has been rung', () => {
  const bell = createEventfd()
  writeSync(bell, new Uint8Array(new BigUint64Array([2n ** 64n - 2n]).buffer))
  expect(ringEventfd(bell)).toBe(0)
  expect(drainEventfd(bell)).toBe(Number(2n ** 64n - 2n))
  expect(closeDescriptor(bell)).toBe(0)
})
