/**
 * Images and records fail apart: a record that nothing answers for delays no write and no other export, and an
 * image that does not answer delays no record. What the record is written to stands still, and the image's disk is one that
 * is stopped.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import type { ExportStatus } from '../../src/exports/verbs.ts'
import { eventually } from '../support/eventually.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { connectFrontend } from '../support/nbd-frontend.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { startWitnessDisk } from '../support/witness-disk.ts'
import { BLOCK, placeApart, stallingPlace, startHost } from './ownership-rig.ts'

test('a record that cannot be written delays no write, and no other export', async () => {
  const scratch = scratchOfTest()
  const { place, stall } = await stallingPlace(scratch)
  const path = makeImage(scratch, MEBIBYTE)
  const exports = [
    { name: 'vda', path },
    { name: 'vdb', path: makeImage(scratch, MEBIBYTE) },
  ]
  const { ownership, settings } = place
  const daemon = await startHost(scratch, path, { exports, ownership, ownershipSettings: settings })
  // What stands still keeps even SIGKILL waiting: it must be over before anything is ended.
  scratch.defer('the stalled record', () => stall(false).catch(() => undefined))
  const frontend = await connectFrontend(scratch, daemon.address, 'vda')
  await stall(true)
  await daemon.api('POST', '/exports/vdb/close', {})
  expect((await frontend.request('WRITE', { offset: 0, data: BLOCK })).error).toBe(0)
  const closing = await daemon.api('POST', '/exports/vda/close', { timeoutMs: 500 })
  expect(closing).toMatchObject({ status: 504, body: { code: 'still-draining' } })
  expect(place.newest('vda')).toMatchObject({ state: 'open' })
  const besides = await connectFrontend(scratch, daemon.address, 'vdb').catch(() => null)
  expect(besides, 'a closed export takes no client').toBeNull()
  expect(await daemon.open('vdb')).toMatchObject({ state: 'open', generation: 2 })
  const neighbour = await connectFrontend(scratch, daemon.address, 'vdb')
  expect((await neighbour.request('WRITE', { offset: 0, data: BLOCK })).error).toBe(0)
  expect((await daemon.close('vdb')).receipt).toMatchObject({ generation: 2 })
  expect(await daemon.status('vda')).toMatchObject({ state: 'closing', outstanding: { admitted: 0, submitted: 0 } })
  await stall(false)
  const { receipt } = await daemon.close('vda')
  expect(place.newest('vda')).toMatchObject({ state: 'closed', receipt: { nonce: receipt.nonce } })
})

test('a record that cannot be written delays no read of a standby that is opened', async () => {
  const scratch = scratchOfTest()
  const { place, stall } = await stallingPlace(scratch)
  const path = makeImage(scratch, MEBIBYTE)
  const { ownership, settings } = place
  const options = { ownership, ownershipSettings: settings, standby: true } as const
  const daemon = await startHost(scratch, path, options)
  await daemon.open('vda')
  await daemon.close('vda')
  await daemon.ask('POST', '/exports/vda/standby', {})
  scratch.defer('the stalled record', () => stall(false).catch(() => undefined))
  const frontend = await connectFrontend(scratch, daemon.address, 'vda')
  await stall(true)
  const opening = daemon.open('vda', { timeoutMs: 60_000 })
  await eventually('the opening', async () => (await daemon.status('vda')).state === 'opening')
  for (let count = 0; count < 10; count += 1) {
    expect((await frontend.request('READ', { offset: 0, length: BLOCK.length }, 5_000)).error).toBe(0)
    await sleep(100)
  }
  await stall(false)
  expect(await opening).toMatchObject({ state: 'open', generation: 2 })
})

test('an image that does not answer delays no record: not its own, and no other', async () => {
  const scratch = scratchOfTest()
  const disk = await startWitnessDisk(scratch, { sizeBytes: MEBIBYTE })
  const { ownership, settings, newest } = placeApart(scratch)
  const exports = [
    { name: 'vda', path: disk.path },
    { name: 'vdb', path: makeImage(scratch, MEBIBYTE) },
  ]
  const daemon = await startHost(scratch, disk.path, { exports, ownership, ownershipSettings: settings })
  const frontend = await connectFrontend(scratch, daemon.address, 'vda')
  scratch.defer('the stopped disk', () => {
    disk.freeze(false)
  })
  disk.freeze(true)
  const write = frontend.send('WRITE', { offset: 0, data: BLOCK })
  await daemon.untilInFlight('vda', 1)
  const early = await daemon.api('POST', '/exports/vda/close', { early: true })
  expect(early).toMatchObject({ status: 202, body: { state: 'closing' } })
  expect(newest('vda')).toMatchObject({ state: 'closing', sequence: 3 })
  await daemon.close('vdb')
  expect(await daemon.open('vdb')).toMatchObject({ state: 'open', generation: 2 })
  disk.freeze(false)
  expect((await write.reply).error).toBe(0)
  await eventually('the source to be closed', async () => (await statusOf(daemon)).state === 'closed')
})

function statusOf(daemon: { status(name: string): Promise<ExportStatus> }): Promise<ExportStatus> {
  return daemon.status('vda')
}
