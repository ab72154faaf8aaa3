/**
 * One evacuation under verified load, from the first write to the last comparison: what the test judges, and what the
 * chart in docs/ draws. Times are this process's own, of the asking; the delay of the slow disks is known.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import type { EvacuationReport } from '../../src/client/index.ts'
import type { Outcome } from '../support/foreign-program.ts'
import type { Scratch } from '../support/scratch.ts'
import { changedSince, contentOf, evacuate, exportsOf, Guests, openAll, startFleet } from './fleet-rig.ts'

export interface EvacuationRunOptions {
  readonly exports: number
  /** Beside that of the guest; they read once and stay. */
  readonly readersPerExport: number
  /** Exports on disks each of whose writes takes that long. */
  readonly slowDisks: number
  readonly writeDelayMs: number
}

export interface EvacuationRun {
  readonly connections: number
  readonly outcome: Outcome
  readonly report: EvacuationReport
  /** From before interlockctl was started to its end. */
  readonly durationMs: number
  /** What the slow disks had in them when all was said to be closed. */
  readonly inDiskAfterwards: number
  /** Images that changed when all was said to be closed, and no second host was there yet. */
  readonly changedAfterwards: readonly string[]
  /** As the second host serves them, before a guest goes on there. */
  readonly badAtDestination: readonly string[]
  /** After the guests have gone on there. */
  readonly badInTheEnd: readonly string[]
  readonly answersBefore: number
  readonly answersAfter: number
}

/** Long enough for whatever was still under way to land. */
const LATE_WRITES_MS = 1_500

export async function runEvacuation(scratch: Scratch, options: EvacuationRunOptions): Promise<EvacuationRun> {
  const { exports: count, slowDisks: witnesses, writeDelayMs } = options
  const fleet = await startFleet(scratch, { count, witnesses, witness: { writeDelayMs } })
  const guests = new Guests(scratch, fleet)
  await guests.addReaders(fleet.source, options.readersPerExport)
  await guests.begin()
  const beganMs = performance.now()
  const { outcome, report } = await evacuate(fleet.source)
  const durationMs = performance.now() - beganMs
  const inDiskAfterwards = fleet.disks.flatMap(({ log }) => log.inDisk()).length
  const served = await exportsOf(fleet.source)
  const answersBefore = guests.answers
  const content = contentOf(fleet.volumes)
  await sleep(LATE_WRITES_MS)
  const changedAfterwards = changedSince(content, fleet.volumes)

  await openAll(fleet.destination, fleet.volumes)
  const badAtDestination = await guests.badBlocksServedBy(fleet.destination)
  await guests.moveTo(fleet.destination)
  await guests.progress(2)
  await guests.settle()
  return {
    connections: served.reduce((total, { clients }) => total + clients.length, 0),
    outcome,
    report,
    durationMs,
    inDiskAfterwards,
    changedAfterwards,
    badAtDestination,
    badInTheEnd: guests.badBlocks(),
    answersBefore,
    answersAfter: guests.answers - answersBefore,
  }
}
