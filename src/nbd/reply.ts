/**
 * The simple reply: the only kind this server sends, since it does not negotiate structured ones. After a successful
 * READ the data follows. Nothing here allocates, and the cookie is copied as the eight bytes it came as.
 */

import { NBD_SIMPLE_REPLY_MAGIC } from './constants.ts'
import { COOKIE_BYTES } from './request-header.ts'

/** magic 4, error 4, cookie 8; big-endian. */
export const SIMPLE_REPLY_BYTES = 16

/**
 * Writes SIMPLE_REPLY_BYTES bytes at `at`, which counts in `view` and in `bytes` alike: two views of the same memory.
 * The cookie is taken from `cookieBytes` at `cookieAt`.
 */
export function writeSimpleReply(
  view: DataView,
  bytes: Uint8Array,
  at: number,
  error: number,
  cookieBytes: Uint8Array,
  cookieAt: number,
): void {
  view.setUint32(at, NBD_SIMPLE_REPLY_MAGIC)
  view.setUint32(at + 4, error)
  for (let index = 0; index < COOKIE_BYTES; index++) {
    bytes[at + 8 + index] = cookieBytes[cookieAt + index] ?? 0
  }
}
