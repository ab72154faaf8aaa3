/**
 * `interlockctl record show|repair` on records in etcd: found by a configuration, with their history as far as etcd keeps
 * it, and repaired by the same rules as those in a directory.
 */

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { OwnershipRecord } from '../../src/ownership/home.ts'
import { repairRecord } from '../../src/ownership/record-repair.ts'
import { NO_RECORD, refusal } from '../exports/ownership-rig.ts'
import type { RecordPlace } from '../exports/ownership-rig.ts'
import { draftOf } from '../ownership/record-samples.ts'
import { INTERLOCKCTL, runProgram } from '../support/control-command.ts'
import { startDaemon } from '../support/daemon.ts'
import type { Daemon } from '../support/daemon.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { etcdOfFile, homeAt, placesIn } from './etcd-rig.ts'

const etcd = etcdOfFile()

interface Rig {
  readonly path: string
  readonly place: RecordPlace
  readonly daemon: Daemon
  record(...argv: string[]): ReturnType<typeof runProgram>
}

/** A daemon that has opened, and the program with the same configuration. */
async function makeRig(): Promise<Rig> {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const place = placesIn(() => etcd.cluster).apart(scratch)
  const { ownership, settings } = place
  const exports = [{ name: 'vda', path }]
  const daemon = await startDaemon(scratch, {
    exports,
    engine: 'file',
    tcp: false,
    ownership,
    ownershipSettings: settings,
  })
  const configuration = join(scratch.directory('configuration'), 'interlockd.toml')
  const lines = ['[ownership]', 'kind = "etcd"', ...settings, '[[export]]', 'name = "vda"', `path = "${path}"`]
  writeFileSync(configuration, lines.join('\n'))
  const record = (...argv: string[]) => runProgram(INTERLOCKCTL, ['record', ...argv, '--config', configuration])
  return { path, place, daemon, record }
}

test('show prints the history of the key, by the configuration, wherever the image is', async () => {
  const { path, place, daemon, record } = await makeRig()
  await daemon.close('vda')
  const json = await record('show', path, '-o', 'json')
  expect(json).toMatchObject({ status: 0, stderr: '' })
  const shown = JSON.parse(json.stdout) as { place: string; records: { valid: boolean; record: OwnershipRecord }[] }
  expect(shown.place).toMatch(/^the key .*vda of etcd at http/)
  expect(shown.records.map(({ valid, record: { state } }) => `${String(valid)} ${state}`)).toEqual([
    ...['true opening', 'true open', 'true closing', 'true closed'],
  ])
  expect(shown.records.at(-1)?.record.receipt).toEqual(place.records('vda').at(-1)?.receipt)
  const elsewhere = await record('show', '/not/on/this/host.raw', '--image-id', 'vda')
  expect(elsewhere.stdout).toMatch(/^state +closed for handover$/m)
  const unknown = await record('show', '/not/on/this/host.raw')
  expect(unknown.status).toBe(1)
  expect(unknown.stderr).toContain('give --image-id')
  await etcd.cluster.checked(['compact', String(await etcd.cluster.revision())])
  const compacted = await record('show', path)
  expect(compacted.stdout.split('\n').slice(1, 3).join('|')).toMatch(/^ +4 +yes +closed .*\|$/)
})

test('a torn record is repaired as in a directory: kept aside, carried on as fenced, and opened by the lock', async () => {
  const { path, place, daemon, record } = await makeRig()
  await daemon.kill()
  place.spoil('vda')
  const torn = await record('show', path)
  expect(torn.stdout).toMatch(/^ +3 +NO /m)
  const plan = await record('repair', path, '--dry-run')
  expect(plan.stdout).toMatch(/^would write record 4 on top of the unreadable 3: fenced, generation 1/)
  const repaired = await record('repair', path)
  expect(repaired).toMatchObject({ status: 0, stderr: '' })
  const [, aside = ''] = /kept as the key (\S+)/u.exec(repaired.stdout) ?? []
  expect((await etcd.cluster.checked(['get', aside, '--print-value-only'])).trimEnd()).toBe(NO_RECORD)
  const { ownership, settings } = place
  const next = { exports: [{ name: 'vda', path }], ownership, ownershipSettings: settings, tcp: false } as const
  const other = await startDaemon(scratchOfTest(), { ...next, standby: true })
  expect(await refusal(other, 'open')).toMatchObject({ code: 'held-by-other' })
  const again = await startDaemon(scratchOfTest(), { ...next, stateDirectory: daemon.stateDirectory, standby: true })
  expect(await again.open('vda')).toMatchObject({ generation: 2, clearedBy: 'lock' })
})

test('a holder that lives goes on through the repair, and closes', async () => {
  const { path, place, daemon, record } = await makeRig()
  place.spoil('vda')
  expect((await record('repair', path)).status).toBe(0)
  expect(place.newest('vda')).toMatchObject({ state: 'fenced', generation: 1 })
  const { receipt } = await daemon.close('vda')
  expect(place.newest('vda')).toMatchObject({ state: 'closed', generation: 1, receipt })
})

test('where anybody could have opened it takes the word that nobody writes', async () => {
  const { path, place, daemon, record } = await makeRig()
  await daemon.close('vda')
  place.spoil('vda')
  const refused = await record('repair', path)
  expect(refused.status).toBe(3)
  expect(refused.stderr).toContain('--nobody-writes')
  const word = await record('repair', path, '--nobody-writes', '-o', 'json')
  expect(JSON.parse(word.stdout)).toMatchObject({ record: { sequence: 6, state: 'closed', generation: 2 } })
  expect(await daemon.open('vda')).toMatchObject({ generation: 3 })
})

test('what is set aside is a copy of that very record, once, and of no other', async () => {
  const key = etcd.newKey()
  const home = homeAt(key, etcd.cluster.endpoints)
  expect(await home.readAll()).toEqual([])
  expect((await home.compareAndSwap(0, draftOf())).won).toBe(true)
  await etcd.cluster.checked(['put', key, NO_RECORD])
  const aside = await home.setAside(2)
  expect(await home.setAside(2)).toBe(aside)
  await expect(home.setAside(1)).rejects.toMatchObject({ code: 'record-io' })
  await etcd.cluster.checked(['put', `${key}/unreadable/2`, 'something else'])
  await expect(home.setAside(2)).rejects.toMatchObject({ code: 'record-io' })
  await expect(repairRecord(home, { nobodyWrites: false })).rejects.toMatchObject({ code: 'record-io' })
  expect(await home.readNewest()).toMatchObject({ kind: 'unreadable', sequence: 2 })
})

test('after a compaction of what came before, a torn record has nothing to be carried on', async () => {
  const key = etcd.newKey()
  const home = homeAt(key, etcd.cluster.endpoints)
  await home.compareAndSwap(0, draftOf())
  await etcd.cluster.checked(['put', key, NO_RECORD])
  await etcd.cluster.checked(['compact', String(await etcd.cluster.revision())])
  expect(await home.readAll()).toMatchObject([{ kind: 'unreadable', sequence: 2 }])
  await expect(repairRecord(home, { nobodyWrites: true })).rejects.toMatchObject({ code: 'record-unreadable' })
})
