/**
 * Calls on files that node:fs does not offer, or only through its pool of threads. All of them are synchronous and may
 * wait for a disk: outside of tests they run on the threads of `blocking/`, never on the main thread.
 */

import { constants } from 'node:fs'
import { ERRNO } from './errno.ts'
import { libc, outcome } from './libc.ts'
import type { Memory } from './libc.ts'

/** For `openFile`. Those that differ between machines are node's. */
export const OPEN = {
  readOnly: constants.O_RDONLY,
  readWrite: constants.O_RDWR,
  create: constants.O_CREAT,
  exclusive: constants.O_EXCL,
  truncate: constants.O_TRUNC,
  direct: constants.O_DIRECT,
  dataSync: constants.O_DSYNC,
  directory: constants.O_DIRECTORY,
  noFollow: constants.O_NOFOLLOW,
  nonBlocking: constants.O_NONBLOCK,
} as const

const O_CLOEXEC = 0o2000000

export const FALLOCATE = { keepSize: 0x01, punchHole: 0x02, zeroRange: 0x10 } as const

const AT_EMPTY_PATH = 0x1000
const STATX_TYPE = 0x0001
const STATX_DIOALIGN = 0x2000
const STATX_BYTES = 256
const statxBuffer = new Uint8Array(STATX_BYTES)
const statxView = new DataView(statxBuffer.buffer)

/** A descriptor, always closed on exec; or -errno. */
export function openFile(path: string, flags: number, mode = 0): number {
  if (path.includes('\0')) return -ERRNO.EINVAL
  return outcome(libc.open(path, flags | O_CLOEXEC, mode))
}

/** 0 or -errno. */
export function fdatasync(descriptor: number): number {
  return outcome(libc.fdatasync(descriptor))
}

/** 0 or -errno. */
export function fsync(descriptor: number): number {
  return outcome(libc.fsync(descriptor))
}

/** `mode` is made of `FALLOCATE`; 0 allocates. 0 or -errno. Flushes nothing, whatever the flags of the descriptor. */
export function fallocate(descriptor: number, mode: number, offset: number, lengthBytes: number): number {
  return outcome(libc.fallocate(descriptor, mode, offset, lengthBytes))
}

/** A further name for an existing file: 0, -EEXIST where the name is taken, another -errno. Never replaces. */
export function link(existingPath: string, createdPath: string): number {
  if (existingPath.includes('\0') || createdPath.includes('\0')) return -ERRNO.EINVAL
  return outcome(libc.link(existingPath, createdPath))
}

/** Bytes read (fewer at the end of the file, or for any other reason) or -errno. */
export function pread(descriptor: number, memory: Memory, lengthBytes: number, position: number): number {
  return outcome(libc.pread(descriptor, memory, lengthBytes, position))
}

/** Bytes written (may be fewer) or -errno. */
export function pwrite(descriptor: number, memory: Memory, lengthBytes: number, position: number): number {
  return outcome(libc.pwrite(descriptor, memory, lengthBytes, position))
}

/**
 * The alignment that the kernel says direct I/O on this file needs, of positions and lengths; 0 where it says that there
 * is no direct I/O; -ENODATA where it does not say (before Linux 6.1, and for file systems that never learned it).
 */
export function directAlignment(descriptor: number): number {
  const result = outcome(libc.statx(descriptor, '', AT_EMPTY_PATH, STATX_TYPE | STATX_DIOALIGN, statxBuffer))
  if (result < 0) return result === -ERRNO.ENOSYS ? -ERRNO.ENODATA : result
  if ((statxView.getUint32(0, true) & STATX_DIOALIGN) === 0) return -ERRNO.ENODATA
  const memoryAlignment = statxView.getUint32(152, true)
  const offsetAlignment = statxView.getUint32(156, true)
  return Math.max(memoryAlignment, offsetAlignment)
}
