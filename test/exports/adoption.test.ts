/**
 * Images that are not what their record says, and the verb by which an operator takes them as they are: hard links, an
 * image that was replaced, another image under the same key. Nobody who holds an image is pushed aside by it.
 *
 * @module-tag slow
 */

import { copyFileSync, linkSync, renameSync } from 'node:fs'
import { expect, test } from 'vitest'
import type { Daemon } from '../support/daemon.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { adopt, newestOf, placeApart, recordsOf, refusal, refusedToAdopt, startHost } from './ownership-rig.ts'

/** The same bytes under the same name, and another file. */
function replace(path: string): void {
  copyFileSync(path, `${path}.copy`)
  renameSync(`${path}.copy`, path)
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
  const exports = [{ name: 'another', path: makeImage(scratch, MEBIBYTE) }]
  const other = await startHost(scratch, path, { exports, standby: true })
  expect(await other.ctl(['add', `vda=${path}`, '--standby'])).toMatchObject({ status: 1 })
  expect(await other.ctl(['add', `vda=${path}`, '--standby', '--adopt'])).toMatchObject({ status: 0 })
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

test('two images under one key: the second is no copy, and gets an id of its own', async () => {
  const scratch = scratchOfTest()
  const { ownership, settings } = placeApart(scratch)
  const host = (): Promise<Daemon> =>
    startHost(scratch, makeImage(scratch, MEBIBYTE), { ownership, ownershipSettings: settings })
  const [first, second] = [await host(), await host()]
  expect(await first.status('vda')).toMatchObject({ state: 'open' })
  expect((await second.status('vda')).stateReason).toContain('of another image')
  expect((await refusedToAdopt(second, '--copy')).detail).toContain('an image_id of its own')
  expect(await first.status('vda')).toMatchObject({ state: 'open' })
})
