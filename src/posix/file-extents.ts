/**
 * How a file lies on its disk, as FS_IOC_FIEMAP tells: which bytes have blocks, and which of those were written. It is
 * asked without FIEMAP_FLAG_SYNC, so nothing is flushed and nothing written; what still waits in the page cache shows as
 * it is on the disk.
 */

import { libc, outcome } from './libc.ts'

const FS_IOC_FIEMAP = 0xc020660b
const HEADER_BYTES = 32
const EXTENT_BYTES = 56
const EXTENTS_AT_ONCE = 512
const BATCHES_MAX = 256
const EXTENT_LAST = 0x1
const EXTENT_ENCODED = 0x8
const EXTENT_UNWRITTEN = 0x800
const EXTENT_SHARED = 0x2000

export interface FileExtents {
  readonly writtenBytes: number
  /** Allocated and never written: the first write to them changes the file system's metadata too. */
  readonly unwrittenBytes: number
  /** Compressed or encrypted by the file system. */
  readonly encodedBytes: number
  /** Shared with another file or a snapshot: the first write to them allocates. */
  readonly sharedBytes: number
  readonly count: number
  /** False where there are more extents than were looked at. */
  readonly complete: boolean
}

const request = new Uint8Array(HEADER_BYTES + EXTENTS_AT_ONCE * EXTENT_BYTES)
const view = new DataView(request.buffer)

/** What was found, or -errno (-EOPNOTSUPP or -ENOTTY where the file system cannot tell). */
export function fileExtents(descriptor: number): FileExtents | number {
  const sums = { writtenBytes: 0, unwrittenBytes: 0, encodedBytes: 0, sharedBytes: 0, count: 0 }
  let start = 0n
  for (let batch = 0; batch < BATCHES_MAX; batch += 1) {
    request.fill(0, 0, HEADER_BYTES)
    view.setBigUint64(0, start, true)
    view.setBigUint64(8, 0xffff_ffff_ffff_ffffn - start, true)
    view.setUint32(24, EXTENTS_AT_ONCE, true)
    const result = outcome(libc.ioctl(descriptor, FS_IOC_FIEMAP, request))
    if (result < 0) return result
    const mapped = view.getUint32(20, true)
    for (let index = 0; index < mapped; index += 1) {
      const base = HEADER_BYTES + index * EXTENT_BYTES
      const lengthBytes = Number(view.getBigUint64(base + 16, true))
      const flags = view.getUint32(base + 40, true)
      if ((flags & EXTENT_UNWRITTEN) !== 0) sums.unwrittenBytes += lengthBytes
      else sums.writtenBytes += lengthBytes
      if ((flags & EXTENT_ENCODED) !== 0) sums.encodedBytes += lengthBytes
      if ((flags & EXTENT_SHARED) !== 0) sums.sharedBytes += lengthBytes
      sums.count += 1
      if ((flags & EXTENT_LAST) !== 0) return { ...sums, complete: true }
      start = view.getBigUint64(base, true) + BigInt(lengthBytes)
    }
    if (mapped === 0) return { ...sums, complete: true }
  }
  return { ...sums, complete: false }
}
