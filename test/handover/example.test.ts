/**
 * The example of a migration by hand does what it says, between two real daemons, and takes back what is refused.
 *
 * @module-tag slow
 */

import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { Daemon } from '../support/daemon.ts'
import { runProgram } from '../support/foreign-program.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { startPairOverLink, urlOf } from './handover-rig.ts'

const PROJECT = join(import.meta.dirname, '../..')

function migrateByHand(source: Daemon, destination: Daemon) {
  const program = ['--import', 'tsx', 'examples/migrate-by-hand.ts', 'vda', urlOf(source), urlOf(destination)]
  return runProgram(process.execPath, program, { directory: PROJECT })
}

test('the example migrates, and takes back what the destination refuses', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const { source, destination, cutLink } = await startPairOverLink(scratch, path)
  const done = await migrateByHand(source, destination)
  expect(done.stderr).toBe('')
  expect(done.stdout).toContain('source: open -> closing')
  expect(done.stdout).toContain('generation 2 is open at the destination')
  expect((await destination.status('vda')).state).toBe('open')
  expect((await migrateByHand(destination, source)).status).toBe(0)
  await destination.ask('POST', '/exports/vda/standby')
  cutLink()
  const refused = await migrateByHand(source, destination)
  expect(refused.status).toBe(1)
  expect(refused.stderr).toContain('image-missing')
  expect(refused.stderr).toContain('the source has it open')
  expect((await source.status('vda')).state).toBe('open')
})
