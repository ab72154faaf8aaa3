/**
 * What a client sends in the handshake, and how it understands the answers: written with Buffer and plain numbers from
 * the specification, so that it shares no code and no constant with the server under test.
 */

export const FIXED_NEWSTYLE = 1
export const NO_ZEROES = 2

export const EXPORT_NAME = 1
export const ABORT = 2
export const LIST = 3
export const STARTTLS = 5
export const INFO = 6
export const GO = 7
export const STRUCTURED_REPLY = 8
export const LIST_META_CONTEXT = 9
export const SET_META_CONTEXT = 10
export const EXTENDED_HEADERS = 11

export const ACK = 1
export const SERVER = 2
export const INFORMATION = 3
export const ERR_UNSUP = 2 ** 31 + 1
export const ERR_INVALID = 2 ** 31 + 3
export const ERR_UNKNOWN = 2 ** 31 + 6
export const ERR_SHUTDOWN = 2 ** 31 + 7
export const ERR_TOO_BIG = 2 ** 31 + 9

export const GREETING = Buffer.from('4e42444d414749434948415645 4f5054 0003'.replaceAll(' ', ''), 'hex')

export function clientFlags(flags: number): Buffer {
  return uint32(flags >>> 0)
}

export function option(code: number, data: Uint8Array = Buffer.alloc(0), lengthBytes = data.length): Buffer {
  return Buffer.concat([Buffer.from('IHAVEOPT'), uint32(code), uint32(lengthBytes), data])
}

export function infoData(name: string | Uint8Array, requests: readonly number[] = []): Buffer {
  const nameBytes = Buffer.from(name)
  return Buffer.concat([uint32(nameBytes.length), nameBytes, uint16(requests.length), ...requests.map(uint16)])
}

export interface OptionReply {
  readonly option: number
  readonly type: number
  readonly data: Buffer
}

/** Splits a stream of option replies; throws when it is not exactly that. */
export function parseReplies(bytes: Uint8Array): OptionReply[] {
  const buffer = Buffer.from(bytes)
  const replies: OptionReply[] = []
  for (let at = 0; at < buffer.length;) {
    if (buffer.readBigUInt64BE(at) !== 0x3e889045565a9n) throw new Error(`no reply magic at byte ${at}`)
    const lengthBytes = buffer.readUInt32BE(at + 16)
    const end = at + 20 + lengthBytes
    if (end > buffer.length) throw new Error(`the reply at byte ${at} is cut off`)
    replies.push({
      option: buffer.readUInt32BE(at + 8),
      type: buffer.readUInt32BE(at + 12),
      data: buffer.subarray(at + 20, end),
    })
    at = end
  }
  return replies
}

export function uint16(value: number): Buffer {
  const buffer = Buffer.alloc(2)
  buffer.writeUInt16BE(value)
  return buffer
}

export function uint32(value: number): Buffer {
  const buffer = Buffer.alloc(4)
  buffer.writeUInt32BE(value)
  return buffer
}

export function uint64(value: number): Buffer {
  const buffer = Buffer.alloc(8)
  buffer.writeBigUInt64BE(BigInt(value))
  return buffer
}
