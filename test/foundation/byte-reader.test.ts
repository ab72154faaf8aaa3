import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ByteReader } from '../../src/foundation/byte-reader.ts'
import { ByteWriter } from '../../src/foundation/byte-writer.ts'

type Item =
  | { readonly kind: 16; readonly value: number }
  | { readonly kind: 32; readonly value: number }
  | { readonly kind: 64; readonly value: bigint }
  | Uint8Array

const item: fc.Arbitrary<Item> = fc.oneof(
  fc.record({ kind: fc.constant(16 as const), value: fc.integer({ min: 0, max: 0xffff }) }),
  fc.record({ kind: fc.constant(32 as const), value: fc.integer({ min: 0, max: 0xffffffff }) }),
  fc.record({ kind: fc.constant(64 as const), value: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }) }),
  fc.uint8Array({ maxLength: 600 }),
)

function write(writer: ByteWriter, next: Item): void {
  if (next instanceof Uint8Array) writer.bytes(next)
  else if (next.kind === 16) writer.uint16(next.value)
  else if (next.kind === 32) writer.uint32(next.value)
  else writer.uint64(next.value)
}

function read(reader: ByteReader, like: Item): unknown {
  if (like instanceof Uint8Array) return reader.bytes(like.length)
  if (like.kind === 16) return reader.uint16()
  if (like.kind === 32) return reader.uint32()
  return reader.uint64()
}

describe('byte reader and byte writer', () => {
  it('agree with each other, from the smallest memory on and again after taking', () => {
    fc.assert(
      fc.property(fc.array(item, { maxLength: 30 }), fc.nat(20), (items, zeroes) => {
        const writer = new ByteWriter(1)
        for (let round = 0; round < 2; round++) {
          for (const next of items) write(writer, next)
          const lengthBytes = writer.zeroes(zeroes).lengthBytes
          const taken = writer.take()
          expect(taken.length).toBe(lengthBytes)
          expect(writer.lengthBytes).toBe(0)
          const reader = new ByteReader(taken)
          for (const next of items) expect(read(reader, next)).toEqual(next instanceof Uint8Array ? next : next.value)
          expect(reader.bytes(zeroes)).toEqual(new Uint8Array(zeroes))
          expect(reader.remainingBytes).toBe(0)
        }
      }),
    )
  })

  it('writes the most significant byte first', () => {
    const taken = new ByteWriter().uint16(0x0102).uint32(0x03040506).uint64(0x0708090a0b0c0d0en).take()
    expect([...taken]).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14])
  })

  it('reads nothing where there is not enough, and loses nothing by trying', () => {
    const reader = new ByteReader(Uint8Array.of(9, 1, 2, 3).subarray(1))
    expect(reader.uint32()).toBeUndefined()
    expect(reader.uint64()).toBeUndefined()
    expect(reader.bytes(4)).toBeUndefined()
    expect(reader.uint16()).toBe(0x0102)
    expect(reader.uint16()).toBeUndefined()
    expect(reader.bytes(1)).toEqual(Uint8Array.of(3))
    expect(reader.bytes(0)).toEqual(new Uint8Array(0))
  })
})
