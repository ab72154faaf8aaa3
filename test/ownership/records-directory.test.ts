/**
 * A directory of records that is another one than it was: not mounted, replaced, or with older records below. Each host
 * here has a state directory, each run of it begins without knowing anything.
 */

import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeEach, expect, test } from 'vitest'
import type { BlockingCall, BlockingResultOf, BlockingRunner } from '../../src/blocking/calls.ts'
import { DirectoryHome } from '../../src/ownership/directory-home.ts'
import { IDENTITY_NAME, MEMORY_FOLDER } from '../../src/ownership/records-directory.ts'
import { inlineRunner } from '../blocking/inline-runner.ts'
import { temporaryDirectory } from '../support/temporary-directory.ts'
import { homesUnder } from './host-rig.ts'
import { draftOf } from './record-samples.ts'

const IDENTITY = /^[0-9a-f]{32}\n$/

let directory: string
let stateDirectory: string

beforeEach(() => {
  directory = join(temporaryDirectory('shared'), 'records')
  mkdirSync(directory)
  stateDirectory = temporaryDirectory('state')
})

const identity = (): string => readFileSync(join(directory, IDENTITY_NAME), 'utf8')
const memories = (state = stateDirectory): string[] => readdirSync(join(state, MEMORY_FOLDER))
const run = (imageId = 'vda', runner?: BlockingRunner): DirectoryHome =>
  homesUnder(directory, { stateDirectory, ...(runner === undefined ? {} : { runner }) })(imageId)

/** As it is where the file system is not mounted. Returns what mounts it again. */
function unmount(): () => void {
  const away = `${directory}-away`
  renameSync(directory, away)
  mkdirSync(directory)
  return () => {
    rmSync(directory, { recursive: true })
    renameSync(away, directory)
  }
}

function counting(): { readonly runner: BlockingRunner; readonly calls: BlockingCall[] } {
  const calls: BlockingCall[] = []
  const runner: BlockingRunner = {
    run<C extends BlockingCall>(call: C): Promise<BlockingResultOf<C['kind']>> {
      calls.push(call)
      return inlineRunner.run(call)
    },
  }
  return { runner, calls }
}

const refusedAs = (words: string) => ({ code: 'record-io', message: expect.stringContaining(words) as string })

test('whoever is first leaves an identity, and every host remembers it', async () => {
  expect(await run().readNewest()).toEqual({ kind: 'absent' })
  expect(identity()).toMatch(IDENTITY)
  expect(readdirSync(directory)).toEqual([IDENTITY_NAME])
  expect(statSync(join(directory, IDENTITY_NAME)).mode & 0o777).toBe(0o600)
  const [memory = ''] = memories()
  expect(readFileSync(join(stateDirectory, MEMORY_FOLDER, memory), 'utf8')).toBe(`${identity()}${directory}\n`)
  const other = temporaryDirectory('state')
  const before = identity()
  await homesUnder(directory, { stateDirectory: other })('vda').readNewest()
  expect(identity()).toBe(before)
  expect(readFileSync(join(other, MEMORY_FOLDER, memory), 'utf8')).toBe(`${before}${directory}\n`)
})

test('hosts that are first at once agree on one identity', async () => {
  for (let round = 0; round < 20; round++) {
    rmSync(directory, { recursive: true })
    mkdirSync(directory)
    const states = [1, 2, 3].map(() => temporaryDirectory('state'))
    // Two runs of each: the old daemon and the new one, while it is upgraded.
    const runs = [...states, ...states].map((state) => homesUnder(directory, { stateDirectory: state })('vda'))
    await Promise.all(runs.map((home) => home.readNewest()))
    expect(readdirSync(directory)).toEqual([IDENTITY_NAME])
    for (const state of states) {
      const [memory = '', ...more] = memories(state)
      expect([more, readFileSync(join(state, MEMORY_FOLDER, memory), 'utf8')]).toEqual([
        [],
        `${identity()}${directory}\n`,
      ])
    }
  }
})

