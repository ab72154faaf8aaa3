/**
 * Record locks that belong to the open file (F_OFD_*), not to the process: they are freed when the last reference to
 * that open file goes, and an I/O request in flight is such a reference. Only the kind that answers at once is here;
 * the waiting kind would sit in the kernel beyond anybody's reach. Lengths of 0 reach to the end of all offsets.
 */

import { assert } from '../foundation/assert.ts'
import { libc, outcome } from './libc.ts'

const F_OFD_GETLK = 36
const F_OFD_SETLK = 37

/** The values are the kernel's. */
export const LOCK_KIND = { shared: 0, exclusive: 1 } as const
export type LockKind = keyof typeof LOCK_KIND
const F_UNLCK = 2

/** Answers of `queryLock`. */
export const LOCK_FREE = 0
export const LOCK_SHARED_ELSEWHERE = 1
export const LOCK_EXCLUSIVE_ELSEWHERE = 2

/** The largest offset that a lock can cover. */
export const LOCK_OFFSET_MAX = 2n ** 63n - 1n

/** struct flock: type and whence (16 bits each), padding, start and length (64 bits each), pid. */
const flock = new Uint8Array(32)
const flockView = new DataView(flock.buffer)

/** 0; -EAGAIN (or -EACCES) where another open file holds a lock in the way; another -errno. */
export function setLock(descriptor: number, kind: LockKind, start: bigint, length: bigint): number {
  describe(LOCK_KIND[kind], start, length)
  return outcome(libc.fcntlMemory(descriptor, F_OFD_SETLK, flock))
}

/** Lets go of whatever this open file holds in the range. 0 or -errno. */
export function unlock(descriptor: number, start: bigint, length: bigint): number {
  describe(F_UNLCK, start, length)
  return outcome(libc.fcntlMemory(descriptor, F_OFD_SETLK, flock))
}

/**
 * Which lock of another open file would refuse this one: LOCK_FREE, LOCK_SHARED_ELSEWHERE, LOCK_EXCLUSIVE_ELSEWHERE, or
 * -errno. Locks of the same open file are not in its own way, so ask through a fresh one.
 */
export function queryLock(descriptor: number, kind: LockKind, start: bigint, length: bigint): number {
  describe(LOCK_KIND[kind], start, length)
  const result = outcome(libc.fcntlMemory(descriptor, F_OFD_GETLK, flock))
  if (result < 0) return result
  const found = flockView.getInt16(0, true)
  if (found === F_UNLCK) return LOCK_FREE
  return found === LOCK_KIND.exclusive ? LOCK_EXCLUSIVE_ELSEWHERE : LOCK_SHARED_ELSEWHERE
}

function describe(type: number, start: bigint, length: bigint): void {
  assert(start >= 0n && length >= 0n, 'a lock lies at positive offsets')
  assert(start <= LOCK_OFFSET_MAX && start + length - 1n <= LOCK_OFFSET_MAX, 'a lock ends within 63 bits')
  flock.fill(0)
  flockView.setInt16(0, type, true)
  flockView.setBigInt64(8, start, true)
  flockView.setBigInt64(16, length, true)
}
