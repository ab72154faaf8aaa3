/**
 * A counter in the kernel that wakes whoever waits on it: the bell at the door of a sleeping thread. Ringing never
 * blocks and never allocates, and rings before the waiter looks are not lost but added up.
 */

import { ERRNO } from './errno.ts'
import { libc, outcome } from './libc.ts'

const EFD_NONBLOCK = 0o4000
const EFD_CLOEXEC = 0o2000000

const EVENT_BYTES = 8
const one = new Uint8Array(new BigUint64Array([1n]).buffer)
const count = new BigUint64Array(1)
const countBytes = new Uint8Array(count.buffer)

/** A descriptor, non-blocking and closed on exec; or -errno. */
export function createEventfd(): number {
  return outcome(libc.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK))
}

/** 0 or -errno. A counter that is full has been rung often enough: 0. */
export function ringEventfd(descriptor: number): number {
  const result = outcome(libc.write(descriptor, one, EVENT_BYTES))
  return result === EVENT_BYTES || result === -ERRNO.EAGAIN ? 0 : result
}

/** How often it rang since the last time, 0 when it did not; or -errno. */
export function drainEventfd(descriptor: number): number {
  const result = outcome(libc.read(descriptor, countBytes, EVENT_BYTES))
  if (result === -ERRNO.EAGAIN) return 0
  return result < 0 ? result : Number(count[0])
}
