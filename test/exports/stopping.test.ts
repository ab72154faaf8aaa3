/**
 * The end of a daemon whose disks are slow: all exports close at once and within the bound, or the process ends without
 * claiming it; a second signal ends it at once; and what only reads keeps nobody.
 *
 * @module-tag slow
 */

import { expect, test } from 'vitest'
import type { Daemon, LogLine } from '../support/daemon.ts'
import { eventually } from '../support/eventually.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { connectFrontend } from '../support/nbd-frontend.ts'
import type { Scratch } from '../support/scratch.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { startWitnessDisk } from '../support/witness-disk.ts'
import type { WitnessDisk } from '../support/witness-disk.ts'
import { BLOCK, placeApart, startHost } from './ownership-rig.ts'
import type { RecordPlace } from './ownership-rig.ts'

const KILLED = 128 + 9

interface Rig {
  readonly daemon: Daemon
  readonly disk: WitnessDisk
  readonly place: RecordPlace
}

/** Two exports, the first of them with a write in a disk that keeps it; its record is elsewhere. */
async function startHeld(scratch: Scratch, closeTimeout: string): Promise<Rig> {
  const disk = await startWitnessDisk(scratch, { scripted: true })
  const exports = [
    { name: 'held', path: disk.path },
    { name: 'fast', path: makeImage(scratch, MEBIBYTE) },
  ]
  const place = placeApart(scratch)
  const { ownership, settings } = place
  const ownershipSettings = [...settings, '[limits]', `close_timeout = "${closeTimeout}"`]
  const daemon = await startHost(scratch, disk.path, { exports, ownership, ownershipSettings })
  const frontend = await connectFrontend(scratch, daemon.address, 'held')
  disk.holdWrites(true)
  frontend.send('WRITE', { offset: 0, data: BLOCK })
  await eventually('the write in the disk', () => disk.log.inDisk().length > 0)
  return { daemon, disk, place }
}

/** The last words of a daemon that ends without having closed; the kernel keeps it for as long as the disk has its write. */
async function fatalWords({ daemon, disk }: Rig): Promise<string> {
  const fatal = (): LogLine | undefined => daemon.log.find(({ level }) => level === 'fatal')
  await daemon.program.until('its last words', 60_000, () => fatal() !== undefined)
  disk.holdWrites(false)
  expect((await daemon.program.exited).status).toBe(KILLED)
  expect(daemon.log.at(-1)).toEqual(fatal())
  return String(fatal()?.['msg'])
}

function transitions({ log }: Daemon): unknown[] {
  return log
    .filter(({ msg, to }) => msg === 'transition' && (to === 'closing' || to === 'closed'))
    .map((line) => `${String(line['export'])} ${String(line['to'])}`)
}

test('all exports close at once: a slow disk delays no other', async () => {
  const { daemon, disk } = await startHeld(scratchOfTest(), '60s')
  const ending = daemon.stop()
  const before = ['held closing', 'fast closing', 'fast closed']
  await daemon.program.until('the other to be closed', 30_000, () => transitions(daemon).length === before.length)
  expect(transitions(daemon)).toEqual(before)
  disk.holdWrites(false)
  expect((await ending).status).toBe(0)
  expect(transitions(daemon)).toEqual([...before, 'held closed'])
})

test('what is not closed within the bound is named, never claimed, and the process ends', async () => {
  const rig = await startHeld(scratchOfTest(), '4s')
  const { daemon, place } = rig
  daemon.program.signal('SIGTERM')
  expect(await fatalWords(rig)).toMatch(/^not closed: held: still closing/)
  expect(transitions(daemon)).toContain('held closing')
  expect(transitions(daemon)).not.toContain('held closed')
  expect(place.newest('held')).toMatchObject({ state: 'closing', receipt: null })
})

test('a second SIGTERM ends it at once, and the record does not say closed', async () => {
  const rig = await startHeld(scratchOfTest(), '60s')
  const { daemon, place } = rig
  daemon.program.signal('SIGTERM')
  await daemon.program.until('the closes', 30_000, () => transitions(daemon).includes('fast closed'))
  await eventually('the record of the other close', () => place.newest('held')?.state === 'closing')
  daemon.program.signal('SIGTERM')
  expect(await fatalWords(rig)).toContain('for the second time')
  expect(transitions(daemon)).not.toContain('held closed')
  expect(place.newest('held')).toMatchObject({ state: 'closing', receipt: null })
})

test('a standby whose disk does not answer keeps no daemon from ending', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const disk = await startWitnessDisk(scratch, {})
  const exports = [
    { name: 'dead', path: disk.path, standby: true },
    { name: 'vda', path },
  ]
  const { ownership, settings, newest } = placeApart(scratch)
  const daemon = await startHost(scratch, path, { exports, ownership, ownershipSettings: settings })
  const frontend = await connectFrontend(scratch, daemon.address, 'dead')
  scratch.defer('the stopped disk', () => {
    disk.freeze(false)
  })
  disk.freeze(true)
  frontend.send('READ', { offset: 0, length: 4096 })
  await daemon.untilInFlight('dead', 1)
  const ending = daemon.program.stop('SIGTERM', 60_000)
  await daemon.program.until('the warning', 30_000, () =>
    daemon.program.stderr.includes('an image that does not answer'),
  )
  expect(newest('vda')).toMatchObject({ state: 'closed', closeReason: 'shutdown' })
  disk.freeze(false)
  expect([0, KILLED]).toContain((await ending).status)
})
