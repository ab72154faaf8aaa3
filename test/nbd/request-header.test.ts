import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  COOKIE_OFFSET,
  OFFSET_UNREPRESENTABLE,
  REQUEST_HEADER_BYTES,
  createRequestHeader,
  payloadBytes,
  readRequestHeader,
} from '../../src/nbd/request-header.ts'
import { SIMPLE_REPLY_BYTES, writeSimpleReply } from '../../src/nbd/reply.ts'

function encode(fields: { flags: number; command: number; cookie: bigint; offset: bigint; length: number }): Buffer {
  const buffer = Buffer.alloc(28)
  buffer.writeUInt32BE(0x25609513, 0)
  buffer.writeUInt16BE(fields.flags, 4)
  buffer.writeUInt16BE(fields.command, 6)
  buffer.writeBigUInt64BE(fields.cookie, 8)
  buffer.writeBigUInt64BE(fields.offset, 16)
  buffer.writeUInt32BE(fields.length, 24)
  return buffer
}

const word = fc.integer({ min: 0, max: 0xffff })
const long = fc.integer({ min: 0, max: 0xffffffff })
const offsets = fc.oneof(
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  fc.bigInt({ min: 2n ** 53n - 4n, max: 2n ** 53n + 4n }),
  fc.bigInt({ min: 2n ** 32n - 4n, max: 2n ** 32n + 4n }),
)

describe('request header', () => {
  it('is read as it was written, wherever it lies in memory, and an offset is exact or said not to be', () => {
    fc.assert(
      fc.property(word, word, fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), offsets, long, fc.nat(40), (...drawn) => {
        const [flags, command, cookie, offset, length, at] = drawn
        const memory = Buffer.alloc(at + 28 + 5, 0xaa)
        encode({ flags, command, cookie, offset, length }).copy(memory, at)
        const header = createRequestHeader()
        const view = new DataView(memory.buffer, memory.byteOffset, memory.length)
        expect(readRequestHeader(view, at, header)).toBe(true)
        const exact = offset <= BigInt(Number.MAX_SAFE_INTEGER)
        expect(header).toEqual({
          flags,
          command,
          length,
          offset: exact ? Number(offset) : OFFSET_UNREPRESENTABLE,
        })
        expect(payloadBytes(header)).toBe(command === 1 ? length : 0)
        expect(memory.readBigUInt64BE(at + COOKIE_OFFSET)).toBe(cookie)
      }),
    )
  })

  it('says so when the magic is wrong, and leaves the object alone', () => {
    const bytes = encode({ flags: 1, command: 1, cookie: 1n, offset: 1n, length: 1 })
    for (let index = 0; index < 4; index++) {
      const damaged = Buffer.from(bytes)
      damaged[index] = 0x21
      const header = { flags: 7, command: 7, offset: 7, length: 7 }
      expect(readRequestHeader(new DataView(damaged.buffer, damaged.byteOffset), 0, header)).toBe(false)
      expect(header).toEqual({ flags: 7, command: 7, offset: 7, length: 7 })
    }
    expect(bytes.length).toBe(REQUEST_HEADER_BYTES)
  })
})

describe('simple reply', () => {
  it('carries the error and the very bytes of the cookie, and touches nothing beside itself', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 8, maxLength: 8 }),
        fc.nat(30),
        fc.nat(30),
        long,
        (cookie, at, from, error) => {
          const cookies = Buffer.alloc(64, 0x55)
          cookies.set(cookie, from)
          const memory = new Uint8Array(64).fill(0xaa)
          writeSimpleReply(new DataView(memory.buffer), memory, at, error, cookies, from)
          const expected = Buffer.alloc(64, 0xaa)
          expected.writeUInt32BE(0x67446698, at)
          expected.writeUInt32BE(error, at + 4)
          expected.set(cookie, at + 8)
          expect(Buffer.from(memory)).toEqual(expected)
        },
      ),
    )
    expect(SIMPLE_REPLY_BYTES).toBe(16)
  })
})
