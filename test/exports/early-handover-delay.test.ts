/**
 * How long a guest waits at a handover from a disk that is slow: from the call of the close to the answer of a write
 * elsewhere at the destination, early and plain, on the same hosts. It is measured and printed; what must hold on any
 * machine is that the source's write was still in its disk when the early handover was through. With the record on a slow
 * disk too, the handover costs that disk's writes and is as right.
 *
 * @module-tag slow
 */

import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { connect } from '../../src/client/index.ts'
import { ENGINES, startDaemon } from '../support/daemon.ts'
import type { Daemon, EngineName } from '../support/daemon.ts'
import { eventually } from '../support/eventually.ts'
import { runChecked, runProgram } from '../support/foreign-program.ts'
import { MEBIBYTE } from '../support/image.ts'
import { answerWithin, connectFrontend } from '../support/nbd-frontend.ts'
import type { NbdFrontend, SentRequest } from '../support/nbd-frontend.ts'
import type { Scratch } from '../support/scratch.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { startWitnessDisk } from '../support/witness-disk.ts'
import type { WitnessDisk } from '../support/witness-disk.ts'
import { placeApart, placeWithin } from './ownership-rig.ts'
import type { RecordPlace } from './ownership-rig.ts'

const SLOW_MS = 1_500
const RECORD_SLOW_MS = 100
/** etcd begins with a file of 64 MiB that is mostly nothing. */
const RECORD_DISK_BYTES = 256 * MEBIBYTE
/** As long as a standby waits at least in earnest; what a daemon kept from its last work is gone by then. */
const IDLE_MS = 700
const ROUNDS = Number(process.env['INTERLOCKD_TEST_ROUNDS'] ?? 3)
const OVERLAPPING = 8_192
const ELSEWHERE = 65_536
const OLD = Buffer.alloc(4_096, 0x01)
const NEW = Buffer.alloc(4_096, 0x02)

interface Hosts {
  readonly scratch: Scratch
  readonly disk: WitnessDisk
  readonly source: Daemon
  readonly destination: Daemon
}

interface Moving {
  readonly fresh: NbdFrontend
  /** The write that the source's disk has and keeps. */
  readonly first: SentRequest
}

/** The destination reaches the same bytes below the source's disk: they are two hosts, and one is not slow. */
async function startHosts(scratch: Scratch, engine: EngineName, records: RecordPlace): Promise<Hosts> {
  const disk = await startWitnessDisk(scratch, { scripted: true })
  const host = (path: string): Promise<Daemon> =>
    startDaemon(scratch, {
      exports: [{ name: 'vda', path, image_id: 'disk' }],
      ownership: records.ownership,
      ownershipSettings: records.settings,
      engine,
      tcp: false,
      standby: true,
    })
  return { scratch, disk, source: await host(disk.path), destination: await host(disk.backingPath) }
}

async function beginMoving({ scratch, disk, source, destination }: Hosts): Promise<Moving> {
  await source.open('vda')
  const old = await connectFrontend(scratch, source.address, 'vda')
  const fresh = await connectFrontend(scratch, destination.address, 'vda')
  disk.holdWrites(true)
  const first = old.send('WRITE', { offset: OVERLAPPING, data: OLD })
  await eventually('the write in the disk', () => disk.log.inDisk().length > 0)
  await sleep(IDLE_MS)
  return { fresh, first }
}

/**
 * Milliseconds from the call of the close until a write elsewhere was answered, which the destination had parked. Its
 * opening waits for the close already. The disk keeps the source's write until then.
 */
