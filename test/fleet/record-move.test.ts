/**
 * Records that move between a directory and etcd, and back: by the program as an operator runs it, with daemons of both
 * configurations, and step by step with a move that stops after each of them.
 */

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { DirectoryHome } from '../../src/ownership/directory-home.ts'
import type { RecordDraft, RecordHome, SwapOutcome } from '../../src/ownership/home.ts'
import { moveRecord } from '../../src/ownership/record-move.ts'
import { inlineRunner } from '../blocking/inline-runner.ts'
import { newestOf, refusal, startHost } from '../exports/ownership-rig.ts'
import { draftOf, OTHER, receiptOf } from '../ownership/record-samples.ts'
import { INTERLOCKCTL, runProgram } from '../support/control-command.ts'
import { startDaemon } from '../support/daemon.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { scratchOfTest, temporaryDirectory } from '../support/temporary-directory.ts'
import { etcdOfFile, homeAt, placesIn } from './etcd-rig.ts'

const NOW = '2026-01-01T00:00:00.000Z'
const CLOSED = draftOf({ state: 'closed', closeReason: 'handover', receipt: receiptOf(4) })

const etcd = etcdOfFile()

interface Homes {
  readonly directory: RecordHome
  readonly key: RecordHome
}

function twoHomes(): Homes {
  return {
    directory: DirectoryHome.at(inlineRunner, join(temporaryDirectory(), 'vda')),
    key: homeAt(etcd.newKey(), etcd.cluster.endpoints),
  }
}

/** Dies before its swap with that number, counted over all homes that share the count. */
function dyingAt(home: RecordHome, count: { swaps: number }, swap: number): RecordHome {
  return {
    kind: home.kind,
    shared: true,
    describe: () => home.describe(),
    locate: () => undefined,
    readNewest: () => home.readNewest(),
    compareAndSwap: (expected: number, draft: RecordDraft): Promise<SwapOutcome> => {
      count.swaps += 1
      if (count.swaps === swap) return Promise.reject(new Error('the program died'))
      return home.compareAndSwap(expected, draft)
    },
    close: () => Promise.resolve(),
  }
}

test('there and back: the record is the same, and the home that it left refuses', async () => {
  const { directory, key } = twoHomes()
  await directory.compareAndSwap(0, CLOSED)
  const there = { from: directory, to: key, imageId: 'disk-7', now: NOW }
  expect(await moveRecord(there)).toMatchObject({ moved: true, generation: 4 })
  expect(await key.readNewest()).toEqual({
    kind: 'record',
    record: { ...CLOSED, imageId: 'disk-7', version: 1, sequence: 2 },
  })
  expect(await directory.readNewest()).toMatchObject({
    record: { sequence: 2, moved: { direction: 'gone', home: key.describe(), since: NOW } },
  })
  expect(await moveRecord(there)).toMatchObject({ moved: false })
  const back = { from: key, to: directory, imageId: 'vda', now: NOW }
  expect(await moveRecord(back)).toMatchObject({ moved: true })
  expect(await directory.readNewest()).toEqual({ kind: 'record', record: { ...CLOSED, version: 1, sequence: 4 } })
  expect(await key.readNewest()).toMatchObject({ record: { moved: { direction: 'gone' } } })
})

test('wherever a move stops, at most one home opens; asked again it is finished', async () => {
  for (const swap of [1, 2, 3]) {
    const { directory, key } = twoHomes()
    await directory.compareAndSwap(0, CLOSED)
    const count = { swaps: 0 }
    const dying = { from: dyingAt(directory, count, swap), to: dyingAt(key, count, swap), imageId: 'vda', now: NOW }
    await expect(moveRecord(dying)).rejects.toThrow('the program died')
    const [old, fresh] = [await directory.readNewest(), await key.readNewest()]
    const opens = [old, fresh].map((newest) => newest.kind === 'record' && newest.record.moved === undefined)
    expect(opens).toEqual([swap < 3, false])
    // Without a record anybody opens: from the first step on there is one.
    if (swap > 1) expect(fresh.kind).toBe('record')
    expect(await moveRecord({ from: directory, to: key, imageId: 'vda', now: NOW })).toMatchObject({ moved: true })
    expect(await key.readNewest()).toMatchObject({ record: { state: 'closed', generation: 4, receipt: receiptOf(4) } })
    expect(await directory.readNewest()).toMatchObject({ record: { moved: { direction: 'gone' } } })
  }
})

