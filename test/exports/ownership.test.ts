/**
 * One image and its record, opened, closed, killed and opened again by real daemons: two state directories are two hosts.
 * What may not happen is asked of the daemons over their sockets, and of the record itself.
 *
 * @module-tag slow
 */

import {
  copyFileSync,
  existsSync,
  linkSync,
  readFileSync,
  renameSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { ExportStatus } from '../../src/exports/verbs.ts'
import type { OwnershipRecord } from '../../src/ownership/home.ts'
import { repairRecord } from '../../src/ownership/record-repair.ts'
import { closeDescriptor } from '../../src/posix/descriptor.ts'
import { copyDescriptor } from '../support/copied-descriptor.ts'
import { startDaemon } from '../support/daemon.ts'
import { eventually } from '../support/eventually.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { answerWithin, connectFrontend } from '../support/nbd-frontend.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { BLOCK, homeOf, newestOf, placeApart, placeOf, recordsOf, refusal, startHost } from './ownership-rig.ts'

test('a handover: each step is in the record, and both hosts know who has it', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const source = await startHost(scratch, path)
  const destination = await startHost(scratch, path, { standby: true })
  expect(await source.status('vda')).toMatchObject({ state: 'open', generation: 1, clearedBy: null })
  expect(await refusal(destination, 'open')).toMatchObject({ status: 409, code: 'held-by-other' })
  const { receipt } = await source.close('vda')
  expect(receipt).toMatchObject({ generation: 1, reason: 'handover', clearedBy: 'drain' })
  expect(await destination.open('vda')).toMatchObject({ state: 'open', generation: 2 })
  expect(recordsOf(path).map(({ state, generation }) => `${state} ${generation}`)).toEqual([
    ...['opening 1', 'open 1', 'closing 1', 'closed 1', 'opening 2', 'open 2'],
  ])
  await eventually('the source knows who took over', async () => {
    const { stateReason } = await source.status('vda')
    return stateReason?.startsWith('opened by')
  })
  expect((await source.close('vda')).receipt).toEqual(receipt)
})

test('while the holder lives, no other host opens, and is told at once who has it', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const holder = await startHost(scratch, path)
  const other = await startHost(scratch, path)
  // It was told to open at its start; the record did not allow it, and the daemon runs all the same.
  const status = await other.status('vda')
  expect(status).toMatchObject({ state: 'standby', generation: 0 })
  expect(status.stateReason).toContain('has generation 1, which is open')
  expect(status.holder?.instance).toBe((await holder.status('vda')).holder?.instance)
  const startedMs = performance.now()
  const problem = await refusal(other, 'open', { timeoutMs: 20_000 })
  expect(performance.now() - startedMs).toBeLessThan(10_000)
  expect(problem).toMatchObject({ code: 'held-by-other', holder: { host: newestOf(path).holder.host }, generation: 1 })
  await holder.kill()
  // A dead holder of another host is no more than that: a free lock proves nothing here.
  expect(await refusal(other, 'open', { timeoutMs: 300 })).toMatchObject({ code: 'held-by-other' })
  expect(recordsOf(path)).toHaveLength(2)
})

test('after a crash while open the same host opens again by itself, by the lock', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const first = await startHost(scratch, path)
  await first.kill()
  const second = await startHost(scratch, path, { stateDirectory: first.stateDirectory })
  expect(await second.status('vda')).toMatchObject({ state: 'open', generation: 2, clearedBy: 'lock' })
  expect(newestOf(path).cleared).toEqual({ generation: 1, by: 'lock', fence: null })
})

test('another run of this host that lives is named, not waited for', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const first = await startHost(scratch, path)
  const second = await startHost(scratch, path, { stateDirectory: first.stateDirectory })
  expect((await second.status('vda')).stateReason).toContain('by a daemon that lives on this host')
  await first.kill()
  expect(await second.open('vda')).toMatchObject({ generation: 2, clearedBy: 'lock' })
})

