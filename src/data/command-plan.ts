/**
 * What a request means for the disk: its range widened to whole blocks, the part of it that is whole blocks already, and
 * the memory it needs. Pure arithmetic on safe integers; the requests were checked at the door.
 */

import { NBD_CMD_READ, NBD_CMD_TRIM, NBD_CMD_WRITE, NBD_CMD_WRITE_ZEROES } from '../nbd/constants.ts'

export function alignDown(value: number, alignmentBytes: number): number {
  return value - (value % alignmentBytes)
}

export function alignUp(value: number, alignmentBytes: number): number {
  return alignDown(value + alignmentBytes - 1, alignmentBytes)
}

export function isAligned(offset: number, length: number, alignmentBytes: number): boolean {
  return offset % alignmentBytes === 0 && length % alignmentBytes === 0
}

/** Commands that change the image: these are ordered by the range ledger. */
export function isWriteCommand(command: number): boolean {
  return command === NBD_CMD_WRITE || command === NBD_CMD_TRIM || command === NBD_CMD_WRITE_ZEROES
}

/**
 * Bytes of buffer that a request needs before it can be admitted. An unaligned WRITE gets one block more, in which the
 * blocks at its ends are read; an unaligned WRITE_ZEROES needs just that block.
 */
export function bufferBytesFor(command: number, offset: number, length: number, alignmentBytes: number): number {
  if (length === 0) return 0
  switch (command) {
    case NBD_CMD_READ:
      return wideLength(offset, length, alignmentBytes)
    case NBD_CMD_WRITE:
      if (isAligned(offset, length, alignmentBytes)) return length
      return wideLength(offset, length, alignmentBytes) + alignmentBytes
    case NBD_CMD_WRITE_ZEROES:
      return isAligned(offset, length, alignmentBytes) ? 0 : alignmentBytes
    default:
      return 0
  }
}

export function wideLength(offset: number, length: number, alignmentBytes: number): number {
  return alignUp(offset + length, alignmentBytes) - alignDown(offset, alignmentBytes)
}

/** The start of the whole blocks inside a range; with `innerLength` 0 there are none. */
export function innerOffset(offset: number, alignmentBytes: number): number {
  return alignUp(offset, alignmentBytes)
}

export function innerLength(offset: number, length: number, alignmentBytes: number): number {
  return Math.max(0, alignDown(offset + length, alignmentBytes) - alignUp(offset, alignmentBytes))
}
