/**
 * Images that are not what their record says, and the verb by which an operator takes them as they are: hard links, an
 * image that was replaced, a copy that came with its record. Nobody who holds an image is pushed aside by it.
 *
 * @module-tag slow
 */

import { copyFileSync, cpSync, linkSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { Daemon } from '../support/daemon.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { connectFrontend } from '../support/nbd-frontend.ts'
import type { Scratch } from '../support/scratch.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { BLOCK, newestOf, recordsOf, refusal, startHost } from './ownership-rig.ts'

/** The same bytes under the same name, and another file. */
function replace(path: string): void {
  copyFileSync(path, `${path}.copy`)
  renameSync(`${path}.copy`, path)
}

async function adopt(daemon: Daemon, ...flags: string[]): Promise<void> {
  const { status, stderr } = await daemon.ctl(['adopt', 'vda', ...flags])
  expect([status, stderr]).toEqual([0, ''])
}

async function refusedToAdopt(daemon: Daemon, ...flags: string[]): Promise<{ code: string; detail: string }> {
  const { status, stderr } = await daemon.ctl(['adopt', 'vda', ...flags])
  expect(status).toBe(3)
  return JSON.parse(stderr) as { code: string; detail: string }
}

test('hard links are served once they are adopted, and one more is refused again', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  linkSync(path, `${path}.second`)
  const daemon = await startHost(scratch, path)
  expect((await daemon.status('vda')).stateReason).toContain('2 hard links')
  expect(await refusal(daemon, 'open')).toMatchObject({ code: 'image-links' })
  await adopt(daemon)
  await adopt(daemon)
  expect(recordsOf(path)).toMatchObject([{ state: 'closed', generation: 1, receipt: null, image: { links: 2 } }])
  expect(await daemon.status('vda')).toMatchObject({ state: 'standby', size: MEBIBYTE, stateReason: null })
  expect(await daemon.open('vda')).toMatchObject({ generation: 2 })
  await daemon.close('vda')
  linkSync(path, `${path}.third`)
  expect(await refusal(daemon, 'open')).toMatchObject({ code: 'image-links' })
  const other = await startHost(scratch, makeImage(scratch, MEBIBYTE), { standby: true })
  expect(await other.ctl(['add', `linked=${path}`, '--standby'])).toMatchObject({ status: 1 })
  expect(await other.ctl(['add', `linked=${path}`, '--standby', '--adopt'])).toMatchObject({ status: 0 })
  expect(newestOf(path)).toMatchObject({ state: 'closed', generation: 2, image: { links: 3 } })
})

test('an image that was replaced is adopted when it is closed, and its generations and receipt go on', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const holder = await startHost(scratch, path)
  const other = await startHost(scratch, path, { standby: true })
  replace(path)
  expect(await refusal(other, 'open')).toMatchObject({ code: 'image-changed' })
  const held = await refusedToAdopt(other)
  expect(held).toMatchObject({ code: 'held-by-other' })
  expect(held.detail).toMatch(/has generation 1, which is open: 'close' it there first/)
  expect(await holder.status('vda')).toMatchObject({ state: 'open' })
  const { receipt } = await holder.close('vda')
  await adopt(other)
  expect(newestOf(path)).toMatchObject({ state: 'closed', generation: 1, receipt: { nonce: receipt.nonce } })
  expect(await other.open('vda')).toMatchObject({ generation: 2 })
  expect((await holder.close('vda')).receipt).toEqual(receipt)
})

test('a copy with its record begins a life of its own, and the original does not notice', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const original = await startHost(scratch, path)
  const frontend = await connectFrontend(scratch, original.address, 'vda')
  const folder = scratch.directory('copied-image')
  const copied = join(folder, 'vda.raw')
  copyFileSync(path, copied)
  cpSync(`${path}.interlock`, `${copied}.interlock`, { recursive: true })
  const host = await startHost(scratch, copied)
  expect((await host.status('vda')).stateReason).toContain('of another image')
  expect((await refusedToAdopt(host)).detail).toContain("'adopt --copy'")
  await adopt(host, '--copy')
  expect(newestOf(copied)).toMatchObject({ state: 'closed', generation: 2, receipt: null })
  expect(await host.open('vda')).toMatchObject({ generation: 3 })
  expect((await frontend.request('WRITE', { offset: 0, data: BLOCK })).error).toBe(0)
  expect(newestOf(path)).toMatchObject({ state: 'open', generation: 1 })
  await host.close('vda')
  // What is adopted needs no more: asked again it is the same.
  const sequence = newestOf(copied).sequence
  await adopt(host, '--copy')
  expect(newestOf(copied).sequence).toBe(sequence)
})

test('two images under one key in a directory of records: the second is no copy, and gets an id of its own', async () => {
  const scratch = scratchOfTest()
  const ownershipSettings = [`directory = ${JSON.stringify(scratch.directory('records'))}`]
  const first = await makeHost(scratch, ownershipSettings)
  const second = await makeHost(scratch, ownershipSettings)
  expect(await first.status('vda')).toMatchObject({ state: 'open' })
  expect((await second.status('vda')).stateReason).toContain('of another image')
  expect((await refusedToAdopt(second, '--copy')).detail).toContain('an image_id of its own')
  expect(await first.status('vda')).toMatchObject({ state: 'open' })
})

function makeHost(scratch: Scratch, ownershipSettings: readonly string[]): Promise<Daemon> {
  return startHost(scratch, makeImage(scratch, MEBIBYTE), { ownershipSettings })
}
