/**
 * The end of a daemon whose disks are slow: all exports close at once and within the bound, or the process ends without
 * claiming it; a second signal ends it at once; and what only reads keeps nobody.
 *
 * @module-tag slow
 */

import { expect, test } from 'vitest'
import type { Daemon } from '../support/daemon.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { connectFrontend } from '../support/nbd-frontend.ts'
import type { Scratch } from '../support/scratch.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { startWitnessDisk } from '../support/witness-disk.ts'
import { BLOCK, newestOf, startHost } from './ownership-rig.ts'

const KILLED = 128 + 9

/** Two exports, the first of them on a disk whose writes take that long, with its record on a normal one. */
async function startSlow(scratch: Scratch, writeDelayMs: number, closeTimeout: string): Promise<Daemon> {
  const disk = await startWitnessDisk(scratch, { writeDelayMs })
  const exports = [
    { name: 'slow', path: disk.path },
    { name: 'fast', path: makeImage(scratch, MEBIBYTE) },
  ]
  const directory = scratch.directory('records')
  const ownershipSettings = [
    `directory = ${JSON.stringify(directory)}`,
    '[limits]',
    `close_timeout = "${closeTimeout}"`,
  ]
  const daemon = await startHost(scratch, directory, { exports, ownershipSettings })
  const frontend = await connectFrontend(scratch, daemon.address, 'slow')
  frontend.send('WRITE', { offset: 0, data: BLOCK })
  await daemon.untilInFlight('slow', 1)
  return daemon
}

function transitions({ log }: Daemon): unknown[] {
  return log
    .filter(({ msg, to }) => msg === 'transition' && (to === 'closing' || to === 'closed'))
    .map((line) => `${String(line['export'])} ${String(line['to'])}`)
}

test('all exports close at once: a slow disk delays no other', async () => {
  const daemon = await startSlow(scratchOfTest(), 2_000, '60s')
  expect((await daemon.stop()).status).toBe(0)
  expect(transitions(daemon)).toEqual(['slow closing', 'fast closing', 'fast closed', 'slow closed'])
})

test('what is not closed within the bound is named, never claimed, and the process ends', async () => {
  const scratch = scratchOfTest()
  const daemon = await startSlow(scratch, 8_000, '1s')
  expect((await daemon.stop()).status).toBe(KILLED)
  expect(daemon.log.at(-1)).toMatchObject({
    level: 'fatal',
    msg: expect.stringMatching(/^not closed: slow: still closing/),
  })
  expect(transitions(daemon)).toContain('slow closing')
  expect(transitions(daemon)).not.toContain('slow closed')
})

test('a second SIGTERM ends it at once, and the record does not say closed', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const disk = await startWitnessDisk(scratch, { writeDelayMs: 8_000, backingPath: path })
  const ownershipSettings = [`directory = ${JSON.stringify(scratch.directory('records'))}`]
  const daemon = await startHost(scratch, disk.path, { ownershipSettings })
  const frontend = await connectFrontend(scratch, daemon.address, 'vda')
  frontend.send('WRITE', { offset: 0, data: BLOCK })
  await daemon.untilInFlight('vda', 1)
  daemon.program.signal('SIGTERM')
  await daemon.program.until('the close', 10_000, () => transitions(daemon).length === 1)
  daemon.program.signal('SIGTERM')
  expect((await daemon.program.exited).status).toBe(KILLED)
  expect(daemon.log.at(-1)).toMatchObject({ level: 'fatal', msg: expect.stringContaining('for the second time') })
  expect(transitions(daemon)).toEqual(['vda closing'])
})

test('a standby whose disk does not answer keeps no daemon from ending', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const disk = await startWitnessDisk(scratch, {})
  const exports = [
    { name: 'dead', path: disk.path, standby: true },
    { name: 'vda', path },
  ]
  const daemon = await startHost(scratch, path, { exports })
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
  expect(newestOf(path)).toMatchObject({ state: 'closed', closeReason: 'shutdown' })
  disk.freeze(false)
  expect([0, KILLED]).toContain((await ending).status)
})
