/**
 * A daemon with 256 exports is emptied while a guest writes on each of them, and a second host goes on with every guest:
 * it takes no longer than twice what the slowest disk takes, nothing that was answered is lost, and nothing lands
 * afterwards.
 *
 * @module-tag slow
 */

import { expect, test } from 'vitest'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { runEvacuation } from './evacuation-run.ts'
import { beganTogether } from './fleet-rig.ts'

const EXPORTS = 256
const SLOW_DISKS = 4
/** One after the other, four disks would take twice what is allowed; at once there is time for a machine that is busy. */
const WRITE_DELAY_MS = 20_000
/** Of a machine that does other things; a quiet one needs a fifth. */
const LONG = { timeout: 450_000 }

test(
  '256 exports with 1,012 connections under load: closed in the time of the slowest disk, and no answer is lost',
  LONG,
  async () => {
    const run = await runEvacuation(scratchOfTest(), {
      exports: EXPORTS,
      readersPerExport: 3,
      slowDisks: SLOW_DISKS,
      writeDelayMs: WRITE_DELAY_MS,
    })
    expect(run.outcome).toMatchObject({ status: 0 })
    expect(run.report).toMatchObject({ complete: true, quiet: true })
    expect(run.report.exports.filter(({ outcome }) => outcome === 'closed')).toHaveLength(EXPORTS)
    expect(beganTogether(run.report)).toBe(true)
    expect(run.connections).toBe(EXPORTS * 4 - SLOW_DISKS * 3)
    expect(run.durationMs).toBeLessThan(2 * WRITE_DELAY_MS)
    expect(run.inDiskAfterwards).toBe(0)
    expect(run.changedAfterwards).toEqual([])
    expect(run.badAtDestination).toEqual([])
    expect(run.badInTheEnd).toEqual([])
  },
)
