import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { closeDescriptor, duplicateDescriptor } from '../../src/posix/descriptor.ts'
import { ERRNO } from '../../src/posix/errno.ts'
import { OPEN, openFile } from '../../src/posix/file.ts'
import {
  LOCK_EXCLUSIVE_ELSEWHERE,
  LOCK_FREE,
  LOCK_OFFSET_MAX,
  LOCK_SHARED_ELSEWHERE,
  queryLock,
  setLock,
  unlock,
} from '../../src/posix/locks.ts'
import { temporaryDirectory } from '../support/temporary-directory.ts'

const FAR = 2n ** 62n

function openTwice(): readonly [number, number] {
  const path = join(temporaryDirectory(), 'image')
  writeFileSync(path, 'x')
  const open = (): number => {
    const descriptor = openFile(path, OPEN.readWrite)
    onTestFinished(() => {
      closeDescriptor(descriptor)
    })
    return descriptor
  }
  return [open(), open()]
}

test('an exclusive lock refuses everybody else and nobody in front of it', () => {
  const [one, other] = openTwice()
  expect(setLock(one, 'exclusive', FAR + 7n, 1n)).toBe(0)
  expect(setLock(other, 'exclusive', FAR + 7n, 1n)).toBe(-ERRNO.EAGAIN)
  expect(setLock(other, 'shared', FAR, 0n)).toBe(-ERRNO.EAGAIN)
  expect(setLock(other, 'exclusive', FAR + 8n, 0n)).toBe(0)
  expect(queryLock(other, 'exclusive', FAR + 7n, 1n)).toBe(LOCK_EXCLUSIVE_ELSEWHERE)
  expect(queryLock(one, 'exclusive', FAR + 7n, 1n)).toBe(LOCK_FREE)
  expect(queryLock(one, 'exclusive', LOCK_OFFSET_MAX, 1n)).toBe(LOCK_EXCLUSIVE_ELSEWHERE)
})

test('shared locks bear each other', () => {
  const [one, other] = openTwice()
  expect(setLock(one, 'shared', 100n, 1n)).toBe(0)
  expect(setLock(other, 'shared', 100n, 1n)).toBe(0)
  expect(queryLock(one, 'shared', 100n, 1n)).toBe(LOCK_FREE)
  expect(queryLock(one, 'exclusive', 100n, 1n)).toBe(LOCK_SHARED_ELSEWHERE)
  expect(unlock(other, 0n, 0n)).toBe(0)
  expect(queryLock(one, 'exclusive', 100n, 1n)).toBe(LOCK_FREE)
})

test('a lock belongs to the open file: another descriptor closed leaves it, the last duplicate frees it', () => {
  const path = join(temporaryDirectory(), 'image')
  writeFileSync(path, 'x')
  const [owner, other] = [openFile(path, OPEN.readWrite), openFile(path, OPEN.readWrite)]
  expect(setLock(owner, 'exclusive', FAR, 0n)).toBe(0)
  const duplicate = duplicateDescriptor(owner)
  expect(closeDescriptor(owner)).toBe(0)
  expect(closeDescriptor(openFile(path, OPEN.readWrite))).toBe(0)
  expect(queryLock(other, 'exclusive', FAR, 1n)).toBe(LOCK_EXCLUSIVE_ELSEWHERE)
  expect(closeDescriptor(duplicate)).toBe(0)
  expect(queryLock(other, 'exclusive', FAR, 1n)).toBe(LOCK_FREE)
  expect(closeDescriptor(other)).toBe(0)
})

test('a bad descriptor is an answer, an impossible range is a bug', () => {
  expect(setLock(99_999, 'shared', 0n, 1n)).toBe(-ERRNO.EBADF)
  expect(queryLock(99_999, 'shared', 0n, 1n)).toBe(-ERRNO.EBADF)
  expect(() => setLock(0, 'shared', LOCK_OFFSET_MAX, 2n)).toThrow('63 bits')
  expect(() => setLock(0, 'shared', -1n, 2n)).toThrow('positive offsets')
})