test('a run that looks while another run of its host is the first is not refused', async () => {
  for (const meanwhileAt of [1, 2, 3]) {
    rmSync(directory, { recursive: true })
    mkdirSync(directory)
    rmSync(join(stateDirectory, MEMORY_FOLDER), { recursive: true, force: true })
    let reads = 0
    const overtaken: BlockingRunner = {
      async run<C extends BlockingCall>(call: C): Promise<BlockingResultOf<C['kind']>> {
        if (call.kind === 'readFile' && (reads += 1) === meanwhileAt) await run().readNewest()
        return inlineRunner.run(call)
      },
    }
    expect(await run('vda', overtaken).readNewest()).toEqual({ kind: 'absent' })
  }
})

test('the identity is durable in the directory before it is remembered, also where another host has left it', async () => {
  for (const _host of ['the first', 'the second']) {
    const { runner, calls } = counting()
    await homesUnder(directory, { runner, stateDirectory: temporaryDirectory('state') })('vda').readNewest()
    const synced = calls.findIndex((call) => call.kind === 'syncDirectory' && call.path === directory)
    const named = calls.findIndex((call) => call.kind === 'link' && call.createdPath.includes(MEMORY_FOLDER))
    expect(synced).toBeGreaterThan(-1)
    expect(named).toBeGreaterThan(synced)
  }
})

test('an empty directory in the place of one that was used is not mounted: no image in it is one that nobody has opened', async () => {
  await run().compareAndSwap(0, draftOf())
  const mount = unmount()
  for (const imageId of ['vda', 'vdb']) {
    await expect(run(imageId).readNewest()).rejects.toMatchObject(refusedAs(`${directory} is not the directory`))
    await expect(run(imageId).readNewest()).rejects.toMatchObject(refusedAs('mount it'))
    await expect(run(imageId).readAll()).rejects.toMatchObject({ code: 'record-io' })
    await expect(run(imageId).compareAndSwap(0, draftOf())).rejects.toMatchObject({ code: 'record-io' })
  }
  expect(readdirSync(directory)).toEqual([])
  mount()
  expect(await run().readNewest()).toMatchObject({ record: { sequence: 1 } })
  expect(await run('vdb').readNewest()).toEqual({ kind: 'absent' })
})

test('a refusal is not remembered: mounted, the same run goes on', async () => {
  await run().compareAndSwap(0, draftOf())
  const mount = unmount()
  const home = run()
  await expect(home.readNewest()).rejects.toMatchObject({ code: 'record-io' })
  mount()
  expect(await home.readNewest()).toMatchObject({ record: { sequence: 1 } })
})

test('records that lie under the mount point are not believed', async () => {
  await run().compareAndSwap(0, draftOf())
  unmount()
  // Of a version that did not look.
  await DirectoryHome.at(inlineRunner, join(directory, 'vda')).compareAndSwap(0, draftOf())
  await expect(run().readNewest()).rejects.toMatchObject({ code: 'record-io' })
  await expect(run().readAll()).rejects.toMatchObject({ code: 'record-io' })
  await expect(run().compareAndSwap(1, draftOf())).rejects.toMatchObject({ code: 'record-io' })
  expect(readdirSync(join(directory, 'vda'))).toEqual(['0000000000000001.json'])
})

test('a directory that goes away under a run has no image that nobody has opened', async () => {
  const homeOf = homesUnder(directory, { stateDirectory })
  await homeOf('vda').compareAndSwap(0, draftOf())
  const mount = unmount()
  // Also where the folder is there, and empty.
  mkdirSync(join(directory, 'vdb'))
  for (const imageId of ['vda', 'vdb']) {
    await expect(homeOf(imageId).readNewest()).rejects.toMatchObject({ code: 'record-io' })
    await expect(homeOf(imageId).readAll()).rejects.toMatchObject({ code: 'record-io' })
  }
  mount()
  expect(await homeOf('vda').readNewest()).toMatchObject({ record: { sequence: 1 } })
})

