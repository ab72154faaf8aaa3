/**
 * The receipt of a close, asked for again after the worst moments: the source dies between recording that it is closed
 * and answering, the record moves on, somebody else is faster, the image under the name is another one. It is the same
 * receipt, or none; never one of another generation or image.
 *
 * @module-tag slow
 */

import { copyFileSync, existsSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { OwnershipRecord } from '../../src/ownership/home.ts'
import type { Daemon, DaemonOptions } from '../support/daemon.ts'
import { eventually } from '../support/eventually.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import type { Scratch } from '../support/scratch.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { newestOf, openElsewhere, placeOf, recordsOf, refusal, startHost } from './ownership-rig.ts'

interface Fragile {
  readonly daemon: Daemon
  arm(fault: string): void
}

/** A host that dies or stops where it is told to, once it runs. */
async function startFragile(scratch: Scratch, path: string, options: Partial<DaemonOptions> = {}): Promise<Fragile> {
  const fault = join(scratch.directory('fault'), 'armed')
  const environment = { INTERLOCKD_FAULT_POINT: fault }
  const daemon = await startHost(scratch, path, { ...options, environment })
  return {
    daemon,
    arm: (text) => {
      writeFileSync(fault, text)
    },
  }
}

/** Asks for the verb, of which the daemon dies at the point that is armed. */
async function dieOf({ daemon }: Fragile, verb: string): Promise<void> {
  await Promise.all([daemon.api('POST', `/exports/vda/${verb}`, {}).catch(() => null), daemon.program.exited])
  expect((await daemon.program.exited).status).toBe(128 + 9)
}

function shelfOf({ stateDirectory }: Daemon): string {
  return join(stateDirectory, 'receipts', 'vda.json')
}

function startAgain(scratch: Scratch, path: string, { stateDirectory }: Daemon): Promise<Daemon> {
  return startHost(scratch, path, { stateDirectory, standby: true })
}

test('a source that dies as soon as it is recorded closed gives the receipt that was recorded, though others opened since', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const source = await startFragile(scratch, path)
  source.arm('close: closed recorded:kill')
  await dieOf(source, 'close')
  const recorded = newestOf(path)
  expect(recorded).toMatchObject({ state: 'closed', generation: 1, receipt: { generation: 1 } })
  const destination = await startHost(scratch, path, { standby: true })
  expect(await destination.open('vda')).toMatchObject({ generation: 2 })
  await destination.close('vda')
  expect((await (await startAgain(scratch, path, source.daemon)).close('vda')).receipt).toEqual(recorded.receipt)
})

test('a close that is not recorded because another holder has the record leaves no receipt', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const source = await startFragile(scratch, path)
  source.arm('close: receipt kept:sleep=3000')
  const closing = refusal(source.daemon, 'close')
  await eventually('the receipt on the shelf', () => existsSync(shelfOf(source.daemon)))
  await openElsewhere(path)
  expect(await closing).toMatchObject({ code: 'export-fenced' })
  await eventually('the receipt to go', () => !existsSync(shelfOf(source.daemon)))
  expect(recordsOf(path).every(({ state }: OwnershipRecord) => state !== 'closed')).toBe(true)
  await source.daemon.kill()
  const again = await startAgain(scratch, path, source.daemon)
  expect(await refusal(again, 'close')).toMatchObject({ code: 'wrong-state' })
})

test.each([
  ['admitting', 'opening'],
  ['open recorded', 'open'],
])('no receipt of an earlier generation speaks for one that was opened and crashed: %s', async (fault, state) => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const source = await startFragile(scratch, path)
  await source.daemon.close('vda')
  source.arm(`open: ${fault}:kill`)
  await dieOf(source, 'open')
  expect(newestOf(path)).toMatchObject({ state, generation: 2 })
  await openElsewhere(path)
  const again = await startAgain(scratch, path, source.daemon)
  expect(await refusal(again, 'close')).toMatchObject({ code: 'wrong-state' })
})

test('the receipt of another image under the same name is not given', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const source = await startHost(scratch, path)
  const { receipt } = await source.close('vda')
  const destination = await startHost(scratch, path, { standby: true })
  await destination.open('vda')
  await destination.stop()
  await source.kill()
  const again = await startAgain(scratch, path, source)
  expect((await again.close('vda')).receipt).toEqual(receipt)
  await again.kill()
  // A new disk in the place of the old one, which has been elsewhere for longer.
  copyFileSync(path, `${path}.new`)
  renameSync(`${path}.new`, path)
  placeOf(path).forget('vda')
  const other = await startHost(scratch, path)
  await other.close('vda')
  await other.open('vda')
  expect(newestOf(path)).toMatchObject({ state: 'open', generation: 2 })
  const stranger = await startAgain(scratch, path, source)
  expect(await refusal(stranger, 'close')).toMatchObject({ code: 'wrong-state' })
})

test('a receipt that is newer than the record is not of this record', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const source = await startHost(scratch, path)
  await source.close('vda')
  await source.kill()
  // The same file begins another life, as an image that was made anew may get the inode of the old one.
  placeOf(path).forget('vda')
  const again = await startAgain(scratch, path, source)
  expect(await refusal(again, 'close')).toMatchObject({ code: 'wrong-state' })
  await startHost(scratch, path)
  expect(newestOf(path)).toMatchObject({ state: 'open', generation: 1 })
  expect(await refusal(again, 'close')).toMatchObject({ code: 'wrong-state' })
})

test('a close waits for a state directory that takes no receipt, and says so', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const source = await startHost(scratch, path)
  const folder = join(source.stateDirectory, 'receipts')
  renameSync(folder, `${folder}.away`)
  expect(await source.api('POST', '/exports/vda/close', { timeoutMs: 2_000 })).toMatchObject({ status: 504 })
  expect((await source.status('vda')).stateReason).toMatch(/the close waits for its record: cannot use .*receipts/)
  expect(newestOf(path)).toMatchObject({ state: 'closing', receipt: null })
  renameSync(`${folder}.away`, folder)
  const { receipt } = await source.close('vda')
  expect(newestOf(path)).toMatchObject({ state: 'closed', receipt })
  expect((await source.status('vda')).stateReason).toBeNull()
})
