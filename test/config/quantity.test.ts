import { describe, expect, test } from 'vitest'
import fc from 'fast-check'
import { formatDurationMs, formatSizeBytes, parseDurationMs, parseSizeBytes } from '../../src/config/quantity.ts'
import { BufferArena } from '../../src/data/buffer-arena.ts'
import { layOutMemory } from '../../src/plane-link/memory-layout.ts'
import { DEFAULT_OPERATOR_LIMITS, limitProblems, LIMITS } from '../../src/config/limits.ts'

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
  test('whatever passes the check leaves room for the largest request, and can be laid out', () => {
    const limits = fc.record({
      connectionsMax: fc.integer({ min: -1, max: 6000 }),
      handshakeTimeoutMs: fc.constant(10_000),
      requestsPerConnectionMax: fc.integer({ min: 0, max: 9000 }),
      arenaBytes: fc.oneof(
        fc.integer({ min: 0, max: LIMITS.arenaBytesMax * 2 }),
        fc.integer({ min: 20, max: 31 }).map((exponent) => 2 ** exponent),
      ),
      closeTimeoutMs: fc.constant(80_000),
      holdAlarmMs: fc.constant(10_000),
    })
    fc.assert(
      fc.property(limits, (candidate) => {
        if (limitProblems(candidate).length > 0) return
        const layout = layOutMemory({ ...candidate, inboxBytes: LIMITS.inboxBytes })
        const arena = new BufferArena(layout.buffersAt, layout.buffersBytes)
        expect(arena.allocate(LIMITS.payloadBytesMax + 2 * LIMITS.blockBytesMax)).toBeGreaterThanOrEqual(0)
        expect(candidate.connectionsMax).toBeGreaterThan(0)
      }),
    )
  })
  test('the least arena is accepted, and neither half of it nor what is no power of two', () => {
    const withArena = (arenaBytes: number) => limitProblems({ ...DEFAULT_OPERATOR_LIMITS, arenaBytes })
    expect(withArena(LIMITS.arenaBytesMin)).toEqual([])
    expect(withArena(LIMITS.arenaBytesMin / 2)[0]?.key).toBe('arena_bytes')
    expect(withArena(LIMITS.arenaBytesMin + 4096)[0]?.problem).toMatch(/power of two/)
  })
})
