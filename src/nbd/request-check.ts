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
import { payloadBytes, type RequestHeader } from './request-header.ts'

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
 * 0, or the NBD error. In this order: unknown command or a flag that does not belong to it, read-only export, what was
 * not offered, more than the maximum payload, length 0, range beyond the end.
 */
export function checkRequest(header: RequestHeader, limits: RequestLimits): number {
  const flags = header.flags & ~NBD_CMD_FLAG_FUA
  switch (header.command) {
    case NBD_CMD_READ:
      if (flags !== 0 || header.length > limits.payloadBytesMax) return NBD_EINVAL
      return checkRange(header, limits.sizeBytes, NBD_EINVAL)
    case NBD_CMD_WRITE:
      if (flags !== 0) return NBD_EINVAL
      if (limits.readOnly) return NBD_EPERM
      if (header.length > limits.payloadBytesMax) return NBD_EINVAL
      return checkRange(header, limits.sizeBytes, NBD_ENOSPC)
    case NBD_CMD_DISC:
      return NBD_SUCCESS
    case NBD_CMD_FLUSH:
      return flags === 0 && header.offset === 0 && header.length === 0 ? NBD_SUCCESS : NBD_EINVAL
    case NBD_CMD_TRIM:
      if (flags !== 0) return NBD_EINVAL
      if (limits.readOnly) return NBD_EPERM
      if (!limits.canTrim) return NBD_EINVAL
      return checkRange(header, limits.sizeBytes, NBD_EINVAL)
    case NBD_CMD_CACHE:
      if (flags !== 0 || !limits.canCache) return NBD_EINVAL
      return checkRange(header, limits.sizeBytes, NBD_EINVAL)
    case NBD_CMD_WRITE_ZEROES:
      if ((flags & ~(NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO)) !== 0) return NBD_EINVAL
      if (limits.readOnly) return NBD_EPERM
      if (!limits.canZero) return NBD_EINVAL
      if ((flags & NBD_CMD_FLAG_FAST_ZERO) !== 0 && !limits.canFastZero) return NBD_EINVAL
      return checkRange(header, limits.sizeBytes, NBD_ENOSPC)
    default:
      return NBD_EINVAL
  }
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
