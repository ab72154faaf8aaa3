/**
 * What a request costs the heap. The engine of the measurement allocates nothing, so all that is measured is the way
 * from the bytes received, through admission, ledger and executor, to the answer.
 */

import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { beforeAll, describe, expect, test } from 'vitest'

interface Measured {
  readonly bytesPerRequest: Readonly<Record<string, number>>
  readonly grownBytes: number
  readonly requests: number
}

/** Less than the smallest object or array has. A boxed number here and there, and what each turn takes, are below it. */
const BYTES_PER_REQUEST_MAX = 32
const GROWTH_BYTES_MAX = 1024 * 1024

describe('the way of a request', () => {
  let measured: Measured

  beforeAll(async () => {
    const child = fileURLToPath(new URL('./allocation-child.ts', import.meta.url))
    const flags = ['--expose-gc', '--max-semi-space-size=256', '--min-semi-space-size=256', '--import', 'tsx']
    const { stdout } = await promisify(execFile)(process.execPath, [...flags, child], { timeout: 110_000 })
    measured = JSON.parse(stdout) as Measured
  }, 120_000)

  test('allocates no object, array or closure for any kind of request', () => {
    for (const [kind, bytes] of Object.entries(measured.bytesPerRequest)) {
      expect(bytes, `${kind} answers everything and allocates ${bytes} bytes`).toBeGreaterThanOrEqual(0)
      expect(bytes, `${kind} allocates ${bytes} bytes`).toBeLessThan(BYTES_PER_REQUEST_MAX)
    }
  })

  test('leaves nothing on the heap', () => {
    expect(measured.requests).toBeGreaterThanOrEqual(200_000)
    expect(measured.grownBytes).toBeLessThan(GROWTH_BYTES_MAX)
  })
})
