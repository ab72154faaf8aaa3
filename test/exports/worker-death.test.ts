/**
 * A data worker that dies of a bug of ours, with a write in a disk that keeps it: what lived on it is fenced at once and
 * says why, its clients are not left waiting, nothing more reaches the disk, and the exports of other workers go on. The
 * image is opened again in the same daemon when what the dead worker had in the kernel has landed, and not before.
 *
 * @module-tag slow
 */

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import type { ExportStatus } from '../../src/exports/verbs.ts'
import { projectFiles } from '../style/project-files.ts'
import { ENGINES } from '../support/daemon.ts'
import type { Daemon, EngineName } from '../support/daemon.ts'
import { eventually } from '../support/eventually.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { answerOrNone, blockNumber, connectFrontend, numberedBlock } from '../support/nbd-frontend.ts'
import type { NbdFrontend, SentRequest } from '../support/nbd-frontend.ts'
import type { Scratch } from '../support/scratch.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { startWitnessDisk } from '../support/witness-disk.ts'
import type { WitnessDisk } from '../support/witness-disk.ts'
import { placeApart, startHost } from './ownership-rig.ts'
import type { RecordPlace } from './ownership-rig.ts'

const POINT = 'worker: order taken'
const REASON = `the data worker died: the fault point '${POINT}' throws`
/** A control plane that waits for the disk would not answer for as long as the write is held. */
const PROMPT_MS = 5_000
/** Long enough for an opening that waits to have tried many times. */
const MANY_TRIES_MS = 1_000
const BLOCK_BYTES = 4_096

interface Rig {
  readonly daemon: Daemon
  readonly disk: WitnessDisk
  readonly place: RecordPlace
  readonly frontend: NbdFrontend
  /** The first is in the disk, the second waits for it. */
  readonly sent: readonly SentRequest[]
  /** Of `fast`. */
  readonly other: NbdFrontend
  /** The next order that any worker takes is its last. */
  arm(): void
}

/** `held` and `fast` live on workers of their own; the disk of the first keeps a write. */
async function startHeld(scratch: Scratch, engine: EngineName): Promise<Rig> {
  const disk = await startWitnessDisk(scratch, { scripted: true })
  const exports = [
    { name: 'held', path: disk.path, image_id: 'held' },
    { name: 'fast', path: makeImage(scratch, MEBIBYTE) },
  ]
  const place = placeApart(scratch)
  const fault = join(scratch.directory('fault'), 'fault')
  const daemon = await startHost(scratch, disk.path, {
    engine,
    exports,
    settings: ['workers = 2'],
    ownership: place.ownership,
    ownershipSettings: place.settings,
    environment: { INTERLOCKD_FAULT_POINT: fault },
  })
  const other = await connectFrontend(scratch, daemon.address, 'fast')
  await other.read(0, BLOCK_BYTES)
  const frontend = await connectFrontend(scratch, daemon.address, 'held')
  disk.holdWrites(true)
  const sent = [1, 2].map((number) => frontend.write(0, numberedBlock(number)))
  await eventually('the write in the disk', () => writesIn(disk) === 1)
  await daemon.untilInFlight('held', sent.length)
  const arm = (): void => {
    writeFileSync(fault, `${POINT}:throw`)
  }
  return { daemon, disk, place, frontend, sent, other, arm }
}

function writesIn(disk: WitnessDisk): number {
  return disk.log.inDisk().filter(({ kind }) => kind === 'Write').length
}

function statusWithin(daemon: Daemon, name: string): Promise<ExportStatus> {
  return daemon.ask<ExportStatus>('GET', `/exports/${name}`, undefined, PROMPT_MS)
}

test('every fault point of the data plane is exercised here', () => {
  const points = projectFiles('src/data').flatMap(({ text }) => [...text.matchAll(/aultPoint\('([^']+)'\)/gu)])
  expect(points.map(([, name]) => name)).toEqual([POINT])
})

describe.each(ENGINES)('with the %s engine', (engine) => {
  test('what lived on it is fenced at once, and opened again when the disk is quiet', async () => {
    const scratch = scratchOfTest()
    const { daemon, disk, place, frontend, sent, other, arm } = await startHeld(scratch, engine)
    arm()
    await statusWithin(daemon, 'held')
    expect(await statusWithin(daemon, 'held')).toMatchObject({ state: 'fenced', generation: 1, stateReason: REASON })
    for (const request of sent) expect((await answerOrNone(request, 0))?.error).not.toBe(0)
    await endWithin(frontend)
    await other.request('WRITE', { offset: 0, data: numberedBlock(3) }, PROMPT_MS)
    expect(await statusWithin(daemon, 'fast')).toMatchObject({ state: 'open', totals: { writes: 1 } })

    const opening = daemon.open('held', { timeoutMs: 60_000 })
    opening.catch(() => undefined)
    await sleep(MANY_TRIES_MS)
    expect((await statusWithin(daemon, 'held')).state).not.toBe('open')
    expect(place.newest('held')).toMatchObject({ state: 'fenced', generation: 1 })
    expect(disk.log.events().filter(({ kind }) => kind === 'Write')).toHaveLength(1)
    disk.holdWrites(false)
    expect(await opening).toMatchObject({ state: 'open', generation: 2, clearedBy: 'lock' })
    expect(disk.log.events().filter(({ kind }) => kind === 'Write')).toHaveLength(1)

    const fresh = await connectFrontend(scratch, daemon.address, 'held')
    expect(blockNumber(await fresh.read(0, BLOCK_BYTES))).toBe(1)
    await fresh.request('WRITE', { offset: 0, data: numberedBlock(4) })
    expect((await daemon.close('held')).receipt).toMatchObject({ generation: 2, aborted: [] })
    expect((await daemon.stop()).status).toBe(0)
  })

  test('a close that is under way is told so, and nothing claims closed', async () => {
    const { daemon, disk, place, arm } = await startHeld(scratchOfTest(), engine)
    const closing = refusal(daemon, 'close')
    await eventually('the close', async () => (await statusWithin(daemon, 'held')).state === 'closing')
    arm()
    await statusWithin(daemon, 'held')
    expect(await closing).toMatchObject({ code: 'worker-died', detail: expect.stringContaining(REASON) as string })
    expect(await statusWithin(daemon, 'held')).toMatchObject({
      state: 'fenced',
      stateReason: REASON,
      lastReceipt: null,
    })
    disk.holdWrites(false)
    expect(await daemon.open('held', { timeoutMs: 60_000 })).toMatchObject({ state: 'open', generation: 2 })
    expect(place.newest('held')).toMatchObject({ state: 'open', generation: 2, cleared: { generation: 1, by: 'lock' } })
  })
})

async function refusal(daemon: Daemon, verb: string): Promise<unknown> {
  const { status, body } = await daemon.api('POST', `/exports/held/${verb}`, {})
  expect(status).toBe(500)
  return body
}

/** It was cut, and not left waiting. */
async function endWithin(frontend: NbdFrontend): Promise<void> {
  let ended = false
  void frontend.ended.then(() => (ended = true))
  await eventually('the end of the connection', () => ended, { timeoutMs: PROMPT_MS })
}
