/**
 * Who "this host" is, asked of real daemons: state directories that were cloned or restored, and what proofs may not be
 * taken for. In each case nobody opens who cannot know, and nobody is switched off by mistake.
 *
 * @module-tag slow
 */

import { chmodSync, cpSync, existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { refuseVoidClusterLocks } from '../../src/exports/cluster-locks.ts'
import type { OwnershipRecord, RecordHolder } from '../../src/ownership/home.ts'
import type { Daemon } from '../support/daemon.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { connectFrontend } from '../support/nbd-frontend.ts'
import type { Scratch } from '../support/scratch.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { BLOCK, homeOf, newestOf, recordsOf, refusal, startHost } from './ownership-rig.ts'

/** The state directory as it is now, as a backup or a clone of the machine takes it along. */
function copyOf(scratch: Scratch, { stateDirectory }: Daemon): string {
  const copy = join(scratch.directory('copied-state'), 'state')
  cpSync(stateDirectory, copy, { recursive: true })
  return copy
}

async function writeRecord(path: string, changes: Partial<OwnershipRecord>): Promise<void> {
  const home = homeOf(path)
  const newest = await home.readNewest()
  if (newest.kind !== 'record') throw new Error('there is a record')
  const { version, sequence, ...draft } = newest.record
  expect(version).toBe(1)
  expect((await home.compareAndSwap(sequence, { ...draft, ...changes })).won).toBe(true)
}

test('a clone on the same machine finds the lock of the original, and opens when that is gone', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const original = await startHost(scratch, path)
  const frontend = await connectFrontend(scratch, original.address, 'vda')
  const clone = await startHost(scratch, path, { stateDirectory: copyOf(scratch, original), standby: true })
  expect(await refusal(clone, 'open', { timeoutMs: 200 })).toMatchObject({ code: 'image-in-use' })
  expect((await frontend.request('WRITE', { offset: 0, data: BLOCK })).error).toBe(0)
  expect(await original.status('vda')).toMatchObject({ state: 'open', generation: 1 })
  await original.kill()
  expect(await clone.open('vda')).toMatchObject({ generation: 2, clearedBy: 'lock' })
})

test('a stale state directory makes another host, which is not fenced by its own plug', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const first = await startHost(scratch, path, { standby: true })
  const stale = copyOf(scratch, first)
  await first.open('vda')
  await first.kill()
  const { host, name } = newestOf(path).holder
  const called = join(scratch.directory('fence'), 'called')
  const program = `${called}.sh`
  writeFileSync(program, `#!/bin/sh\ntouch ${called}\n`)
  chmodSync(program, 0o755)
  const fence = ['[fence]', `command = ["${program}"]`, '[fence.plugs]', `${host} = "1"`, `"${name}" = "1"`]
  const restored = await startHost(scratch, path, { stateDirectory: stale, ownershipSettings: fence })
  expect((await restored.status('vda')).stateReason).toContain(`${name} (${host}) has generation 1, which is open`)
  expect(await refusal(restored, 'open', { timeoutMs: 200 })).toMatchObject({ code: 'held-by-other' })
  expect(await refusal(restored, 'open', { takeover: true })).toMatchObject({
    code: 'takeover-failed',
    detail: expect.stringContaining('would switch off this host') as string,
  })
  expect(existsSync(called)).toBe(false)
  expect(recordsOf(path)).toHaveLength(2)
})

test('the reboot of this host proves its own writes over, and not those of a clone', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const daemon = await startHost(scratch, path)
  await daemon.close('vda')
  await daemon.open('vda')
  await daemon.close('vda')
  const before: RecordHolder = { ...newestOf(path).holder, boot: 'an earlier boot' }
  const clone: RecordHolder = { ...before, openToken: 'f'.repeat(32), name: 'clone' }
  const ranges = [{ offset: 0, length: 4096 }]
  const draining = [
    { generation: 1, holder: before, ranges },
    { generation: 2, holder: clone, ranges },
  ]
  await writeRecord(path, { holder: before, draining })
  const { generation, holds } = await daemon.open('vda')
  expect([generation, holds.map((hold) => hold.generation)]).toEqual([3, [2]])
  expect(newestOf(path).draining.map(({ holder }) => holder.name)).toEqual(['clone'])
})

test('cluster locks are refused where locks are let go of before the writes are over', async () => {
  const scratch = scratchOfTest()
  const definition = { name: 'vda', path: '/srv/vda.raw', clusterLocks: true, cache: 'direct' } as const
  const refused = expect.objectContaining({ code: 'cluster-locks' }) as Error
  for (const fileSystem of ['nfs', 'cifs', 'smb2']) {
    expect(() => {
      refuseVoidClusterLocks(definition, { fileSystem })
    }).toThrow(refused)
  }
  refuseVoidClusterLocks(definition, { fileSystem: 'gfs2' })
  refuseVoidClusterLocks({ ...definition, clusterLocks: false }, { fileSystem: 'nfs' })
  const path = makeImage(scratch, MEBIBYTE)
  const exports = [{ name: 'vda', path, cluster_locks: true, cache: 'buffered' }]
  const daemon = await startHost(scratch, path, { exports, standby: true })
  expect(await refusal(daemon, 'open')).toMatchObject({ status: 422, code: 'cluster-locks' })
})
