import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { AssertionFailure } from '../../src/foundation/assert.ts'
import { PAGE_BYTES, REPLY_HEADER_BYTES, ZERO_FILL_BYTES, layOutMemory } from '../../src/plane-link/memory-layout.ts'

describe("a worker's memory", () => {
  test('is divided without overlap, each piece on a page', () => {
    const needs = fc.record({
      arenaBytes: fc.integer({ min: 0, max: 17 }).map((order) => PAGE_BYTES << order),
      connectionsMax: fc.integer({ min: 1, max: 2048 }),
      inboxBytes: fc.integer({ min: 1, max: 16 }).map((pages) => pages * PAGE_BYTES),
      requestsPerConnectionMax: fc.integer({ min: 1, max: 1024 }),
    })
    fc.assert(
      fc.property(needs, (given) => {
        const layout = layOutMemory(given)
        const pieces: (readonly [number, number])[] = [
          [layout.buffersAt, layout.buffersBytes],
          [layout.zeroesAt, ZERO_FILL_BYTES],
          [layout.inboxesAt, given.connectionsMax * layout.inboxBytes],
          [layout.headersAt, given.connectionsMax * layout.headersBytes],
        ]
        let end = 0
        for (const [at, length] of pieces) {
          expect(at).toBe(end)
          expect(at % PAGE_BYTES).toBe(0)
          end = at + length
        }
        expect(layout.totalBytes).toBe(end)
        expect(layout.inboxBytes).toBe(given.inboxBytes)
        expect(layout.headersBytes).toBeGreaterThanOrEqual(given.requestsPerConnectionMax * REPLY_HEADER_BYTES)
      }),
    )
  })

  test('keeps to what an Int32 can name, and to whole pages', () => {
    const small = { arenaBytes: PAGE_BYTES, connectionsMax: 1, inboxBytes: PAGE_BYTES, requestsPerConnectionMax: 1 }
    expect(() => layOutMemory({ ...small, arenaBytes: 2 ** 31 })).toThrow(AssertionFailure)
    expect(() => layOutMemory({ ...small, connectionsMax: 2 ** 20 })).toThrow(AssertionFailure)
    expect(() => layOutMemory({ ...small, inboxBytes: 1000 })).toThrow(AssertionFailure)
  })
})