async function moveEarly({ disk, source, destination }: Hosts, { fresh, first }: Moving): Promise<number> {
  const [from, to] = [connect(source.controlUrl), connect(destination.controlUrl)]
  // Whoever moves a guest has looked at the source before.
  await from.status('vda')
  const opening = to.open('vda', { awaitClose: true, timeoutMs: 60_000 })
  const written = fresh.send('WRITE', { offset: ELSEWHERE, data: NEW })
  await eventually('the opening to wait', async () => (await destination.status('vda')).state === 'opening')
  const calledMs = performance.now()
  const closing = from.close('vda', { early: true })
  const answer = await answerWithin(written, 60_000)
  const answeredMs = performance.now() - calledMs
  expect(answer.error).toBe(0)
  expect(await closing).toMatchObject({ done: false })
  expect(await opening).toMatchObject({ state: 'open' })
  expect(disk.log.inDisk()).toHaveLength(1)
  const overlapping = fresh.send('WRITE', { offset: OVERLAPPING, data: NEW })
  disk.holdWrites(false)
  expect((await answerWithin(overlapping, 60_000)).error).toBe(0)
  expect(disk.log.inDisk()).toEqual([])
  expect((await answerWithin(first, 1_000)).error).toBe(0)
  expect((await fresh.read(OVERLAPPING, 4_096)).equals(NEW)).toBe(true)
  expect((await source.close('vda')).receipt).toMatchObject({ drained: { writes: 1 } })
  return answeredMs
}

/** The same with a close that waits for the disk, which is let go on after a while. */
async function movePlainly({ disk, source, destination }: Hosts, { fresh }: Moving): Promise<number> {
  const calledMs = performance.now()
  const closing = source.close('vda')
  await sleep(SLOW_MS)
  disk.holdWrites(false)
  await closing
  expect(disk.log.inDisk()).toEqual([])
  await destination.open('vda')
  await fresh.request('WRITE', { offset: ELSEWHERE, data: NEW }, 60_000)
  return performance.now() - calledMs
}

/** Both are in standby again. */
async function moveBack({ source, destination }: Hosts): Promise<void> {
  await destination.close('vda')
  for (const daemon of [source, destination]) await daemon.ask('POST', '/exports/vda/standby', {})
}

function medianOf(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Infinity
}

test.each(ENGINES)("a write elsewhere does not wait for the source's disk (%s)", async (engine) => {
  const scratch = scratchOfTest()
  const hosts = await startHosts(scratch, engine, placeApart(scratch))
  const earlyMs: number[] = []
  const plainMs: number[] = []
  for (let round = 0; round < ROUNDS; round += 1) {
    earlyMs.push(await moveEarly(hosts, await beginMoving(hosts)))
    await moveBack(hosts)
    plainMs.push(await movePlainly(hosts, await beginMoving(hosts)))
    await moveBack(hosts)
  }
  const [early, plain] = [medianOf(earlyMs).toFixed(1), medianOf(plainMs).toFixed(1)]
  console.log(
    `${engine}: a write elsewhere answered ${early} ms after an early close was called, ${plain} ms after a plain one ` +
      `(medians of ${ROUNDS}; the disk had a write for ${SLOW_MS} ms)`,
  )
})

test('with the record on a slow disk the handover waits for that disk, and is as right', async () => {
  const scratch = scratchOfTest()
  const recordDisk = await startWitnessDisk(scratch, { writeDelayMs: RECORD_SLOW_MS, sizeBytes: RECORD_DISK_BYTES })
  await runChecked('mkfs.ext4', [
    '-q',
    '-E',
    'nodiscard,lazy_itable_init=0,lazy_journal_init=0',
    recordDisk.backingPath,
  ])
  const mountPath = scratch.directory('slow-records')
  await runChecked('mount', [await recordDisk.attachLoop(), mountPath])
  scratch.defer(`mount ${mountPath}`, async () => {
    await runProgram('umount', [mountPath])
  })
  const records = join(mountPath, 'records')
  mkdirSync(records)
  const hosts = await startHosts(scratch, 'file', await placeWithin(scratch, records))
  const moving = await beginMoving(hosts)
  const before = recordDisk.log.writes().length
  const answeredMs = await moveEarly(hosts, moving)
  const writes = recordDisk.log.writes().length - before
  console.log(
    `record on a disk whose writes take ${RECORD_SLOW_MS} ms: answered after ${answeredMs.toFixed(0)} ms, ` +
      `and ${writes} of its writes when all was over`,
  )
  // `closing`, `opening`, `open`, and the entry's removal: each of them durable.
  expect(writes).toBeGreaterThanOrEqual(4)
  await moveBack(hosts)
})