test('SIGTERM and start: open again; handover and start: standby, with the same receipt', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const first = await startHost(scratch, path)
  const { stateDirectory } = first
  expect((await first.stop()).status).toBe(0)
  expect(newestOf(path)).toMatchObject({ state: 'closed', closeReason: 'shutdown', receipt: { reason: 'shutdown' } })
  const second = await startHost(scratch, path, { stateDirectory })
  expect(await second.status('vda')).toMatchObject({ state: 'open', generation: 2 })
  const { receipt } = await second.close('vda')
  await second.kill()
  const third = await startHost(scratch, path, { stateDirectory })
  expect(await third.status('vda')).toMatchObject({ state: 'standby', generation: 0 })
  expect((await third.status('vda')).stateReason).toContain('handed over')
  expect((await third.close('vda')).receipt).toEqual(receipt)
  // Also when somebody else has opened since, and the record has moved on.
  const other = await startHost(scratch, path, { standby: true })
  await other.open('vda')
  expect((await third.close('vda')).receipt).toEqual(receipt)
  await third.kill()
  const fourth = await startHost(scratch, path, { stateDirectory })
  expect((await fourth.close('vda')).receipt).toEqual(receipt)
})

test('what another host has shut down is not opened here by itself', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  await (await startHost(scratch, path)).stop()
  const other = await startHost(scratch, path)
  expect((await other.status('vda')).stateReason).toContain('has shut down')
  expect(await other.open('vda')).toMatchObject({ generation: 2, clearedBy: null })
})

test('a generation that was opened and crashed has no receipt, whatever was closed before it', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const first = await startHost(scratch, path)
  await first.close('vda')
  await first.open('vda')
  await first.kill()
  const second = await startHost(scratch, path, { stateDirectory: first.stateDirectory, standby: true })
  expect(await refusal(second, 'close')).toMatchObject({ status: 409, code: 'wrong-state' })
})

test('two hosts that open at once: one wins, the other is told who', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const hosts = [await startHost(scratch, path, { standby: true }), await startHost(scratch, path, { standby: true })]
  for (let round = 1; round <= 8; round++) {
    const answers = await Promise.all(hosts.map((host) => host.api('POST', '/exports/vda/open', {})))
    const winners = hosts.filter((_host, index) => answers[index]?.status === 200)
    expect(winners).toHaveLength(1)
    const loser = answers.find(({ status }) => status !== 200)
    expect(loser?.status).toBe(409)
    const states = await Promise.all(hosts.map((host) => host.status('vda')))
    expect(states.filter(({ state }) => state === 'open')).toHaveLength(1)
    expect(newestOf(path).holder.instance).toBe(states.find(({ state }) => state === 'open')?.holder?.instance)
    await winners[0]?.close('vda')
  }
})

test('whoever loses the race for the record is a standby as before, and opens when it is free', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  await (await startHost(scratch, path)).close('vda')
  const home = homeOf(path)
  const closed = await home.readNewest()
  if (closed.kind !== 'record') throw new Error('there is a record')
  const loser = await startHost(scratch, path, {
    standby: true,
    environment: { INTERLOCKD_FAULT_POINT: 'open: before opening is recorded:stop' },
  })
  const frontend = await connectFrontend(scratch, loser.address, 'vda')
  const opening = refusal(loser, 'open')
  const hasStopped = (): boolean => /^State:\s+T/mu.test(readFileSync(`/proc/${loser.pid}/status`, 'utf8'))
  await eventually('the opening to stop before its record', hasStopped)
  const held = { ...closed.record, generation: 7, state: 'open', closeReason: null, receipt: null } as const
  expect((await home.compareAndSwap(closed.record.sequence, held)).won).toBe(true)
  loser.program.signal('SIGCONT')
  expect(await opening).toMatchObject({ code: 'held-by-other', generation: 7 })
  expect(await loser.status('vda')).toMatchObject({ state: 'standby' })
  expect((await frontend.read(0, BLOCK.length)).equals(Buffer.alloc(BLOCK.length))).toBe(true)
  const free = { ...held, state: 'closed', closeReason: 'handover' } as const
  expect((await home.compareAndSwap(closed.record.sequence + 1, free)).won).toBe(true)
  expect(await loser.open('vda')).toMatchObject({ state: 'open', generation: 8 })
  expect((await frontend.request('WRITE', { offset: 0, data: BLOCK })).error).toBe(0)
  expect((await frontend.read(0, BLOCK.length)).equals(BLOCK)).toBe(true)
})

