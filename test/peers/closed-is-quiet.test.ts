/**
 * Closed is quiet, sworn by a stranger: under the image lies a slow disk whose log says when each write and flush began
 * and ended. With writes in flight, a close is answered only after all of that; and afterwards nothing more is logged,
 * whatever clients send. qemu-nbd is asked the same, to show that the disk sees a server which does not keep it.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { ENGINES, startDaemon } from '../support/daemon.ts'
import type { Closed, Daemon, EngineName } from '../support/daemon.ts'
import { eventually } from '../support/eventually.ts'
import { startQemuNbd } from '../support/foreign-server.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { answerOrNone, answerWithin, connectFrontend, numberedBlock } from '../support/nbd-frontend.ts'
import type { NbdFrontend, SentRequest } from '../support/nbd-frontend.ts'
import type { Scratch } from '../support/scratch.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { startWitnessDisk } from '../support/witness-disk.ts'
import type { WitnessDisk } from '../support/witness-disk.ts'

const BLOCK_BYTES = 4_096
const WRITE_DELAY_MS = 300

interface Rig {
  readonly disk: WitnessDisk
  readonly daemon: Daemon
  readonly frontend: NbdFrontend
}

async function startRig(
  scratch: Scratch,
  engine: EngineName,
  durability: 'sync' | 'writeback' = 'sync',
  writeDelayMs = WRITE_DELAY_MS,
): Promise<Rig> {
  const disk = await startWitnessDisk(scratch, { writeDelayMs })
  const daemon = await startDaemon(scratch, { engine, exports: [{ name: 'vda', path: disk.path, durability }] })
  // Whoever waits for a stopped disk cannot be killed.
  scratch.defer('the stopped disk', () => {
    disk.freeze(false)
  })
  return { disk, daemon, frontend: await connectFrontend(scratch, daemon.address, 'vda') }
}

/** A close that begins while the disk is stopped and has seen none of the writes: no clock decides what is in flight. */
async function closeInFlight({ daemon, disk }: Rig, options: Readonly<Record<string, unknown>> = {}): Promise<Closed> {
  const closing = daemon.close('vda', options)
  await eventually('the close to begin', async () => (await daemon.status('vda')).state === 'closing')
  // A worker takes its orders in turn: with another answer the gate is shut.
  await daemon.status('vda')
  letGo(disk)
  return closing
}

function letGo(disk: WitnessDisk): void {
  expect(disk.log.writes(), 'the writes are in flight when the close begins').toEqual([])
  disk.freeze(false)
}

/** Blocks 0 to count - 1, with the numbers that follow `above`. */
function writeBlocks(frontend: NbdFrontend, count: number, above: number): SentRequest[] {
  return Array.from({ length: count }, (_, index) =>
    frontend.write(index * BLOCK_BYTES, numberedBlock(above + index + 1)),
  )
}

