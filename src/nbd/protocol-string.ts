/**
 * A string of the protocol: an export's name, a description, the text of an error. UTF-8 without NUL, of at most
 * NBD_STRING_BYTES_MAX bytes. Bytes that are not such a string come out as `undefined`, because a peer sent them.
 */

import { NBD_STRING_BYTES_MAX } from './constants.ts'

const encoder = new TextEncoder()
// A leading U+FEFF is part of a name like any other character.
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

export function decodeProtocolString(bytes: Uint8Array): string | undefined {
  if (bytes.length > NBD_STRING_BYTES_MAX || bytes.includes(0)) return undefined
  try {
    return decoder.decode(bytes)
  } catch {
    return undefined
  }
}

export function encodeProtocolString(text: string): Uint8Array {
  return encoder.encode(text)
}

/** For whoever takes in names and descriptions: true when a client can be sent this one. */
export function isProtocolString(text: string): boolean {
  // A lone surrogate does not survive the encoding.
  return decodeProtocolString(encoder.encode(text)) === text
}
