/**
 * Between the gate and the record that says `open`: writes are answered while the record still says `opening`. They stay,
 * nobody else gets in, and what goes wrong with the record then is nothing that a guest notices. A close that is cancelled
 * has no such time: others may open on a record that says closing.
 *
 * @module-tag slow
 */

import { expect, test } from 'vitest'
import type { ExportStatus } from '../../src/exports/verbs.ts'
import type { Daemon, DaemonOptions } from '../support/daemon.ts'
import { eventually } from '../support/eventually.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { answerOrNone, answerWithin, connectFrontend } from '../support/nbd-frontend.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { watchExport } from '../support/watched-events.ts'
import { startWitnessDisk } from '../support/witness-disk.ts'
import { BLOCK, newestOf, openElsewhere, passingPlace, placeApart, refusal, startHost } from './ownership-rig.ts'

const ESHUTDOWN = 108

function pausedFor(durationMs: number): Readonly<Record<string, string>> {
  return { INTERLOCKD_FAULT_POINT: `open: admitting:sleep=${durationMs}` }
}

function untilOpen(daemon: Daemon): Promise<ExportStatus> {
  return eventually('the opening', async () => {
    const status = await daemon.status('vda')
    return status.state === 'open' && status
  })
}

test('a write that was answered while the record said opening stays, and nobody else had got in', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const daemon = await startHost(scratch, path, { standby: true, environment: pausedFor(60_000) })
  const other = await startHost(scratch, path, { standby: true })
  const frontend = await connectFrontend(scratch, daemon.address, 'vda')
  const parked = frontend.send('WRITE', { offset: 0, data: BLOCK })
  const opening = daemon.open('vda').catch(() => null)
  expect((await answerWithin(parked, 10_000)).error).toBe(0)
  expect(newestOf(path)).toMatchObject({ state: 'opening', generation: 1 })
  const refused = { code: 'held-by-other', recordState: 'opening', generation: 1 }
  expect(await refusal(other, 'open', { awaitClose: true })).toMatchObject(refused)
  await daemon.kill()
  await opening
  expect(await refusal(other, 'open')).toMatchObject(refused)
  const again = await startHost(scratch, path, { stateDirectory: daemon.stateDirectory })
  expect(await untilOpen(again)).toMatchObject({ generation: 2, clearedBy: 'lock' })
  const reader = await connectFrontend(scratch, again.address, 'vda')
  expect((await reader.read(0, BLOCK.length)).equals(BLOCK)).toBe(true)
})

test('of an image that nobody has closed the record says open before anything is admitted', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const first = await startHost(scratch, path)
  await first.kill()
  const daemon = await startHost(scratch, path, {
    stateDirectory: first.stateDirectory,
    standby: true,
    environment: { INTERLOCKD_FAULT_POINT: 'record: written@2:sleep=6000' },
  })
  const frontend = await connectFrontend(scratch, daemon.address, 'vda')
  const parked = frontend.send('WRITE', { offset: 0, data: BLOCK })
  const opening = daemon.open('vda', { timeoutMs: 50_000 })
  await eventually('the first record', () => newestOf(path).generation === 2)
  expect(await answerOrNone(parked, 1_000)).toBeUndefined()
  expect(newestOf(path)).toMatchObject({ state: 'opening' })
  expect((await answerWithin(parked, 30_000)).error).toBe(0)
  expect(await opening).toMatchObject({ generation: 2, clearedBy: 'lock' })
})

