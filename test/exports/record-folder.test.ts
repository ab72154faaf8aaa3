/**
 * Where daemons look for the records of an image when these are files: beside the real image, wherever a link or a mount
 * leads to it, also when both were copied, and never in /dev; or in a directory of records, where that is the one that it
 * was. In etcd a record is where its key says.
 *
 * @module-tag slow
 */

import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmdirSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import { INTERLOCKCTL, runProgram as runScript } from '../support/control-command.ts'
import { startAgain } from '../support/daemon.ts'
import { runChecked, runProgram } from '../support/foreign-program.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { connectFrontend } from '../support/nbd-frontend.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { adopt, BLOCK, newestOf, refusal, refusedToAdopt, startHost } from './ownership-rig.ts'
import { attachLoop } from './preflight/stack-rig.ts'

test('the record of a block device lies in a directory, never in /dev', async () => {
  const scratch = scratchOfTest()
  const device = await attachLoop(scratch, makeImage(scratch, MEBIBYTE), '--direct-io=on')
  const besides = await startHost(scratch, device, { standby: true })
  expect(await refusal(besides, 'open')).toMatchObject({
    code: 'record-io',
    detail: expect.stringContaining('[ownership] directory') as string,
  })
  expect(existsSync(`${device}.interlock`)).toBe(false)
  const directory = scratch.directory('records')
  const host = await startHost(scratch, device, { ownershipSettings: [`directory = ${JSON.stringify(directory)}`] })
  expect(await host.status('vda')).toMatchObject({ state: 'open', generation: 1 })
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

test('a bind mount of its directory leads to the same record; one of the file alone meets its locks', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const holder = await startHost(scratch, path)
  const bind = async (what: string, where: string): Promise<void> => {
    await runChecked('mount', ['--bind', what, where])
    scratch.defer(`mount ${where}`, async () => {
      await runProgram('umount', [where])
    })
  }
  const elsewhere = scratch.directory('elsewhere')
  await bind(join(path, '..'), elsewhere)
  const other = await startHost(scratch, join(elsewhere, 'vda.raw'), { standby: true })
  expect(await refusal(other, 'open')).toMatchObject({ code: 'held-by-other' })
  const alone = join(scratch.directory('alone'), 'vda.raw')
  writeFileSync(alone, '')
  await bind(path, alone)
  const third = await startHost(scratch, alone, { standby: true })
  expect(await refusal(third, 'open')).toMatchObject({ code: 'image-in-use' })
  await holder.close('vda')
  expect(await other.open('vda')).toMatchObject({ generation: 2 })
  expect(await refusal(third, 'open')).toMatchObject({ code: 'image-in-use' })
})

test('a link that leads to another image by now opens that one by its own record', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const freed = await startHost(scratch, path)
  await freed.close('vda')
  const link = join(scratch.directory('link'), 'vda.raw')
  symlinkSync(path, link)
  const host = await startHost(scratch, link, { standby: true })
  // Of somebody else, and as long as the record of the image that the host knows.
  const held = makeImage(scratch, MEBIBYTE)
  const holder = await startHost(scratch, held)
  for (let count = 0; count < 2; count += 1) await holder.ask('POST', '/exports/vda/renew', {})
  await holder.kill()
  expect([newestOf(path), newestOf(held)]).toMatchObject([
    { sequence: 4, state: 'closed' },
    { sequence: 4, state: 'open' },
  ])
  unlinkSync(link)
  symlinkSync(held, link)
  expect(await refusal(host, 'open')).toMatchObject({ code: 'held-by-other' })
  expect(newestOf(held).sequence).toBe(4)
})

test('a host whose directory of records is not mounted opens nothing beside a holder, until it is', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const directory = join(scratch.directory('storage'), 'records')
  mkdirSync(directory)
  const ownershipSettings = [`directory = ${JSON.stringify(directory)}`]
  // A second export, so that the daemon starts although the first one waits.
  const exports = [
    { name: 'vda', path },
    { name: 'iso', path: makeImage(scratch, MEBIBYTE), read_only: true },
  ]
  const host = await startHost(scratch, path, { exports, ownershipSettings })
  await host.close('vda')
  const holder = await startHost(scratch, path, { ownershipSettings, standby: true })
  expect(await holder.open('vda')).toMatchObject({ generation: 2 })
  await host.stop()
  // Of a host that is cut off no lock is seen here.
  await holder.kill()
  const away = `${directory}-away`
  renameSync(directory, away)
  mkdirSync(directory)
  const rebooted = await startAgain(scratch, host)
  const words = `${directory} is not the directory of records that this host has used`
  expect(await rebooted.status('vda')).toMatchObject({
    state: 'standby',
    stateReason: expect.stringContaining(words) as string,
  })
  const refused = { code: 'record-io', detail: expect.stringContaining('mount it, and ask again') as string }
  expect(await refusal(rebooted, 'open')).toMatchObject(refused)
  expect(await refusal(rebooted, 'open', { takeover: true })).toMatchObject(refused)
  const configuration = join(dirname(host.controlPath), 'interlockd.toml')
  const shown = await runScript(INTERLOCKCTL, ['record', 'show', path, '--config', configuration])
  expect([shown.status, shown.stderr]).toEqual([expect.any(Number), expect.stringContaining(words)])
  expect(shown.status).not.toBe(0)
  expect(readdirSync(directory)).toEqual([])
  rmdirSync(directory)
  renameSync(away, directory)
  expect(await refusal(rebooted, 'open')).toMatchObject({ code: 'held-by-other' })
  const back = await startAgain(scratch, holder)
  expect(await back.open('vda')).toMatchObject({ generation: 3 })
  await back.close('vda')
  expect(await rebooted.open('vda')).toMatchObject({ generation: 4 })
})
