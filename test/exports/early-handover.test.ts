/**
 * Early handover, and the cancelled migration: a source on a disk that keeps its writes until the test lets go of them, a
 * destination on the bytes below it, one record on a normal disk. Writes beside the held ranges go at once, those inside
 * wait and land after. What is still in the disk the disk is asked; no clock decides anything here.
 *
 * @module-tag slow
 */

import { closeSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import type { Receipt } from '../../src/interlock/receipt.ts'
import type { OwnershipRecord } from '../../src/ownership/home.ts'
import { lockImage, unlockImage } from '../../src/ownership/image-lock.ts'
import { closeDescriptor } from '../../src/posix/descriptor.ts'
import { OPEN, openFile } from '../../src/posix/file.ts'
import { inlineRunner } from '../blocking/inline-runner.ts'
import type { Daemon, DaemonOptions } from '../support/daemon.ts'
import { ENGINES, startDaemon } from '../support/daemon.ts'
import { eventually } from '../support/eventually.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { answerOrNone, answerWithin, connectFrontend } from '../support/nbd-frontend.ts'
import type { NbdFrontend, SentRequest } from '../support/nbd-frontend.ts'
import type { Scratch } from '../support/scratch.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { startWitnessDisk } from '../support/witness-disk.ts'
import type { WitnessDisk } from '../support/witness-disk.ts'
import { newestOf, placeApart, refusal, startHost } from './ownership-rig.ts'

const OLD = Buffer.alloc(4096, 0x01)
const NEW = Buffer.alloc(4096, 0x02)
/** Long enough for whatever watches a predecessor to have looked many times. */
const MANY_LOOKS_MS = 1_000

interface Rig {
  readonly scratch: Scratch
  readonly disk: WitnessDisk
  readonly source: Daemon
  readonly destination: Daemon
  readonly host: (path: string, options?: Partial<DaemonOptions>) => Promise<Daemon>
  readonly newest: () => Promise<OwnershipRecord>
}

/** The destination reaches the same bytes by another path, so that neither sees the other's locks: two hosts. */
async function makeRig(): Promise<Rig> {
  const scratch = scratchOfTest()
  const disk = await startWitnessDisk(scratch, { scripted: true })
  const { ownership, settings, home } = placeApart(scratch)
  const host = (path: string, options: Partial<DaemonOptions> = {}): Promise<Daemon> => {
    const exports = [{ name: 'vda', path, image_id: 'disk' }]
    const where = { ownership, ownershipSettings: settings }
    return startDaemon(scratch, { exports, ...where, engine: 'file', tcp: false, ...options })
  }
  const source = await host(disk.path)
  const destination = await host(disk.backingPath, { standby: true })
  const newest = async (): Promise<OwnershipRecord> => {
    const found = await home('disk').readNewest()
    if (found.kind !== 'record') throw new Error('there is no record')
    return found.record
  }
  return { scratch, disk, source, destination, host, newest }
}

/** A write of the frontend that the disk has and keeps. */
async function writeIntoDisk({ disk }: Rig, frontend: NbdFrontend, offset: number, data: Buffer): Promise<SentRequest> {
  disk.holdWrites(true)
  const sent = frontend.send('WRITE', { offset, data })
  await eventually('the write in the disk', () => disk.log.inDisk().some((write) => write.offset === offset))
  return sent
}

/** Its state by the kernel, behind the name in parentheses. */
function isStopped(pid: number): boolean {
  return / T \d/u.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
}

function blockOf(path: string, offset: number): number {
  const file = openSync(path, 'r')
  const bytes = Buffer.alloc(4096)
  readSync(file, bytes, 0, 4096, offset)
  closeSync(file)
  expect(bytes.every((byte) => byte === bytes[0])).toBe(true)
  return bytes[0] ?? -1
}

test('the destination serves at once, holds what overlaps, and the old write lands first', async () => {
  const rig = await makeRig()
  const { scratch, disk, source, destination, newest } = rig
  const old = await connectFrontend(scratch, source.address, 'vda')
  const fresh = await connectFrontend(scratch, destination.address, 'vda')
  await writeIntoDisk(rig, old, 8192, OLD)
  const early = await source.api('POST', '/exports/vda/close', { early: true })
  expect(early).toMatchObject({ status: 202, body: { state: 'closing' } })
  expect((await destination.open('vda')).generation).toBe(2)
  await fresh.request('WRITE', { offset: 65_536, data: NEW })
  const overlapping = fresh.send('WRITE', { offset: 8192, data: NEW })
  const status = await eventually('the overlapping write to be held', async () => {
    const found = await destination.status('vda')
    return found.holds.some(({ waiting }) => waiting === 1) && found
  })
  expect(status.holds).toEqual([{ offset: 8192, length: 4096, generation: 1, waiting: 1 }])
  expect(status.heldForMs).toBeGreaterThan(0)
  expect(await newest()).toMatchObject({ state: 'open', generation: 2, draining: [{ generation: 1 }] })
  // Neither may be handed over again, nor be reported closed, while the predecessor drains.
  expect(await refusal(destination, 'close', { early: true })).toMatchObject({ code: 'early-refused' })
  expect(await answerOrNone(overlapping, MANY_LOOKS_MS)).toBeUndefined()
  expect(disk.log.inDisk()).toHaveLength(1)
  disk.holdWrites(false)
  expect((await overlapping.reply).error).toBe(0)
  expect(disk.log.inDisk()).toEqual([])
  expect(blockOf(disk.backingPath, 8192)).toBe(0x02)
  const receipt = await source.ask<Receipt>('POST', '/exports/vda/close', {})
  expect(receipt).toMatchObject({ generation: 1, drained: { writes: 1 } })
  await eventually('the holds to be gone', async () => (await destination.status('vda')).holds.length === 0)
  expect(await newest()).toMatchObject({ state: 'open', generation: 2, draining: [] })
})

test('asked of an export that closes in the ordinary way, it is not said to be handed over', async () => {
  const rig = await makeRig()
  const { scratch, disk, source, newest } = rig
  await writeIntoDisk(rig, await connectFrontend(scratch, source.address, 'vda'), 8192, OLD)
  await source.api('POST', '/exports/vda/close', { wait: false })
  const early = await source.api('POST', '/exports/vda/close', { early: true, timeoutMs: MANY_LOOKS_MS })
  expect(early).toMatchObject({ status: 504, body: { code: 'still-draining' } })
  expect(await newest()).toMatchObject({ state: 'closing', draining: [] })
  disk.holdWrites(false)
  expect(await source.ask('POST', '/exports/vda/close', { early: true })).toMatchObject({ state: 'closed' })
})

test('a destination is not closed before its predecessor is quiet', async () => {
  const rig = await makeRig()
  const { scratch, disk, source, destination, newest } = rig
  await writeIntoDisk(rig, await connectFrontend(scratch, source.address, 'vda'), 8192, OLD)
  await source.api('POST', '/exports/vda/close', { early: true })
  await destination.open('vda')
  expect(await refusal(destination, 'close', { timeoutMs: MANY_LOOKS_MS })).toMatchObject({ status: 504 })
  expect(disk.log.inDisk()).toHaveLength(1)
  disk.holdWrites(false)
  const { receipt } = await destination.close('vda')
  expect(disk.log.inDisk()).toEqual([])
  expect(receipt.generation).toBe(2)
  expect(await newest()).toMatchObject({ state: 'closed', generation: 2, draining: [] })
  expect((await source.close('vda')).receipt.generation).toBe(1)
})

test('a source that dies leaves its holds; its receipt, a fence, or its own next run lets go of them', async () => {
  const rig = await makeRig()
  const { scratch, disk, source, destination, host, newest } = rig
  const fresh = await connectFrontend(scratch, destination.address, 'vda')
  await writeIntoDisk(rig, await connectFrontend(scratch, source.address, 'vda'), 8192, OLD)
  await source.api('POST', '/exports/vda/close', { early: true })
  await destination.open('vda')
  const held = fresh.send('WRITE', { offset: 8192, data: NEW })
  source.program.signal('SIGKILL')
  expect(await refusal(destination, 'clear')).toMatchObject({ code: 'receipt-required' })
  expect(await refusal(destination, 'clear', { takeover: true })).toMatchObject({ code: 'takeover-failed' })
  disk.holdWrites(false)
  await source.program.exited
  await eventually('the disk to be idle', () => disk.log.inDisk().length === 0)
  // The disk has finished, and still nobody has proved it.
  expect(await answerOrNone(held, MANY_LOOKS_MS)).toBeUndefined()
  expect((await destination.status('vda')).holds).toHaveLength(1)
  expect((await newest()).draining).toHaveLength(1)
  const again = await host(disk.path, { stateDirectory: source.stateDirectory })
  const { receipt } = await again.close('vda')
  expect(receipt).toMatchObject({ generation: 1, clearedBy: 'lock' })
  expect((await held.reply).error).toBe(0)
  expect((await newest()).draining).toEqual([])
  expect(blockOf(disk.backingPath, 8192)).toBe(0x02)
  expect(await again.status('vda')).toMatchObject({ state: 'standby' })
})

const FENCED = [
  [
    'by its operator',
    async ({ source }: Rig) => {
      await source.ask('POST', '/exports/vda/fence', {})
    },
    'fenced by the operator',
  ],
  [
    'by a sync that fails',
    ({ disk }: Rig) => {
      disk.failFlushes(true)
    },
    'could not be made durable',
  ],
] as const

test.each(FENCED)(
  'a source that is fenced while it drains lets go of the holds once it is quiet: %s',
  async (_by, fence, reason) => {
    const rig = await makeRig()
    const { scratch, disk, source, destination, newest } = rig
    const fresh = await connectFrontend(scratch, destination.address, 'vda')
    await writeIntoDisk(rig, await connectFrontend(scratch, source.address, 'vda'), 8192, OLD)
    await source.api('POST', '/exports/vda/close', { early: true })
    await fence(rig)
    expect((await newest()).draining).toHaveLength(1)
    await destination.open('vda')
    const held = fresh.send('WRITE', { offset: 8192, data: NEW })
    expect(await answerOrNone(held, MANY_LOOKS_MS)).toBeUndefined()
    expect(disk.log.inDisk()).toHaveLength(1)
    disk.holdWrites(false)
    expect((await answerWithin(held, 60_000)).error).toBe(0)
    expect(disk.log.inDisk()).toEqual([])
    expect(blockOf(disk.backingPath, 8192)).toBe(0x02)
    expect(await newest()).toMatchObject({ state: 'open', generation: 2, draining: [] })
    // It is no close: nobody is given a receipt of that generation.
    const status = await source.status('vda')
    expect(status).toMatchObject({ state: 'fenced', lastReceipt: null })
    expect(status.stateReason).toContain(reason)
    expect((await destination.close('vda')).receipt).toMatchObject({ generation: 2 })
  },
)

/** Killed while the disk has its write, which lands after that. What waits in the disk keeps the dead from being gone. */
async function dieWithWrite({ disk, source }: Rig): Promise<void> {
  source.program.signal('SIGKILL')
  disk.holdWrites(false)
  await source.program.exited
  expect(disk.log.inDisk()).toEqual([])
}

/** What it was fenced for is not asked again by the next run, which finds the disk in order. */
async function expectNoReceipt(source: Daemon): Promise<void> {
  expect(await source.status('vda')).toMatchObject({
    state: 'standby',
    stateReason: expect.stringContaining('generation 1 was fenced') as string,
  })
  expect(await refusal(source, 'close')).toMatchObject({ code: 'wrong-state' })
}

/** The mark that a fence leaves in the state directory, before anything that takes long. */
async function untilMarked({ stateDirectory }: Daemon): Promise<void> {
  const isMarked = (): boolean =>
    readdirSync(join(stateDirectory, 'open-tokens')).some((name) => name.endsWith('.fenced'))
  await eventually('the mark of the fence', isMarked)
}

test.each([
  ['nobody', false],
  ['the destination', true],
])('a source fenced in an early close has no receipt after it has died, when %s has opened', async (_who, opened) => {
  const rig = await makeRig()
  const { scratch, disk, source, destination, newest } = rig
  await writeIntoDisk(rig, await connectFrontend(scratch, source.address, 'vda'), 8192, OLD)
  await source.api('POST', '/exports/vda/close', { early: true })
  if (opened) await destination.open('vda')
  await source.ask('POST', '/exports/vda/fence', {})
  await untilMarked(source)
  await dieWithWrite(rig)
  const again = await rig.host(disk.path, { stateDirectory: source.stateDirectory })
  if (!opened) {
    await expectNoReceipt(again)
    expect(await newest()).toMatchObject({ state: 'closing', generation: 1 })
    await destination.open('vda')
  }
  await eventually('the entry to go', async () => (await newest()).draining.length === 0)
  expect(await refusal(again, 'close')).toMatchObject({ code: 'wrong-state' })
  expect((await destination.close('vda')).receipt).toMatchObject({ generation: 2 })
})

test('a source fenced in a close has no receipt after it has died, whatever its record says', async () => {
  const rig = await makeRig()
  const { scratch, disk, source, newest } = rig
  await writeIntoDisk(rig, await connectFrontend(scratch, source.address, 'vda'), 8192, OLD)
  await source.api('POST', '/exports/vda/close', { wait: false })
  await eventually('closing to be recorded', async () => (await newest()).state === 'closing')
  await source.ask('POST', '/exports/vda/fence', {})
  await untilMarked(source)
  await dieWithWrite(rig)
  expect(await newest()).toMatchObject({ state: 'closing' })
  const again = await rig.host(disk.path, { stateDirectory: source.stateDirectory })
  await expectNoReceipt(again)
  expect(await again.open('vda', { timeoutMs: 30_000 })).toMatchObject({ generation: 2, clearedBy: 'lock' })
})

test('a source that comes back finishes its close although the destination is closing, which waits for that', async () => {
  const rig = await makeRig()
  const { scratch, disk, source, destination, newest } = rig
  await writeIntoDisk(rig, await connectFrontend(scratch, source.address, 'vda'), 8192, OLD)
  await source.api('POST', '/exports/vda/close', { early: true })
  await destination.open('vda')
  await dieWithWrite(rig)
  await destination.api('POST', '/exports/vda/close', { wait: false })
  await eventually('closing to be recorded', async () => (await newest()).state === 'closing')
  const again = await rig.host(disk.path, { stateDirectory: source.stateDirectory })
  expect((await destination.close('vda')).receipt).toMatchObject({ generation: 2 })
  expect((await again.close('vda')).receipt).toMatchObject({ generation: 1, clearedBy: 'lock' })
})

/** The one disk is seen by both; it is idle again before the destination opens, since it can do one thing at a time only. */
test.each(ENGINES)('on one host the holds fall when the lock of a dead source comes free (%s)', async (engine) => {
  const scratch = scratchOfTest()
  const disk = await startWitnessDisk(scratch, { scripted: true })
  const { ownership, settings, home } = placeApart(scratch)
  const exports = [{ name: 'vda', path: disk.path, image_id: 'disk' }]
  const options = { exports, ownership, ownershipSettings: settings, engine, tcp: false }
  const environment = { INTERLOCKD_FAULT_POINT: 'early: recorded:stop' }
  const source = await startDaemon(scratch, { ...options, environment })
  const { stateDirectory } = source
  const destination = await startDaemon(scratch, { ...options, stateDirectory, standby: true })
  const fresh = await connectFrontend(scratch, destination.address, 'vda')
  const old = await connectFrontend(scratch, source.address, 'vda')
  disk.holdWrites(true)
  old.send('WRITE', { offset: 8192, data: OLD })
  await eventually('the write in the disk', () => disk.log.inDisk().length === 1)
  // It stops before it can take its entry out of the record, and keeps its lock.
  void source.api('POST', '/exports/vda/close', { early: true }).catch(() => null)
  await eventually('the entry', async () => {
    const newest = await home('disk').readNewest()
    return newest.kind === 'record' && newest.record.draining.length === 1
  })
  await eventually('the stop', () => /^State:\s+T/mu.test(readFileSync(`/proc/${source.pid}/status`, 'utf8')))
  disk.holdWrites(false)
  await eventually('the disk to be idle', () => disk.log.inDisk().length === 0)
  expect(await destination.open('vda')).toMatchObject({ state: 'open', generation: 2 })
  const held = fresh.send('WRITE', { offset: 8192, data: NEW })
  expect(await answerOrNone(held, MANY_LOOKS_MS)).toBeUndefined()
  expect((await destination.status('vda')).holds).toMatchObject([{ offset: 8192, generation: 1, waiting: 1 }])
  await source.kill()
  expect((await answerWithin(held, 60_000)).error).toBe(0)
  expect(blockOf(disk.backingPath, 8192)).toBe(0x02)
  expect((await destination.status('vda')).holds).toEqual([])
  expect(await home('disk').readNewest()).toMatchObject({ record: { state: 'open', generation: 2, draining: [] } })
})

test('a third host in line waits for both; the second one can hand over early only when the first is quiet', async () => {
  const rig = await makeRig()
  const { scratch, disk, source, destination, host, newest } = rig
  const third = await host(disk.backingPath, { standby: true })
  await writeIntoDisk(rig, await connectFrontend(scratch, source.address, 'vda'), 8192, OLD)
  await source.api('POST', '/exports/vda/close', { early: true })
  await destination.open('vda')
  expect(await refusal(third, 'open')).toMatchObject({ code: 'held-by-other' })
  expect(await refusal(destination, 'close', { early: true })).toMatchObject({ code: 'early-refused' })
  await destination.api('POST', '/exports/vda/close', { wait: false })
  await eventually('closing to be recorded', async () => (await newest()).state === 'closing')
  expect(await refusal(third, 'open', { timeoutMs: MANY_LOOKS_MS })).toMatchObject({ code: 'held-by-other' })
  expect(disk.log.inDisk()).toHaveLength(1)
  const opening = third.open('vda', { timeoutMs: 30_000 })
  disk.holdWrites(false)
  expect(await opening).toMatchObject({ generation: 3, holds: [] })
  expect(disk.log.inDisk()).toEqual([])
  expect((await source.close('vda')).receipt.generation).toBe(1)
  expect((await destination.close('vda')).receipt.generation).toBe(2)
})

test('a migration that is cancelled goes on under the same generation, unless somebody has opened', async () => {
  const rig = await makeRig()
  const { scratch, disk, source, destination, newest } = rig
  const old = await connectFrontend(scratch, source.address, 'vda')
  const first = await writeIntoDisk(rig, old, 8192, OLD)
  await source.api('POST', '/exports/vda/close', { early: true })
  expect(await newest()).toMatchObject({ state: 'closing', draining: [{ generation: 1 }] })
  expect(await source.open('vda')).toMatchObject({ state: 'open', generation: 1 })
  expect(await newest()).toMatchObject({ state: 'open', generation: 1, draining: [] })
  expect(await refusal(destination, 'open')).toMatchObject({ code: 'held-by-other' })
  disk.holdWrites(false)
  expect((await first.reply).error).toBe(0)
  const second = await writeIntoDisk(rig, old, 16_384, NEW)
  await source.api('POST', '/exports/vda/close', { early: true })
  await destination.open('vda')
  expect(await refusal(source, 'open')).toMatchObject({ code: 'held-by-other' })
  disk.holdWrites(false)
  expect((await second.reply).error).toBe(0)
  expect((await source.close('vda')).receipt.generation).toBe(1)
})

test("an early close lets go of QEMU's locks; cancelled, it takes them again, or it does not go on", async () => {
  const rig = await makeRig()
  const { scratch, disk, source } = rig
  const other = openFile(disk.path, OPEN.readWrite)
  onTestFinished(async () => {
    // Closing it asks the disk, which does one thing at a time.
    disk.holdWrites(false)
    await eventually('the disk to be idle', () => disk.log.inDisk().length === 0)
    closeDescriptor(other)
  })
  const takeLocks = () => lockImage(inlineRunner, other, 'write')
  expect(await takeLocks()).toMatchObject({ kind: 'busy' })
  await writeIntoDisk(rig, await connectFrontend(scratch, source.address, 'vda'), 8192, OLD)
  await source.api('POST', '/exports/vda/close', { early: true })
  expect(await takeLocks()).toEqual({ kind: 'locked' })
  await unlockImage(inlineRunner, other)
  expect(await source.open('vda')).toMatchObject({ state: 'open', generation: 1 })
  expect(await takeLocks()).toMatchObject({ kind: 'busy' })
  await source.api('POST', '/exports/vda/close', { early: true })
  expect(await takeLocks()).toEqual({ kind: 'locked' })
  expect(await refusal(source, 'open')).toMatchObject({ code: 'image-in-use' })
  expect(await source.status('vda')).toMatchObject({ state: 'fenced' })
})

test('a destination opens also where the source records its end while it opens', async () => {
  const rig = await makeRig()
  const { scratch, disk, source, newest } = rig
  const stopped = { INTERLOCKD_FAULT_POINT: 'open: before opening is recorded:stop' }
  const destination = await rig.host(disk.backingPath, { standby: true, environment: stopped })
  const write = await writeIntoDisk(rig, await connectFrontend(scratch, source.address, 'vda'), 0, OLD)
  await source.api('POST', '/exports/vda/close', { early: true })
  const opened = destination.open('vda')
  await eventually('the destination to be stopped', () => isStopped(destination.pid))
  disk.holdWrites(false)
  expect((await write.reply).error).toBe(0)
  await eventually('the source to have recorded its end', async () => (await newest()).state === 'closed')
  process.kill(destination.pid, 'SIGCONT')
  expect(await opened).toMatchObject({ state: 'open', generation: 2 })
  expect(await newest()).toMatchObject({ state: 'open', generation: 2, draining: [] })
})

test('a close that is not early is cancelled too, and after the last step it is the next generation', async () => {
  const rig = await makeRig()
  const { scratch, disk, source, newest } = rig
  const write = await writeIntoDisk(rig, await connectFrontend(scratch, source.address, 'vda'), 0, OLD)
  await source.api('POST', '/exports/vda/close', { wait: false })
  await eventually('closing to be recorded', async () => (await newest()).state === 'closing')
  expect(await source.open('vda')).toMatchObject({ state: 'open', generation: 1 })
  expect((await newest()).state).toBe('open')
  disk.holdWrites(false)
  expect((await write.reply).error).toBe(0)
  await source.close('vda')
  expect(await source.open('vda')).toMatchObject({ state: 'open', generation: 2 })
})

test('it is refused where it cannot be kept: in writeback, read-only, and without a shared record', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const writeback = await startHost(scratch, path, { exports: [{ name: 'vda', path, durability: 'writeback' }] })
  const reason = { code: 'early-refused', detail: expect.stringContaining('writeback') as string }
  expect(await refusal(writeback, 'close', { early: true })).toMatchObject(reason)
  await writeback.close('vda')
  expect(newestOf(path).state).toBe('closed')
  const alone = await startHost(scratch, path, { ownership: 'none' })
  expect(await refusal(alone, 'close', { early: true })).toMatchObject({ code: 'early-refused' })
  expect((await alone.status('vda')).state).toBe('open')
})