test('one that goes away after the record was read gets no first record', async () => {
  const home = run()
  expect(await home.readNewest()).toEqual({ kind: 'absent' })
  const mount = unmount()
  await expect(home.compareAndSwap(0, draftOf())).rejects.toMatchObject({ code: 'record-io' })
  expect(existsSync(join(directory, 'vda/0000000000000001.json'))).toBe(false)
  mount()
  expect(await home.compareAndSwap(0, draftOf())).toMatchObject({ won: true })
})

test('another directory is refused until what this host remembers is removed', async () => {
  await run().readNewest()
  rmSync(directory, { recursive: true })
  mkdirSync(directory)
  await homesUnder(directory)('vda').compareAndSwap(0, draftOf())
  const [memory = ''] = memories()
  const path = join(stateDirectory, MEMORY_FOLDER, memory)
  await expect(run().readNewest()).rejects.toMatchObject(refusedAs(`remove ${path}`))
  await expect(run('vdb').readNewest()).rejects.toMatchObject(refusedAs('holds another identity'))
  rmSync(path)
  expect(await run().readNewest()).toMatchObject({ record: { sequence: 1 } })
  expect(readFileSync(path, 'utf8')).toContain(identity())
})

test('a directory that has records and no identity gets one: it was used by a version without', async () => {
  await DirectoryHome.at(inlineRunner, join(directory, 'vda')).compareAndSwap(0, draftOf())
  expect(await run().readNewest()).toMatchObject({ record: { sequence: 1 } })
  expect(identity()).toMatch(IDENTITY)
  unmount()
  await expect(run().readNewest()).rejects.toMatchObject({ code: 'record-io' })
})

test('what is no identity is refused and kept', async () => {
  for (const content of ['', 'half', `${'g'.repeat(32)}\n`, '0'.repeat(10_000)]) {
    writeFileSync(join(directory, IDENTITY_NAME), content)
    await expect(run().readNewest()).rejects.toMatchObject(refusedAs(join(directory, IDENTITY_NAME)))
    expect(identity()).toBe(content)
  }
  rmSync(join(directory, IDENTITY_NAME))
  await run().readNewest()
  const [memory = ''] = memories()
  writeFileSync(join(stateDirectory, MEMORY_FOLDER, memory), 'half')
  await expect(run().readNewest()).rejects.toMatchObject({ code: 'state-directory' })
})

test('a visitor compares with what the host remembers, and leaves nothing', async () => {
  const visit = () => homesUnder(directory, { stateDirectory, use: 'visitor' })('vda')
  expect(await visit().readAll()).toEqual([])
  expect([readdirSync(directory), readdirSync(stateDirectory)]).toEqual([[], []])
  await run().compareAndSwap(0, draftOf())
  expect(await visit().readNewest()).toMatchObject({ record: { sequence: 1 } })
  unmount()
  await expect(visit().readAll()).rejects.toMatchObject({ code: 'record-io' })
  await expect(visit().compareAndSwap(0, draftOf())).rejects.toMatchObject({ code: 'record-io' })
})

test('once it is known, a record that is there is read and swapped without another look', async () => {
  const { runner, calls } = counting()
  await run().compareAndSwap(0, draftOf())
  const homeOf = homesUnder(directory, { stateDirectory, runner })
  await homeOf('vdb').readNewest()
  calls.length = 0
  const home = homeOf('vda')
  await home.readNewest()
  await home.compareAndSwap(1, draftOf())
  expect(calls.map(({ kind }) => kind)).toEqual(['readHighest', 'inTurnThenList'])
})

test('homes that begin at once wait for one look', async () => {
  await run().compareAndSwap(0, draftOf())
  const { runner, calls } = counting()
  const homeOf = homesUnder(directory, { stateDirectory, runner })
  await Promise.all(Array.from({ length: 50 }, () => homeOf('vda').readNewest()))
  expect(calls.filter(({ kind }) => kind === 'readFile')).toHaveLength(2)
})
