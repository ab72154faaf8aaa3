/**
 * Images and records fail apart: a record whose file system does not answer delays no write and no other export, and an
 * image that does not answer delays no record. The file system of the record is one that is frozen, the image's disk one
 * that is stopped.
 */

import { mkdirSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { ExportStatus } from '../../src/exports/verbs.ts'
import { eventually } from '../support/eventually.ts'
import { runChecked, runProgram } from '../support/foreign-program.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { connectFrontend } from '../support/nbd-frontend.ts'
import type { Scratch } from '../support/scratch.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { startWitnessDisk } from '../support/witness-disk.ts'
import { BLOCK, newestOf, startHost } from './ownership-rig.ts'

interface Freezable {
  readonly path: string
  freeze(frozen: boolean): Promise<void>
}

/** A file system of its own, on which everything that writes waits while it is frozen. */
async function mountFreezable(scratch: Scratch): Promise<Freezable> {
  const folder = scratch.directory('frozen')
  const path = join(folder, 'mount')
  const back = makeImage(scratch, 16 * MEBIBYTE)
  mkdirSync(path)
  await runChecked('mkfs.ext4', ['-q', back])
  await runChecked('mount', ['-o', 'loop', back, path])
  scratch.defer(`mount ${path}`, async () => {
    await runProgram('umount', ['--lazy', path])
  })
  return {
    path,
    freeze: async (frozen) => {
      await runChecked('fsfreeze', [frozen ? '--freeze' : '--unfreeze', path])
    },
  }
}

/** What is frozen keeps even SIGKILL waiting: it must be over before anything is ended. */
function thawAtTheEnd(scratch: Scratch, { path }: Freezable): void {
  scratch.defer(`freeze of ${path}`, async () => {
    await runProgram('fsfreeze', ['--unfreeze', path])
  })
}

test('a record that cannot be written delays no write, and no other export', async () => {
  const scratch = scratchOfTest()
  const records = await mountFreezable(scratch)
  const [path, other] = [makeImage(scratch, MEBIBYTE), makeImage(scratch, MEBIBYTE)]
  symlinkSync(records.path, `${path}.interlock`)
  const exports = [
    { name: 'vda', path },
    { name: 'vdb', path: other },
  ]
  const daemon = await startHost(scratch, path, { exports })
  thawAtTheEnd(scratch, records)
  const frontend = await connectFrontend(scratch, daemon.address, 'vda')
  await records.freeze(true)
  await daemon.api('POST', '/exports/vdb/close', {})
  expect((await frontend.request('WRITE', { offset: 0, data: BLOCK })).error).toBe(0)
  const closing = await daemon.api('POST', '/exports/vda/close', { timeoutMs: 500 })
  expect(closing).toMatchObject({ status: 504, body: { code: 'still-draining' } })
  expect(newestOf(path)).toMatchObject({ state: 'open' })
  const besides = await connectFrontend(scratch, daemon.address, 'vdb').catch(() => null)
  expect(besides, 'a closed export takes no client').toBeNull()
  expect(await daemon.open('vdb')).toMatchObject({ state: 'open', generation: 2 })
  const neighbour = await connectFrontend(scratch, daemon.address, 'vdb')
  expect((await neighbour.request('WRITE', { offset: 0, data: BLOCK })).error).toBe(0)
  expect((await daemon.close('vdb')).receipt).toMatchObject({ generation: 2 })
  expect(await daemon.status('vda')).toMatchObject({ state: 'closing', outstanding: { admitted: 0, submitted: 0 } })
  await records.freeze(false)
  const { receipt } = await daemon.close('vda')
  expect(newestOf(path)).toMatchObject({ state: 'closed', receipt: { nonce: receipt.nonce } })
})

test('an image that does not answer delays no record: not its own, and no other', async () => {
  const scratch = scratchOfTest()
  const disk = await startWitnessDisk(scratch, { sizeBytes: MEBIBYTE })
  const directory = scratch.directory('records')
  const exports = [
    { name: 'vda', path: disk.path },
    { name: 'vdb', path: makeImage(scratch, MEBIBYTE) },
  ]
  const ownershipSettings = [`directory = ${JSON.stringify(directory)}`]
  const daemon = await startHost(scratch, directory, { exports, ownershipSettings })
  const frontend = await connectFrontend(scratch, daemon.address, 'vda')
  scratch.defer('the stopped disk', () => {
    disk.freeze(false)
  })
  disk.freeze(true)
  const write = frontend.send('WRITE', { offset: 0, data: BLOCK })
  await daemon.untilInFlight('vda', 1)
  const early = await daemon.api('POST', '/exports/vda/close', { early: true })
  expect(early).toMatchObject({ status: 202, body: { state: 'closing' } })
  const recorded = await runChecked('grep', ['-l', '"state": "closing"', '-r', join(directory, 'vda')])
  expect(recorded.stdout.trim()).toMatch(/0000000000000003\.json$/)
  await daemon.close('vdb')
  expect(await daemon.open('vdb')).toMatchObject({ state: 'open', generation: 2 })
  disk.freeze(false)
  expect((await write.reply).error).toBe(0)
  await eventually('the source to be closed', async () => (await statusOf(daemon)).state === 'closed')
})

function statusOf(daemon: { status(name: string): Promise<ExportStatus> }): Promise<ExportStatus> {
  return daemon.status('vda')
}