test.each([
  ['before the gate', 'open: old receipt dropped', 'opening'],
  ['behind the gate', 'open: open recorded', 'open'],
])(
  'a fence in the middle of an opening, %s, answers what is asked then, with a refusal',
  async (_, fault, recorded) => {
    const scratch = scratchOfTest()
    const path = makeImage(scratch, MEBIBYTE)
    const daemon = await startHost(scratch, path, {
      standby: true,
      environment: { INTERLOCKD_FAULT_POINT: `${fault}@2:sleep=4000` },
    })
    await daemon.open('vda')
    await daemon.close('vda')
    await daemon.ask('POST', '/exports/vda/standby', {})
    const frontend = await connectFrontend(scratch, daemon.address, 'vda')
    const opening = refusal(daemon, 'open')
    await eventually('its record', () => newestOf(path).state === recorded)
    await daemon.ask('POST', '/exports/vda/fence', {})
    expect(await opening).toMatchObject({ code: 'export-fenced' })
    await eventually('the image is let go of', () => newestOf(path).state === 'fenced')
    const read = frontend.send('READ', { offset: 0, length: BLOCK.length })
    expect((await answerWithin(read, 10_000)).error).toBe(108)
  },
)

test('a fence that overtakes an open which cancels a close ends both, and the next open is not held up', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const fault = join(scratch.directory('fault'), 'armed')
  const daemon = await startHost(scratch, path, { environment: { INTERLOCKD_FAULT_POINT: fault } })
  // The close must not be over before it is cancelled.
  writeFileSync(fault, 'close: synced:sleep=3000')
  await daemon.api('POST', '/exports/vda/close', { wait: false })
  await eventually('the close to be late', () => !existsSync(fault))
  writeFileSync(fault, 'cancel: open recorded:sleep=1500')
  const cancelling = refusal(daemon, 'open')
  await eventually('the cancel to be late', () => !existsSync(fault))
  await daemon.ask('POST', '/exports/vda/fence', {})
  expect(await cancelling).toMatchObject({ code: 'export-fenced' })
  expect(await daemon.open('vda', { timeoutMs: 20_000 })).toMatchObject({ state: 'open', generation: 2 })
})

test('an open that waits for its source gets the image when that has closed, and reads its size again', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const source = await startHost(scratch, path)
  const destination = await startHost(scratch, path, { standby: true })
  const early = await connectFrontend(scratch, destination.address, 'vda')
  expect(early.sizeBytes).toBe(MEBIBYTE)
  expect(newestOf(path).state).toBe('open')
  source.program.signal('SIGSTOP')
  expect(await refusal(destination, 'open', { timeoutMs: 500 })).toMatchObject({ code: 'held-by-other' })
  truncateSync(path, 2 * MEBIBYTE)
  source.program.signal('SIGCONT')
  const closing = source.close('vda')
  const opened = await eventually('the destination to open', async () => {
    const answer = await destination.api('POST', '/exports/vda/open', { timeoutMs: 5_000 })
    return answer.status === 200 && (answer.body as ExportStatus)
  })
  expect(opened).toMatchObject({ generation: 2, size: 2 * MEBIBYTE })
  expect((await closing).receipt.generation).toBe(1)
  // Whoever was told another size must ask again.
  await eventually('the end of its connection', () => !early.isOpen)
  expect((await connectFrontend(scratch, destination.address, 'vda')).sizeBytes).toBe(2 * MEBIBYTE)
  await destination.close('vda')
  truncateSync(path, MEBIBYTE)
  expect(await refusal(destination, 'open')).toMatchObject({
    code: 'image-changed',
    detail: expect.stringContaining('shrank') as string,
  })
  expect(newestOf(path)).toMatchObject({ state: 'closed', generation: 2 })
})

