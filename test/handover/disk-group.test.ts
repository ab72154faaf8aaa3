/**
 * Several disks of one guest, handed over together by the library, as docs/orchestrating.md shows it: all of them arrive,
 * or, where one is refused, all of them are at the source again, those too that the destination had opened already.
 *
 * @module-tag slow
 */

import { symlinkSync, unlinkSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { DiskGroup, DiskHandover, StepFailed } from '../../src/handover/index.ts'
import type { Daemon } from '../support/daemon.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { diskOf, startEnd } from './handover-rig.ts'

const NAMES = ['vda', 'vdb'] as const

const groupOf = (source: Daemon, destination: Daemon): DiskGroup =>
  new DiskGroup(NAMES.map((name) => new DiskHandover({ ...diskOf(source, destination), name })))

const statesOf = (daemon: Daemon): Promise<string[]> =>
  Promise.all(NAMES.map(async (name) => (await daemon.status(name)).state))

test('all disks arrive; where one cannot be opened, all go back', async () => {
  const scratch = scratchOfTest()
  const paths = NAMES.map(() => makeImage(scratch, MEBIBYTE))
  const link = join(scratch.directory('link'), 'vdb.raw')
  symlinkSync(paths[1] ?? '', link)
  const exportsOver = (...over: readonly (string | undefined)[]) =>
    NAMES.map((name, index) => ({ name, path: over[index] ?? '' }))
  const one = await startEnd(scratch, '', { exports: exportsOver(...paths) })
  const two = await startEnd(scratch, '', { exports: exportsOver(paths[0], link), standby: true })

  const there = groupOf(one, two)
  expect((await there.stand()).map(({ kind }) => kind)).toEqual(['start', 'start'])
  expect((await there.preflight()).map(({ ready }) => ready)).toEqual([true, true])
  await there.standby()
  await there.beginClose()
  expect((await there.awaitClosed()).map((receipt) => receipt?.generation)).toEqual([1, 1])
  await there.open()
  await there.verify()
  expect(await statesOf(two)).toEqual(['open', 'open'])
  expect(await statesOf(one)).toEqual(['closed', 'closed'])

  const back = groupOf(two, one)
  await back.standby()
  await back.beginClose()
  await back.awaitClosed()
  await back.open()

  const refused = groupOf(one, two)
  await refused.standby()
  await refused.beginClose()
  await refused.awaitClosed()
  unlinkSync(link)
  const error = await refused.open().catch((thrown: unknown) => thrown)
  if (!(error instanceof StepFailed)) throw error
  expect(error.failure).toMatchObject({ step: 'open', code: 'image-missing' })
  expect(error.failure.message).toMatch(/^vdb: /u)
  expect(await statesOf(two)).toEqual(['open', 'standby'])
  const endings = await refused.wayBack(error.failure)
  await refused.finish(endings)
  expect(endings.map(({ kind }) => kind)).toEqual(['broughtBack', 'broughtBack'])
  expect(await statesOf(one)).toEqual(['open', 'open'])
  expect(await statesOf(two)).toEqual(['closed', 'standby'])
})
