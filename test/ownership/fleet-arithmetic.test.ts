/** The figures of a fleet in docs/operating.md are those of the records that this program writes. */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { fleetFigures, fleetTable, HOSTS, ONE_NODE } from './fleet-arithmetic.ts'

/** The largest request that etcd takes by default. */
const ETCD_REQUEST_BYTES_MAX = 1.5 * 1024 ** 2

test('docs/operating.md shows the table as it is (npx tsx scripts/fleet-arithmetic.ts writes it anew)', () => {
  expect(readFileSync(join(import.meta.dirname, '../../docs/operating.md'), 'utf8')).toContain(`\n${fleetTable()}\n`)
})

test('the largest early close still fits a request of etcd', () => {
  expect(fleetFigures().largestBytes).toBeLessThan(ETCD_REQUEST_BYTES_MAX)
})

test('what breaks first is one node for so many hosts: they keep it busy at rest, before anything moves', () => {
  const { restReads, restWatches, restHostsMax, restartSeconds } = fleetFigures()
  expect(restReads).toBe(2_000)
  expect(Math.round(restWatches)).toBe(3_333)
  expect(restHostsMax).toBeLessThan(HOSTS)
  expect(restartSeconds).toBeGreaterThan(180)
})

test('then the swaps of a rack that is emptied in 10 s, which a node has to itself', () => {
  const { rackWrites } = fleetFigures()
  expect(rackWrites / 10).toBeGreaterThan(ONE_NODE.swaps)
  expect(rackWrites / 60).toBeLessThan(ONE_NODE.swaps)
})

test('then the quota: one round over all racks between two compactions does not fit', () => {
  const { rackBytes, roundQuotaPercent, restBytes } = fleetFigures()
  expect(rackBytes / restBytes).toBeLessThan(0.05)
  expect(roundQuotaPercent).toBeGreaterThan(100)
})

test('at rest the fleet fits the default quota, and more than two of its copies do not', () => {
  const { quotaPercent } = fleetFigures()
  expect(quotaPercent).toBeLessThan(100)
  expect(quotaPercent).toBeGreaterThan(33)
})
