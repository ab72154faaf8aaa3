/**
 * Evacuates a fleet under verified load and draws how it went. It writes nothing where a block was lost.
 *
 * Usage: npm run build && npx tsx test/fleet/draw-evacuation.ts docs/evacuation.svg
 */

import { writeFileSync } from 'node:fs'
import { Scratch } from '../support/scratch.ts'
import { drawEvacuation } from './evacuation-chart.ts'
import { runEvacuation } from './evacuation-run.ts'

const WRITE_DELAY_MS = 20_000

const [, , path = 'evacuation.svg'] = process.argv
const scratch = new Scratch()
try {
  const run = await runEvacuation(scratch, {
    exports: 256,
    readersPerExport: 3,
    slowDisks: 4,
    writeDelayMs: WRITE_DELAY_MS,
  })
  const faults = [...run.changedAfterwards, ...run.badAtDestination, ...run.badInTheEnd]
  if (faults.length > 0) throw new Error(faults.join('\n'))
  writeFileSync(path, drawEvacuation({ run, writeDelayMs: WRITE_DELAY_MS, isSlow: (name) => name.startsWith('slow-') }))
  const { connections, durationMs, report, answersBefore, answersAfter } = run
  console.log(JSON.stringify({ connections, durationMs, elapsedMs: report.elapsedMs, answersBefore, answersAfter }))
} finally {
  await scratch.dispose()
}
