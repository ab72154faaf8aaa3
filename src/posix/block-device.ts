/**
 * What a block device says of itself, by ioctl. All of it needs an open descriptor; nothing here writes except
 * `discardBlocks` and `zeroBlocks`.
 */

import { libc, outcome } from './libc.ts'

const BLKROGET = 0x125e
const BLKSSZGET = 0x1268
const BLKPBSZGET = 0x127b
const BLKGETSIZE64 = 0x80081272
const BLKDISCARD = 0x1277
const BLKZEROOUT = 0x127f

const value32 = new Int32Array(1)
const range = new BigUint64Array(2)
const rangeBytes = new Uint8Array(range.buffer)

/** Bytes, or -errno (-ENOTTY when it is no block device). */
export function deviceSizeBytes(descriptor: number): number {
  const result = outcome(libc.ioctl(descriptor, BLKGETSIZE64, rangeBytes))
  return result < 0 ? result : Number(range[0])
}

/** The unit in which the device is addressed, in bytes; or -errno. */
export function logicalBlockBytes(descriptor: number): number {
  return query32(descriptor, BLKSSZGET)
}

/** The unit that the device writes without reading first, in bytes; or -errno. */
export function physicalBlockBytes(descriptor: number): number {
  return query32(descriptor, BLKPBSZGET)
}

/** 1 when the device refuses writes, 0 when not, or -errno. */
export function deviceReadOnly(descriptor: number): number {
  const result = query32(descriptor, BLKROGET)
  return result > 0 ? 1 : result
}

/** BLKDISCARD. 0 or -errno. */
export function discardBlocks(descriptor: number, offset: number, lengthBytes: number): number {
  return onRange(descriptor, BLKDISCARD, offset, lengthBytes)
}

/** BLKZEROOUT. 0 or -errno. */
export function zeroBlocks(descriptor: number, offset: number, lengthBytes: number): number {
  return onRange(descriptor, BLKZEROOUT, offset, lengthBytes)
}

function query32(descriptor: number, request: number): number {
  value32[0] = 0
  const result = outcome(libc.ioctl(descriptor, request, value32))
  return result < 0 ? result : value32[0]
}

function onRange(descriptor: number, request: number, offset: number, lengthBytes: number): number {
  range[0] = BigInt(offset)
  range[1] = BigInt(lengthBytes)
  return outcome(libc.ioctl(descriptor, request, rangeBytes))
}
