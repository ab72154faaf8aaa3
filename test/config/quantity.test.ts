import { describe, expect, test } from 'vitest'
import fc from 'fast-check'
import { formatDurationMs, formatSizeBytes, parseDurationMs, parseSizeBytes } from '../../src/config/quantity.ts'
import { arenaBytesMin, DEFAULT_OPERATOR_LIMITS, limitProblems, LIMITS } from '../../src/config/limits.ts'

describe('durations', () => {
  test.each([
    ['500ms', 500],
    ['30s', 30_000],
    ['1.5s', 1500],
    ['2m', 120_000],
    ['1h', 3_600_000],
  ])('%s', (text, durationMs) => {
    expect(parseDurationMs(text)).toBe(durationMs)
  })
  test.each(['', '30', 's', '-1s', '1 s s', '1S', '1d', '1e3s', 'toString', `${'9'.repeat(20)}h`])(
    '%j is none',
    (text) => {
      expect(parseDurationMs(text)).toBeUndefined()
    },
  )
  test('what is shown is never empty and carries a unit', () => {
    fc.assert(fc.property(fc.nat(), (durationMs) => /^[\d.]+(ms|s|m\d+s|h\d+m)$/.test(formatDurationMs(durationMs))))
  })
})

describe('sizes', () => {
  test.each([
    ['0', 0],
    ['512', 512],
    ['64KiB', 65_536],
    ['64 MiB', 67_108_864],
    ['1.5GiB', 1_610_612_736],
    ['2TiB', 2_199_023_255_552],
  ])('%s', (text, sizeBytes) => {
    expect(parseSizeBytes(text)).toBe(sizeBytes)
  })
  test.each(['', 'MiB', '64MB', '64K', '-1', '9007199254740993'])('%j is none', (text) => {
    expect(parseSizeBytes(text)).toBeUndefined()
  })
  test('whole units are shown exactly', () => {
    expect(formatSizeBytes(0)).toBe('0 B')
    expect(formatSizeBytes(65_536)).toBe('64 KiB')
    expect(formatSizeBytes(1536)).toBe('1.5 KiB')
    expect(formatSizeBytes(4 * 1024 ** 4)).toBe('4 TiB')
  })
})

describe('limits', () => {
  test('whatever passes the check leaves room for every inbox and the largest request', () => {
    const limits = fc.record({
      connectionsMax: fc.integer({ min: -1, max: 6000 }),
      handshakeTimeoutMs: fc.constant(10_000),
      requestsPerConnectionMax: fc.integer({ min: 0, max: 9000 }),
      arenaBytes: fc.integer({ min: 0, max: LIMITS.arenaBytesMax * 2 }),
      closeTimeoutMs: fc.constant(80_000),
    })
    fc.assert(
      fc.property(limits, (candidate) => {
        const fits = candidate.arenaBytes >= candidate.connectionsMax * LIMITS.inboxBytes + LIMITS.payloadBytesMax
        if (limitProblems(candidate).length === 0) expect(fits && candidate.connectionsMax > 0).toBe(true)
      }),
    )
  })
  test('the least arena is accepted, and a byte less is not', () => {
    const least = { ...DEFAULT_OPERATOR_LIMITS, arenaBytes: arenaBytesMin(DEFAULT_OPERATOR_LIMITS.connectionsMax) }
    expect(limitProblems(least)).toEqual([])
    expect(limitProblems({ ...least, arenaBytes: least.arenaBytes - 1 })[0]?.key).toBe('arena_bytes')
  })
})
