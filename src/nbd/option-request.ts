/**
 * The data of NBD_OPT_INFO and NBD_OPT_GO, parsed: which export, and what the client wants to know about it. Bytes are
 * judged here once; what comes out is well formed.
 */

import { ByteReader } from '../foundation/byte-reader.ts'
import { NBD_INFO_BLOCK_SIZE, NBD_INFO_DESCRIPTION, NBD_INFO_NAME } from './constants.ts'
import { decodeProtocolString } from './protocol-string.ts'

export interface InfoRequest {
  /** Empty for the default export. */
  readonly name: string
  readonly wantsName: boolean
  readonly wantsDescription: boolean
  readonly wantsBlockSize: boolean
}

/**
 * 32 bits length of the name, the name, 16 bits number of requests, 16 bits each. Exactly that: bytes left over make it
 * malformed too. Requests that are unknown or come twice are ignored.
 */
export function parseInfoRequest(data: Uint8Array): InfoRequest | { readonly malformed: string } {
  const reader = new ByteReader(data)
  const nameBytes = reader.uint32()
  if (nameBytes === undefined) return { malformed: 'the data is too short for the length of a name' }
  const name = reader.bytes(nameBytes)
  if (name === undefined) return { malformed: 'the name is longer than the data' }
  const text = decodeProtocolString(name)
  if (text === undefined) return { malformed: 'the name is not a string of the protocol' }
  const requestCount = reader.uint16()
  if (requestCount === undefined) return { malformed: 'the data is too short for the number of requests' }
  if (reader.remainingBytes !== requestCount * 2) {
    return { malformed: `${reader.remainingBytes} bytes follow where ${requestCount} information requests belong` }
  }
  const wanted = new Set<number>()
  for (let request = reader.uint16(); request !== undefined; request = reader.uint16()) wanted.add(request)
  return {
    name: text,
    wantsName: wanted.has(NBD_INFO_NAME),
    wantsDescription: wanted.has(NBD_INFO_DESCRIPTION),
    wantsBlockSize: wanted.has(NBD_INFO_BLOCK_SIZE),
  }
}
