import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { checkRequest, payloadExceeds } from '../../src/nbd/request-check.ts'
import type { RequestLimits } from '../../src/nbd/request-check.ts'
import { OFFSET_UNREPRESENTABLE } from '../../src/nbd/request-header.ts'
import type { RequestHeader } from '../../src/nbd/request-header.ts'
import { requestLimits, servedAbilities, transmissionFlags } from '../../src/nbd/transmission-flags.ts'
import type { ExportAbilities } from '../../src/nbd/transmission-flags.ts'

const [READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS] = [0, 1, 2, 3, 4, 5, 6, 7]
const [FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO] = [1, 2, 4, 8, 16]
const [EPERM, EINVAL, ENOSPC] = [1, 22, 28]
const PAYLOAD = 32 * 1024 * 1024
const SIZE = 64 * 1024 * 1024

const WRITABLE: RequestLimits = requestLimits(servedAbilities(false, false), SIZE, PAYLOAD)
const READ_ONLY: RequestLimits = requestLimits(servedAbilities(true, false), SIZE, PAYLOAD)

function check(limits: RequestLimits, command: number, offset: number, length: number, flags = 0): number {
  return checkRequest({ flags, command, offset, length }, limits)
}

describe('request check', () => {
  it('lets through what lies within the export, to its last byte', () => {
    for (const command of [READ, WRITE, TRIM, CACHE, WRITE_ZEROES]) {
      expect(check(WRITABLE, command, 0, 1)).toBe(0)
      expect(check(WRITABLE, command, SIZE - 1, 1)).toBe(0)
      expect(check(WRITABLE, command, SIZE - PAYLOAD, PAYLOAD)).toBe(0)
      expect(check(WRITABLE, command, 3, 5)).toBe(0)
    }
    expect(check(WRITABLE, TRIM, 0, SIZE)).toBe(0)
    expect(check(WRITABLE, WRITE_ZEROES, 0, SIZE)).toBe(0)
  })

  it.each([
    ['READ', READ, EINVAL],
    ['WRITE', WRITE, ENOSPC],
    ['TRIM', TRIM, EINVAL],
    ['CACHE', CACHE, EINVAL],
    ['WRITE_ZEROES', WRITE_ZEROES, ENOSPC],
  ])('refuses %s beyond the end', (_name, command, error) => {
    expect(check(WRITABLE, command, SIZE, 1)).toBe(error)
    expect(check(WRITABLE, command, SIZE - 1, 2)).toBe(error)
    expect(check(WRITABLE, command, Number.MAX_SAFE_INTEGER, 0xffff)).toBe(error)
    expect(check(WRITABLE, command, OFFSET_UNREPRESENTABLE, 1)).toBe(error)
  })

  it('keeps its footing where sums of bytes are no longer exact', () => {
    const huge: RequestLimits = { ...WRITABLE, sizeBytes: Number.MAX_SAFE_INTEGER }
    expect(check(huge, WRITE, Number.MAX_SAFE_INTEGER - 1, 1)).toBe(0)
    expect(check(huge, WRITE, Number.MAX_SAFE_INTEGER, 1)).toBe(ENOSPC)
    expect(check(huge, TRIM, Number.MAX_SAFE_INTEGER - 0xffffffff, 0xffffffff)).toBe(0)
    expect(check(huge, TRIM, Number.MAX_SAFE_INTEGER - 0xfffffffe, 0xffffffff)).toBe(EINVAL)
    expect(check({ ...WRITABLE, sizeBytes: 0 }, READ, 0, 1)).toBe(EINVAL)
  })

  it('refuses an empty range, so that nothing after it needs to think of one', () => {
    for (const command of [READ, WRITE, TRIM, CACHE, WRITE_ZEROES]) expect(check(WRITABLE, command, 0, 0)).toBe(EINVAL)
  })

  it('refuses what writes on a read-only export, and nothing else', () => {
    for (const command of [WRITE, TRIM, WRITE_ZEROES]) expect(check(READ_ONLY, command, 0, 512)).toBe(EPERM)
    for (const command of [READ, CACHE]) expect(check(READ_ONLY, command, 0, 512)).toBe(0)
    expect(check(READ_ONLY, FLUSH, 0, 0)).toBe(0)
  })

  it('takes FUA with every command', () => {
    for (const command of [READ, WRITE, TRIM, CACHE, WRITE_ZEROES])
      expect(check(WRITABLE, command, 0, 512, FUA)).toBe(0)
    expect(check(WRITABLE, FLUSH, 0, 0, FUA)).toBe(0)
  })

  it('takes NO_HOLE and FAST_ZERO with WRITE_ZEROES only', () => {
    expect(check(WRITABLE, WRITE_ZEROES, 0, 512, NO_HOLE | FAST_ZERO | FUA)).toBe(0)
    expect(check({ ...WRITABLE, canFastZero: false }, WRITE_ZEROES, 0, 512, FAST_ZERO)).toBe(EINVAL)
    expect(check({ ...WRITABLE, canFastZero: false }, WRITE_ZEROES, 0, 512, NO_HOLE)).toBe(0)
    for (const command of [READ, WRITE, TRIM, CACHE]) {
      expect(check(WRITABLE, command, 0, 512, NO_HOLE)).toBe(EINVAL)
      expect(check(WRITABLE, command, 0, 512, FAST_ZERO)).toBe(EINVAL)
    }
  })

  it('refuses every flag that it does not know, with every command that has an answer', () => {
    for (const flag of [DF, REQ_ONE, 0x20, 0x40, 0x8000]) {
      for (const command of [READ, WRITE, FLUSH, TRIM, CACHE, WRITE_ZEROES]) {
        expect(check(WRITABLE, command, 0, command === FLUSH ? 0 : 512, flag)).toBe(EINVAL)
      }
    }
  })

  it('refuses commands that are unknown, or that were not offered', () => {
    for (const command of [BLOCK_STATUS, 8, 9, 0xffff]) expect(check(WRITABLE, command, 0, 512)).toBe(EINVAL)
    expect(check({ ...WRITABLE, canTrim: false }, TRIM, 0, 512)).toBe(EINVAL)
    expect(check({ ...WRITABLE, canZero: false }, WRITE_ZEROES, 0, 512)).toBe(EINVAL)
    expect(check({ ...WRITABLE, canCache: false }, CACHE, 0, 512)).toBe(EINVAL)
  })

  it('refuses a FLUSH of a range, and never a DISC, which has no answer', () => {
    expect(check(WRITABLE, FLUSH, 0, 0)).toBe(0)
    expect(check(WRITABLE, FLUSH, 0, 1)).toBe(EINVAL)
    expect(check(WRITABLE, FLUSH, 1, 0)).toBe(EINVAL)
    expect(check(WRITABLE, DISC, 5, 5, 0xffff)).toBe(0)
  })

  it('bounds payloads in both directions; only that of a WRITE can break the framing', () => {
    const big = { ...WRITABLE, sizeBytes: 2 ** 40 }
    expect(check(big, READ, 0, PAYLOAD)).toBe(0)
    expect(check(big, READ, 0, PAYLOAD + 1)).toBe(EINVAL)
    expect(check(big, WRITE, 0, PAYLOAD + 1)).toBe(EINVAL)
    expect(check(big, TRIM, 0, 0xffffffff)).toBe(0)
    expect(check(big, CACHE, 0, 0xffffffff)).toBe(0)
    const exceeds = (command: number, length: number): boolean =>
      payloadExceeds({ flags: 0, command, offset: 0, length }, PAYLOAD)
    expect(exceeds(WRITE, PAYLOAD)).toBe(false)
    expect(exceeds(WRITE, PAYLOAD + 1)).toBe(true)
    expect(exceeds(READ, 0xffffffff)).toBe(false)
    expect(exceeds(99, 0xffffffff)).toBe(false)
  })

  it('lets nothing through that exact arithmetic would not', () => {
    const near = (value: number): fc.Arbitrary<number> =>
      fc.integer({ min: Math.max(-1, value - 3), max: Math.min(Number.MAX_SAFE_INTEGER, value + 3) })
    const sizes = fc.oneof(fc.maxSafeNat(), near(Number.MAX_SAFE_INTEGER), fc.nat(8192))
    const lengths = fc.oneof(fc.integer({ min: 0, max: 0xffffffff }), fc.nat(8192))
    fc.assert(
      fc.property(
        sizes.chain((size) =>
          fc.tuple(fc.constant(size), fc.oneof(near(size), fc.maxSafeNat(), fc.constant(-1)), lengths),
        ),
        fc.constantFrom(READ, WRITE, TRIM, CACHE, WRITE_ZEROES),
        ([size, offset, length], command) => {
          const limits = { ...WRITABLE, sizeBytes: size, payloadBytesMax: 0xffffffff }
          const header: RequestHeader = { flags: 0, command, offset, length }
          const fits = length > 0 && offset >= 0 && BigInt(offset) + BigInt(length) <= BigInt(size)
          expect(checkRequest(header, limits) === 0).toBe(fits)
        },
      ),
    )
  })
})