describe.each(ENGINES)('closed is quiet, with the %s engine', (engine) => {
  test.each(['sync', 'writeback'] as const)('with writes in flight, durability %s', async (durability) => {
    const scratch = scratchOfTest()
    const rig = await startRig(scratch, engine, durability)
    const { disk, daemon, frontend } = rig
    disk.freeze(true)
    const sent = writeBlocks(frontend, 4, 0)
    await daemon.untilInFlight('vda', 4)

    const { receipt, answeredMs } = await closeInFlight(rig)
    expect(disk.log.writes(), 'each of them has reached the disk').toHaveLength(4)
    expect(disk.log.wasQuietAt(answeredMs), 'ended and flushed before the close was answered').toBe(true)
    expect(receipt).toMatchObject({ state: 'closed', durability, drained: { writes: 4, bytes: 4 * BLOCK_BYTES } })
    expect(receipt).toMatchObject({ aborted: [], indeterminate: [], reason: 'handover', clearedBy: 'drain' })
    for (const request of sent) expect((await answerWithin(request, 1_000)).error).toBe(0)

    const late = writeBlocks(frontend, 4, 100)
    const newcomer = await connectFrontend(scratch, daemon.address, 'vda').catch(() => undefined)
    const later = newcomer === undefined ? [] : writeBlocks(newcomer, 4, 200)
    frontend.send('FLUSH')
    frontend.send('TRIM', { offset: 0, length: MEBIBYTE })
    frontend.send('WRITE_ZEROES', { offset: 0, length: MEBIBYTE })
    frontend.drop()
    await sleep(3 * WRITE_DELAY_MS)
    expect(disk.log.changesAfter(answeredMs), 'nothing reaches the disk after the close').toEqual([])
    for (const request of [...late, ...later]) {
      expect((await answerOrNone(request, 0))?.error, 'nothing is answered as done').not.toBe(0)
    }
    expect((await daemon.close('vda')).receipt, 'asked again, the same receipt').toEqual(receipt)
  })

  test('an idle export is flushed all the same', async () => {
    const { disk, daemon } = await startRig(scratchOfTest(), engine)
    const begunMs = Date.now()
    const { answeredMs } = await daemon.close('vda')
    expect(disk.log.flushBetween(begunMs, answeredMs)).toBeDefined()
  })

  test('SIGTERM closes: the process ends after the flush, with status 0', async () => {
    const { disk, daemon, frontend } = await startRig(scratchOfTest(), engine)
    disk.freeze(true)
    const sent = writeBlocks(frontend, 4, 0)
    await daemon.untilInFlight('vda', 4)
    const stopping = daemon.stop()
    const closes = (): boolean => daemon.log.some(({ msg, to }) => msg === 'transition' && to === 'closing')
    await daemon.program.until('the close to begin', 30_000, closes)
    letGo(disk)
    const { status } = await stopping
    const endedMs = Date.now() + 1
    expect(status).toBe(0)
    expect(disk.log.wasQuietAt(endedMs)).toBe(true)
    for (const request of sent) expect((await answerWithin(request, 1_000)).error).toBe(0)
  })

  test('what is named aborted never reaches the disk', async () => {
    const rig = await startRig(scratchOfTest(), engine)
    const { disk, daemon, frontend } = rig
    disk.freeze(true)
    frontend.write(0, numberedBlock(1))
    const waiting = [2, 3].map((number) => frontend.write(0, numberedBlock(number)))
    await daemon.untilInFlight('vda', 3)
    const { receipt, answeredMs } = await closeInFlight(rig, { unsubmitted: 'abort' })
    expect(disk.log.wasQuietAt(answeredMs)).toBe(true)
    expect(receipt.aborted).toMatchObject(
      waiting.map(({ cookie }) => ({
        cookie: cookie.toString(16).padStart(16, '0'),
        command: 'WRITE',
        offset: 0,
        length: BLOCK_BYTES,
      })),
    )
    await frontend.ended
    await sleep(2 * WRITE_DELAY_MS)
    expect(disk.log.writes(), 'only the write that could not be recalled').toHaveLength(1)
    for (const request of waiting) expect(await answerOrNone(request, 0)).toBeUndefined()
  })

  test('a close that runs out of time says what is left, and gives the receipt when asked again', async () => {
    // Slow enough that interlockctl starts, waits and ends while the disk is busy, also on a busy machine.
    const { disk, daemon, frontend } = await startRig(scratchOfTest(), engine, 'sync', 1_500)
    const sent = writeBlocks(frontend, 8, 0)
    await daemon.untilInFlight('vda', 8)
    const early = await daemon.ctl(['close', 'vda', '--timeout', '300ms'])
    expect(early.status, early.stderr).toBe(4)
    expect(disk.log.allEndedBefore(Date.now()), 'it was not over').toBe(false)
    expect((await daemon.status('vda')).state).toBe('closing')
    expect(`${early.stdout}${early.stderr}`).toMatch(/"?submitted"?|outstanding/u)
    const late = await daemon.ctl(['close', 'vda', '--timeout', '30s'])
    const answeredMs = Date.now() + 1
    expect(late.status, late.stderr).toBe(0)
    expect(JSON.parse(late.stdout)).toMatchObject({ state: 'closed', aborted: [], indeterminate: [] })
    expect(disk.log.wasQuietAt(answeredMs)).toBe(true)
    for (const request of sent) expect((await answerWithin(request, 1_000)).error).toBe(0)
  })

  test.each(['TRIM', 'WRITE_ZEROES', 'WRITE'] as const)('%s is flushed before its answer', async (command) => {
    const { disk, frontend } = await startRig(scratchOfTest(), engine)
    const fields = command === 'WRITE' ? { data: numberedBlock(1, 64 * 1024) } : { length: 64 * 1024 }
    const { arrivedMs } = await frontend.request(command, { offset: MEBIBYTE, ...fields })
    expect(disk.log.writes().length, 'it reached the disk').toBeGreaterThan(0)
    expect(disk.log.wasQuietAt(arrivedMs), 'ended and flushed before it was answered').toBe(true)
  })

  test('a client that does not read its answers delays no close', async () => {
    const scratch = scratchOfTest()
    const image = makeImage(scratch, 8 * MEBIBYTE)
    const daemon = await startDaemon(scratch, { engine, exports: [{ name: 'vda', path: image, clients: 'shared' }] })
    const silent = await connectFrontend(scratch, daemon.address, 'vda')
    silent.stopReading()
    for (let index = 0; index < 64; index += 1) silent.send('READ', { offset: 0, length: MEBIBYTE })
    const honest = await connectFrontend(scratch, daemon.address, 'vda')
    await honest.request('WRITE', { offset: 0, data: numberedBlock(1) })
    const begunMs = Date.now()
    await daemon.close('vda')
    // It never reads: a close that waits for it has no end.
    expect(Date.now() - begunMs).toBeLessThan(20_000)
  })
})

test('the rig sees a server that is not quiet: qemu-nbd after NBD_CMD_DISC', async () => {
  const scratch = scratchOfTest()
  const disk = await startWitnessDisk(scratch, { writeDelayMs: WRITE_DELAY_MS })
  const server = await startQemuNbd(scratch, disk.path, 'vda', 'none')
  const frontend = await connectFrontend(scratch, server.address, 'vda')
  scratch.defer('the stopped disk', () => {
    disk.freeze(false)
  })
  disk.freeze(true)
  const sent = writeBlocks(frontend, 4, 0)
  await frontend.disconnect()
  const endedMs = Date.now()
  disk.freeze(false)
  await eventually('the end of all writes', () => disk.log.writes().length === 4 && disk.log.inDisk().length === 0)
  expect(disk.log.wasQuietAt(endedMs)).toBe(false)
  expect(disk.log.changesAfter(endedMs).length, 'old writes reach the disk after the end').toBeGreaterThan(0)
  const answers = await Promise.all(sent.map((request) => answerOrNone(request, 0)))
  expect(answers.filter((answer) => answer === undefined).length, 'and their answers are lost').toBeGreaterThan(0)
})
