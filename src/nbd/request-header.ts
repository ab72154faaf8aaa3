/**
 * The header that every request of the transmission phase begins with, read from bytes into an object that is used
 * again for the next one: nothing here allocates. The cookie is not part of it: whoever answers copies its eight bytes
 * as they came.
 *
 * Invariant: `offset` is either exact or OFFSET_UNREPRESENTABLE. An offset above 2^53 - 1 lies beyond the end of every
 * export (their size is checked to be a safe integer), so nothing needs its value.
 */

import { NBD_CMD_WRITE, NBD_REQUEST_MAGIC } from './constants.ts'

/** magic 4, command flags 2, command 2, cookie 8, offset 8, length 4; big-endian. */
export const REQUEST_HEADER_BYTES = 28
/** Where the cookie is, counted from the header's first byte. */
export const COOKIE_OFFSET = 8
export const COOKIE_BYTES = 8
/** Stands for an offset that a number cannot hold exactly. */
export const OFFSET_UNREPRESENTABLE = -1

const FLAGS_OFFSET = 4
const COMMAND_OFFSET = 6
const OFFSET_OFFSET = 16
const LENGTH_OFFSET = 24
const TWO_TO_32 = 0x100000000
/** The high word of 2^53 and above. */
const HIGH_WORD_LIMIT = 0x200000

export interface RequestHeader {
  /** 16 bits. */
  flags: number
  /** 16 bits; not necessarily a command that is known. */
  command: number
  /** Bytes, or OFFSET_UNREPRESENTABLE. */
  offset: number
  /** Bytes, 32 bits. */
  length: number
}

export function createRequestHeader(): RequestHeader {
  return { flags: 0, command: 0, offset: 0, length: 0 }
}

/**
 * Reads the header of REQUEST_HEADER_BYTES bytes at `at`. False when it does not begin with the request's magic: then
 * `into` is untouched, the stream has lost its framing, and all that can be done is to disconnect.
 */
export function readRequestHeader(view: DataView, at: number, into: RequestHeader): boolean {
  if (view.getUint32(at) !== NBD_REQUEST_MAGIC) return false
  into.flags = view.getUint16(at + FLAGS_OFFSET)
  into.command = view.getUint16(at + COMMAND_OFFSET)
  const high = view.getUint32(at + OFFSET_OFFSET)
  const low = view.getUint32(at + OFFSET_OFFSET + 4)
  into.offset = high < HIGH_WORD_LIMIT ? high * TWO_TO_32 + low : OFFSET_UNREPRESENTABLE
  into.length = view.getUint32(at + LENGTH_OFFSET)
  return true
}

/**
 * How many bytes follow the header. Only WRITE has any; what an unknown command would carry cannot be known, so it
 * carries none.
 */
export function payloadBytes(header: RequestHeader): number {
  return header.command === NBD_CMD_WRITE ? header.length : 0
}
