/**
 * The start of a daemon one of whose images is not free yet, or does not answer: the others are opened and served, the
 * control socket answers, and the one that waits says what it waits for.
 *
 * @module-tag slow
 */

import { join } from 'node:path'
import { expect, test } from 'vitest'
import { spawnNode, waitForLine } from '../support/child-process.ts'
import type { Daemon } from '../support/daemon.ts'
import { eventually } from '../support/eventually.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { connectFrontend } from '../support/nbd-frontend.ts'
import type { Scratch } from '../support/scratch.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { startWitnessDisk } from '../support/witness-disk.ts'
import { BLOCK, placeApart, startHost } from './ownership-rig.ts'

const HOLDER_RIG = join(import.meta.dirname, '../ownership/holder-rig.mjs')

async function writes(scratch: Scratch, daemon: Daemon, exportName: string): Promise<void> {
  const frontend = await connectFrontend(scratch, daemon.address, exportName)
  expect((await frontend.request('WRITE', { offset: 0, data: BLOCK })).error).toBe(0)
}

test('a lock that is held delays neither the other exports nor control, and is waited for', async () => {
  const scratch = scratchOfTest()
  const [path, other] = [makeImage(scratch, MEBIBYTE), makeImage(scratch, MEBIBYTE)]
  const exports = [
    { name: 'vda', path },
    { name: 'vdb', path: other },
  ]
  const first = await startHost(scratch, path, { exports })
  await first.kill()
  // As writes of the last run would that have not cleared.
  const holder = spawnNode(HOLDER_RIG, [path, '1'])
  await waitForLine(holder, /^locked$/)
  const second = await startHost(scratch, path, { exports, stateDirectory: first.stateDirectory })
  const waiting = await eventually('the wait', async () => {
    const status = await second.status('vda')
    return status.state === 'opening' && status.stateReason !== null && status
  })
  expect(waiting.stateReason).toMatch(/its lock is waited for: .*the last of its writes have not cleared yet/)
  expect(await second.status('vdb')).toMatchObject({ state: 'open', generation: 2, clearedBy: 'lock' })
  await writes(scratch, second, 'vdb')
  expect(await second.status('vda')).toMatchObject({ state: 'opening' })
  await holder.stop('SIGKILL')
  await eventually('the opening', async () => (await second.status('vda')).state === 'open')
  expect(await second.status('vda')).toMatchObject({ generation: 2, clearedBy: 'lock', stateReason: null })
  await writes(scratch, second, 'vda')
})

test('a daemon that is told to stop while a lock is waited for stops, and has opened nothing', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const first = await startHost(scratch, path)
  await first.kill()
  const holder = spawnNode(HOLDER_RIG, [path, '1'])
  await waitForLine(holder, /^locked$/)
  const second = await startHost(scratch, path, { stateDirectory: first.stateDirectory })
  await eventually('the wait', async () => (await second.status('vda')).state === 'opening')
  expect((await second.stop()).status).toBe(0)
  await holder.stop('SIGKILL')
})

test('an image that does not answer delays the others for a while only', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const disk = await startWitnessDisk(scratch, {})
  const exports = [
    { name: 'dead', path: disk.path },
    { name: 'vda', path },
  ]
  scratch.defer('the stopped disk', () => {
    disk.freeze(false)
  })
  disk.freeze(true)
  const { ownership, settings } = placeApart(scratch)
  const daemon = await startHost(scratch, path, { exports, ownership, ownershipSettings: settings })
  await writes(scratch, daemon, 'vda')
  expect(await daemon.status('dead')).toMatchObject({ state: 'standby', size: 0 })
  disk.freeze(false)
  await eventually('the opening', async () => (await daemon.status('dead')).state === 'open', { timeoutMs: 60_000 })
  await writes(scratch, daemon, 'dead')
})