test('an open that is asked for together with the close waits for it, and no longer than it was told', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const source = await startHost(scratch, path)
  const destination = await startHost(scratch, path, { standby: true })
  expect(await refusal(destination, 'open', { awaitClose: true })).toMatchObject({ code: 'held-by-other' })
  const startedMs = performance.now()
  expect(await refusal(destination, 'open', { awaitClose: true, timeoutMs: 400 })).toMatchObject({
    code: 'held-by-other',
    generation: 1,
  })
  expect(performance.now() - startedMs).toBeGreaterThanOrEqual(400)
  expect(recordsOf(path)).toHaveLength(2)
  const opening = destination.open('vda', { awaitClose: true, timeoutMs: 20_000 })
  await eventually('it waits', async () => (await destination.status('vda')).state === 'opening')
  const { receipt } = await source.close('vda')
  expect(receipt.generation).toBe(1)
  expect(await opening).toMatchObject({ state: 'open', generation: 2 })
})

test('a receipt that is brought along must be the one in the record', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const source = await startHost(scratch, path)
  const destination = await startHost(scratch, path, { standby: true })
  const { receipt } = await source.close('vda')
  const forged = { ...receipt, nonce: 'another' }
  expect(await refusal(destination, 'open', { receipt: forged })).toMatchObject({ code: 'receipt-mismatch' })
  expect(await refusal(destination, 'open', { receipt: { ...receipt, generation: 0 } })).toMatchObject({
    code: 'receipt-mismatch',
  })
  expect(await refusal(destination, 'open', { receipt: { ...receipt, generation: 2 } })).toMatchObject({
    code: 'receipt-mismatch',
    detail: expect.stringContaining('do not share one record') as string,
  })
  expect(await destination.open('vda', { receipt })).toMatchObject({ generation: 2 })
})

test.each([
  ['has another file in its place', true],
  ['has nothing in its place', false],
])('an image that %s is closed when the lock of that very image is free', async (_what, replaced) => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const holder = await startHost(scratch, path)
  renameSync(path, `${path}.moved`)
  if (replaced) copyFileSync(`${path}.moved`, path)
  // As a write that is still in the kernel would, this keeps the open file and its lock.
  const kept = copyDescriptor(holder.pid, `${path}.moved`)
  try {
    expect(await refusal(holder, 'close', { timeoutMs: 500 })).toMatchObject({
      code: 'still-draining',
      step: 'provingLock',
    })
  } finally {
    closeDescriptor(kept)
  }
  expect((await holder.close('vda')).receipt).toMatchObject({ generation: 1 })
})

test('a source that opens again after its close takes the next generation', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const source = await startHost(scratch, path)
  await source.close('vda')
  expect(await source.open('vda')).toMatchObject({ generation: 2, state: 'open' })
})

test.each([
  ['a close', {}],
  ['an early close', { early: true }],
])(
  'a record on top of its own that cannot be understood has %s wait for its repair, and fences nothing',
  async (_, how) => {
    const scratch = scratchOfTest()
    const path = makeImage(scratch, MEBIBYTE)
    const holder = await startHost(scratch, path)
    const frontend = await connectFrontend(scratch, holder.address, 'vda')
    placeOf(path).spoil('vda')
    expect(await holder.ask('POST', '/exports/vda/renew', {})).toMatchObject({
      unreadable: expect.any(String) as string,
    })
    expect((await frontend.request('WRITE', { offset: 0, data: BLOCK })).error).toBe(0)
    expect(await refusal(holder, 'close', { ...how, timeoutMs: 500 })).toMatchObject({
      code: 'still-draining',
      detail: expect.stringContaining('record repair') as string,
    })
    expect(await holder.status('vda')).toMatchObject({ state: 'closing' })
    await repairRecord(homeOf(path), { nobodyWrites: false })
    expect(newestOf(path)).toMatchObject({ state: 'fenced', generation: 1 })
    const { receipt } = await holder.close('vda')
    expect(newestOf(path)).toMatchObject({ state: 'closed', generation: 1, receipt })
  },
)

