/**
 * The one place where a request is judged, before it is admitted. Afterwards only asserts. It is pure and allocates
 * nothing; the answer is 0 or the NBD error to reply with.
 *
 * A refused WRITE still has its payload behind it, which must be consumed before the next header. The exception is a
 * payload above the maximum (`payloadExceeds`): a peer that ignores the limit it was given, or has lost its framing.
 * It is a fault of the protocol and not of the request: disconnect, neither read nor answer it.
 *
 * NBD_CMD_DISC has no reply, so it is never refused. Nothing here rejects an odd alignment: the smallest block that is
 * advertised is one byte.
 */

import {
  NBD_CMD_CACHE,
  NBD_CMD_DISC,
  NBD_CMD_FLAG_FAST_ZERO,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_EINVAL,
  NBD_ENOSPC,
  NBD_EPERM,
  NBD_SUCCESS,
} from './constants.ts'
import { payloadBytes } from './request-header.ts'
import type { RequestHeader } from './request-header.ts'

/** What an export allows. It must agree with the transmission flags that the client was given. */
export interface RequestLimits {
  /** A safe integer. */
  readonly sizeBytes: number
  readonly readOnly: boolean
  /** The most that one READ may ask for or one WRITE may carry. */
  readonly payloadBytesMax: number
  readonly canTrim: boolean
  readonly canZero: boolean
  /** NBD_CMD_FLAG_FAST_ZERO was offered; whether the zeroing is fast is decided later, by NBD_ENOTSUP. */
  readonly canFastZero: boolean
  readonly canCache: boolean
}

/** A WRITE that announces more than the maximum payload: disconnect. */
export function payloadExceeds(header: RequestHeader, payloadBytesMax: number): boolean {
  return payloadBytes(header) > payloadBytesMax
}

/**
 * 0, or the NBD error. In this order: unknown command, a flag that does not belong to it, read-only export, what was not
 * offered, more than the maximum payload, length 0, range beyond the end.
 */
export function checkRequest(header: RequestHeader, limits: RequestLimits): number {
  switch (header.command) {
    case NBD_CMD_READ:
      return checkReading(header, limits.sizeBytes, limits.payloadBytesMax)
    case NBD_CMD_WRITE:
      return checkWriting(header, limits, 0, limits.payloadBytesMax, NBD_ENOSPC)
    case NBD_CMD_DISC:
      return NBD_SUCCESS
    case NBD_CMD_FLUSH:
      return foreignFlags(header, 0) || header.offset !== 0 || header.length !== 0 ? NBD_EINVAL : NBD_SUCCESS
    case NBD_CMD_TRIM:
      return checkWriting(header, limits, 0, limits.canTrim ? LENGTH_MAX : NOT_OFFERED, NBD_EINVAL)
    case NBD_CMD_CACHE:
      return checkReading(header, limits.sizeBytes, limits.canCache ? LENGTH_MAX : NOT_OFFERED)
    case NBD_CMD_WRITE_ZEROES: {
      const flags = limits.canFastZero ? NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO : NBD_CMD_FLAG_NO_HOLE
      return checkWriting(header, limits, flags, limits.canZero ? LENGTH_MAX : NOT_OFFERED, NBD_ENOSPC)
    }
    default:
      return NBD_EINVAL
  }
}

/** For commands without payload: as much as the header can say. */
const LENGTH_MAX = 0xffffffff
/** For commands that were not offered: no length will do. */
const NOT_OFFERED = 0

/** FUA belongs to every command, as the specification has it; it means nothing where nothing is written. */
function foreignFlags(header: RequestHeader, allowed: number): boolean {
  return (header.flags & ~(NBD_CMD_FLAG_FUA | allowed)) !== 0
}

function checkReading(header: RequestHeader, sizeBytes: number, lengthMax: number): number {
  if (foreignFlags(header, 0) || header.length > lengthMax) return NBD_EINVAL
  return checkRange(header, sizeBytes, NBD_EINVAL)
}

function checkWriting(
  header: RequestHeader,
  limits: RequestLimits,
  flags: number,
  lengthMax: number,
  beyondEnd: number,
): number {
  if (foreignFlags(header, flags)) return NBD_EINVAL
  if (limits.readOnly) return NBD_EPERM
  if (header.length > lengthMax) return NBD_EINVAL
  return checkRange(header, limits.sizeBytes, beyondEnd)
}

/**
 * A length of 0 is left open by the specification; it is refused, so that nothing after this line has to think about
 * an empty range. Both numbers are safe integers and the length is below 2^32, so the subtraction is exact where a sum
 * might not be.
 */
function checkRange(header: RequestHeader, sizeBytes: number, beyondEnd: number): number {
  if (header.length === 0) return NBD_EINVAL
  if (header.offset < 0 || header.length > sizeBytes || header.offset > sizeBytes - header.length) return beyondEnd
  return NBD_SUCCESS
}