test('a home that goes away behind the gate is asked again, and what is open is served', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const { place, leave, comeBack } = await passingPlace(scratch)
  const { ownership, settings } = place
  const environment = pausedFor(6_000)
  const daemon = await startHost(scratch, path, { ownership, ownershipSettings: settings, standby: true, environment })
  const events = await watchExport(daemon, 'vda')
  const recorded = () => events().flatMap((event) => (event.kind === 'record' ? [event.change] : []))
  const opening = daemon.open('vda')
  await untilOpen(daemon)
  expect(place.newest('vda')).toMatchObject({ state: 'opening' })
  await leave()
  expect(await opening).toMatchObject({
    state: 'open',
    stateReason: expect.stringMatching(/waits for its record/u) as string,
  })
  const frontend = await connectFrontend(scratch, daemon.address, 'vda')
  expect((await frontend.request('WRITE', { offset: 0, data: BLOCK })).error).toBe(0)
  await eventually('an event of waiting', () => recorded().includes('waiting'))
  await comeBack()
  await eventually('the record', () => place.newest('vda')?.state === 'open', { timeoutMs: 30_000 })
  await eventually('the end of waiting', async () => (await daemon.status('vda')).stateReason === null)
  await eventually('an event that it is over', () => recorded().length > 1)
  expect(recorded()).toEqual(['waiting', 'written'])
  expect((await daemon.close('vda')).receipt).toMatchObject({ generation: 1 })
})

test('a close in between says more than that it was open, and is what stays', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const daemon = await startHost(scratch, path, { standby: true, environment: pausedFor(5_000) })
  const opening = daemon.open('vda')
  await untilOpen(daemon)
  const { receipt } = await daemon.close('vda')
  expect(newestOf(path)).toMatchObject({ state: 'closed', generation: 1, receipt: { nonce: receipt.nonce } })
  expect(await opening).toMatchObject({ state: 'closed' })
  expect(newestOf(path)).toMatchObject({ state: 'closed', receipt: { nonce: receipt.nonce } })
})

test('whoever takes it in between ends it', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const daemon = await startHost(scratch, path, { standby: true, environment: pausedFor(5_000) })
  const frontend = await connectFrontend(scratch, daemon.address, 'vda')
  const opening = refusal(daemon, 'open')
  await untilOpen(daemon)
  await openElsewhere(path)
  // By its own look at the record, or by the news that a home tells.
  expect(['held-by-other', 'export-fenced']).toContain((await opening)['code'])
  expect(await daemon.status('vda')).toMatchObject({
    state: 'fenced',
    stateReason: expect.stringContaining('thief') as string,
  })
  expect((await answerWithin(frontend.send('WRITE', { offset: 0, data: BLOCK }), 10_000)).error).toBe(ESHUTDOWN)
  expect(newestOf(path)).toMatchObject({ generation: 2, holder: { name: 'thief' } })
})

test('a close that is cancelled: nothing is admitted before the record says open again', async () => {
  const scratch = scratchOfTest()
  const disk = await startWitnessDisk(scratch, { scripted: true })
  const place = placeApart(scratch)
  const host = (path: string, options: Partial<DaemonOptions>): Promise<Daemon> => {
    const exports = [{ name: 'vda', path, image_id: 'disk' }]
    return startHost(scratch, path, {
      exports,
      ownership: place.ownership,
      ownershipSettings: place.settings,
      ...options,
    })
  }
  // Its write keeps the close of the next host from ending; that one reaches the bytes below the disk.
  const predecessor = await host(disk.path, {})
  const environment = { INTERLOCKD_FAULT_POINT: 'cancel: before open is recorded:sleep=2500' }
  const daemon = await host(disk.backingPath, { standby: true, environment })
  const old = await connectFrontend(scratch, predecessor.address, 'vda')
  disk.holdWrites(true)
  old.send('WRITE', { offset: 8192, data: BLOCK })
  await eventually('the write in the disk', () => disk.log.inDisk().length > 0)
  await predecessor.ask('POST', '/exports/vda/close', { early: true })
  await daemon.open('vda')
  const frontend = await connectFrontend(scratch, daemon.address, 'vda')
  await daemon.ask('POST', '/exports/vda/close', { wait: false })
  await eventually('the record of the close', () => place.newest('disk')?.state === 'closing')
  const parked = frontend.send('WRITE', { offset: 65_536, data: BLOCK })
  const opening = daemon.open('vda')
  expect(await answerOrNone(parked, 1_000)).toBeUndefined()
  expect(place.newest('disk')).toMatchObject({ state: 'closing', generation: 2 })
  expect((await answerWithin(parked, 10_000)).error).toBe(0)
  expect(place.newest('disk')).toMatchObject({ state: 'open', generation: 2 })
  expect(await opening).toMatchObject({ state: 'open', generation: 2 })
  disk.holdWrites(false)
})