test('a record that cannot be understood opens nothing, and says what to do', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const source = await startHost(scratch, path)
  await source.close('vda')
  placeOf(path).spoil('vda')
  expect(await refusal(source, 'open')).toMatchObject({
    status: 409,
    code: 'record-unreadable',
    detail: expect.stringContaining('record show') as string,
  })
  const other = await startHost(scratch, path)
  expect(await other.status('vda')).toMatchObject({ state: 'standby' })
})

test('the record of another image opens nothing', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  await (await startHost(scratch, path)).close('vda')
  copyFileSync(path, `${path}.copy`)
  renameSync(`${path}.copy`, path)
  const other = await startHost(scratch, path, { standby: true })
  expect(await refusal(other, 'open')).toMatchObject({ code: 'image-changed' })
})

test('a symbolic link leads to the same record, a second hard link is refused', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const holder = await startHost(scratch, path)
  const linked = join(scratch.directory('elsewhere'), 'other-name.raw')
  symlinkSync(path, linked)
  const other = await startHost(scratch, linked)
  expect((await other.status('vda')).stateReason).toContain('generation 1')
  await holder.close('vda')
  linkSync(path, `${path}.second`)
  expect(await refusal(other, 'open')).toMatchObject({ code: 'image-links' })
})

test('a renamed image without its record is still refused while its lock is held', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  await startHost(scratch, path)
  renameSync(path, `${path}.renamed`)
  const other = await startHost(scratch, `${path}.renamed`, { standby: true })
  expect(await refusal(other, 'open', { timeoutMs: 200 })).toMatchObject({ code: 'image-in-use' })
})

test('a declared identity is the key of the record in a place of its own', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const { ownership, settings, records } = placeApart(scratch)
  const exports = [{ name: 'vda', path, image_id: 'disk-7' }]
  const daemon = await startDaemon(scratch, { exports, ownershipSettings: settings, ownership })
  expect(records('disk-7')).toHaveLength(2)
  await daemon.close('vda')
  // The same declared image under another inode is the same image.
  copyFileSync(path, `${path}.copy`)
  renameSync(`${path}.copy`, path)
  expect(await daemon.open('vda')).toMatchObject({ generation: 2 })
})

test('whoever loses the image stops at once: writes are refused, and the reason is said', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const holder = await startHost(scratch, path)
  const frontend = await connectFrontend(scratch, holder.address, 'vda')
  await frontend.request('WRITE', { offset: 0, data: BLOCK })
  // As another host would after a fence that did not work.
  const { sequence, ...record } = newestOf(path) as OwnershipRecord & { nonce?: string; checksum?: string }
  const thief = { ...record.holder, host: 'f'.repeat(32), openToken: 'f'.repeat(32), name: 'thief' }
  const home = homeOf(path)
  const { imageId, image, draining } = record
  const draft = { imageId, image, draining, generation: 2, state: 'open', holder: thief } as const
  const stolen = await home.compareAndSwap(sequence, {
    ...{ ...draft, closeReason: null, receipt: null, intent: null, cleared: null },
  })
  expect(stolen.won).toBe(true)
  await eventually('the fence', async () => (await holder.status('vda')).state === 'fenced')
  expect((await holder.status('vda')).stateReason).toContain('ownership is lost to thief')
  expect((await frontend.send('WRITE', { offset: 0, data: BLOCK }).reply).error).toBe(108)
  expect(newestOf(path).holder.name).toBe('thief')
})