test('an opening at the old home wins over a move that has begun', async () => {
  const { directory, key } = twoHomes()
  await directory.compareAndSwap(0, CLOSED)
  const count = { swaps: 0 }
  const dying = { from: dyingAt(directory, count, 2), to: dyingAt(key, count, 2), imageId: 'vda', now: NOW }
  await expect(moveRecord(dying)).rejects.toThrow('the program died')
  expect((await directory.compareAndSwap(1, draftOf({ generation: 5, holder: OTHER }))).won).toBe(true)
  const move = { from: directory, to: key, imageId: 'vda', now: NOW }
  await expect(moveRecord(move)).rejects.toMatchObject({ code: 'wrong-state', message: /generation 5, which is open/u })
  expect(await key.readNewest()).toMatchObject({ record: { generation: 4, moved: { direction: 'arriving' } } })
})

test('what is in the way is not written over', async () => {
  const { directory, key } = twoHomes()
  const move = { from: directory, to: key, imageId: 'vda', now: NOW }
  await expect(moveRecord(move)).rejects.toMatchObject({ code: 'wrong-state', message: /there is no record/u })
  await directory.compareAndSwap(0, CLOSED)
  await key.compareAndSwap(0, CLOSED)
  await expect(moveRecord(move)).rejects.toMatchObject({ code: 'wrong-state', message: /has a record already/u })
  expect(await directory.readNewest()).toMatchObject({ record: { sequence: 1 } })
})

test('record move, with daemons of both configurations', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const place = placesIn(() => etcd.cluster).apart(scratch)
  const files = scratch.directory('configurations')
  const write = (name: string, ...ownership: string[]): string => {
    const file = join(files, name)
    writeFileSync(file, ['[ownership]', ...ownership, '[[export]]', 'name = "vda"', `path = "${path}"`, ''].join('\n'))
    return file
  }
  const before = write('before.toml', 'kind = "directory"')
  const after = write('after.toml', 'kind = "etcd"', ...place.settings)
  const move = (from: string, to: string, ...more: string[]) =>
    runProgram(INTERLOCKCTL, ['record', 'move', '--from', from, '--to', to, ...more])
  const old = await startHost(scratch, path)
  const early = await move(before, after)
  expect(early).toMatchObject({ status: 3, stdout: '' })
  expect(early.stderr).toContain("which is open: 'close' it first")
  const { receipt } = await old.close('vda')
  const moved = await move(before, after)
  expect(moved).toMatchObject({ status: 0, stderr: '' })
  expect(moved.stdout).toContain('generation 1, moved: the key')
  expect(await refusal(old, 'open')).toMatchObject({ status: 409, code: 'record-moved' })
  expect(await refusal(old, 'open', { takeover: true })).toMatchObject({ code: 'record-moved' })
  expect((await old.close('vda')).receipt).toEqual(receipt)
  const exports = [{ name: 'vda', path }]
  const options = { exports, engine: 'file', tcp: false, ownership: 'etcd', ownershipSettings: place.settings } as const
  const fresh = await startDaemon(scratch, { ...options, standby: true })
  expect(await fresh.open('vda', { receipt })).toMatchObject({ generation: 2 })
  expect((await move(after, before)).status).toBe(3)
  await fresh.close('vda')
  const back = await move(after, before, path, '-o', 'json')
  expect(JSON.parse(back.stdout)).toMatchObject([{ path, kind: 'done', moved: true, generation: 2 }])
  expect(await refusal(fresh, 'open')).toMatchObject({ code: 'record-moved' })
  expect(newestOf(path)).toMatchObject({ state: 'closed', generation: 2 })
  expect(await old.open('vda')).toMatchObject({ generation: 3 })
})
