/**
 * What an export can do, and the sixteen bits that tell a client so. FLUSH and FUA are always there. A read-only export
 * offers nothing that writes, and may be read over any number of connections. The same abilities give the limits that
 * requests are checked against, so that what is offered and what is accepted cannot drift apart.
 */

import {
  NBD_FLAG_CAN_MULTI_CONN,
  NBD_FLAG_HAS_FLAGS,
  NBD_FLAG_READ_ONLY,
  NBD_FLAG_ROTATIONAL,
  NBD_FLAG_SEND_CACHE,
  NBD_FLAG_SEND_FAST_ZERO,
  NBD_FLAG_SEND_FLUSH,
  NBD_FLAG_SEND_FUA,
  NBD_FLAG_SEND_TRIM,
  NBD_FLAG_SEND_WRITE_ZEROES,
} from './constants.ts'
import type { RequestLimits } from './request-check.ts'

export interface ExportAbilities {
  readonly readOnly: boolean
  /** Several connections of one client at once, with FLUSH and FUA effective across all of them. */
  readonly shared: boolean
  readonly canTrim: boolean
  readonly canZero: boolean
  /** Only together with `canZero`. */
  readonly canFastZero: boolean
  readonly canCache: boolean
  readonly rotational: boolean
}

/**
 * What this server can do with any image: where a file or device cannot, it does it another way, or, asked for a fast
 * zero, says so.
 */
export function servedAbilities(readOnly: boolean, shared: boolean): ExportAbilities {
  return { readOnly, shared, canTrim: true, canZero: true, canFastZero: true, canCache: true, rotational: false }
}

export function transmissionFlags(abilities: ExportAbilities): number {
  const writable = !abilities.readOnly
  const zeroes = writable && abilities.canZero
  let flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA
  if (abilities.readOnly) flags |= NBD_FLAG_READ_ONLY
  if (abilities.rotational) flags |= NBD_FLAG_ROTATIONAL
  if (writable && abilities.canTrim) flags |= NBD_FLAG_SEND_TRIM
  if (zeroes) flags |= NBD_FLAG_SEND_WRITE_ZEROES
  if (abilities.shared || abilities.readOnly) flags |= NBD_FLAG_CAN_MULTI_CONN
  if (abilities.canCache) flags |= NBD_FLAG_SEND_CACHE
  if (zeroes && abilities.canFastZero) flags |= NBD_FLAG_SEND_FAST_ZERO
  return flags
}

/** The limits that match `transmissionFlags(abilities)`. */
export function requestLimits(abilities: ExportAbilities, sizeBytes: number, payloadBytesMax: number): RequestLimits {
  return {
    sizeBytes,
    payloadBytesMax,
    readOnly: abilities.readOnly,
    canTrim: abilities.canTrim,
    canZero: abilities.canZero,
    canFastZero: abilities.canZero && abilities.canFastZero,
    canCache: abilities.canCache,
  }
}