describe('transmission flags', () => {
  const abilities: fc.Arbitrary<ExportAbilities> = fc.record({
    readOnly: fc.boolean(),
    shared: fc.boolean(),
    canTrim: fc.boolean(),
    canZero: fc.boolean(),
    canFastZero: fc.boolean(),
    canCache: fc.boolean(),
    rotational: fc.boolean(),
  })

  it('offers exactly what the check accepts', () => {
    fc.assert(
      fc.property(abilities, (able) => {
        const flags = transmissionFlags(able)
        const limits = requestLimits(able, SIZE, PAYLOAD)
        expect(flags & 1).toBe(1)
        expect((flags & 2) !== 0).toBe(check(limits, WRITE, 0, 512) === EPERM)
        expect((flags & 4) !== 0).toBe(check(limits, FLUSH, 0, 0) === 0)
        expect((flags & 8) !== 0).toBe(check(limits, READ, 0, 512, FUA) === 0)
        expect((flags & 0x10) !== 0).toBe(able.rotational)
        expect((flags & 0x20) !== 0).toBe(check(limits, TRIM, 0, 512) === 0)
        expect((flags & 0x40) !== 0).toBe(check(limits, WRITE_ZEROES, 0, 512, NO_HOLE) === 0)
        expect((flags & 0x100) !== 0).toBe(able.shared || able.readOnly)
        expect((flags & 0x400) !== 0).toBe(check(limits, CACHE, 0, 512) === 0)
        expect((flags & 0x800) !== 0).toBe(check(limits, WRITE_ZEROES, 0, 512, FAST_ZERO) === 0)
        expect(flags & ~0xd7f).toBe(0)
      }),
    )
  })

  it('gives an exclusive, a shared and a read-only export these', () => {
    expect(transmissionFlags(servedAbilities(false, false))).toBe(0xc6d)
    expect(transmissionFlags(servedAbilities(false, true))).toBe(0xd6d)
    expect(transmissionFlags(servedAbilities(true, false))).toBe(0x50f)
  })
})
