import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { BlockingCall, BlockingResult, BlockingResultOf, BlockingRunner } from '../../src/blocking/calls.ts'
import { DirectoryHome, PRUNED_AT_ONCE, RECORDS_KEPT } from '../../src/ownership/directory-home.ts'
import type { Newest, OwnershipRecord } from '../../src/ownership/home.ts'
import { sequenceOf } from '../../src/ownership/home.ts'
import { ERRNO } from '../../src/posix/errno.ts'
import { inlineRunner } from '../blocking/inline-runner.ts'
import { temporaryDirectory } from '../support/temporary-directory.ts'
import { homesUnder } from './host-rig.ts'
import { recordHomeContract } from './record-home-contract.ts'
import { draftOf, HOLDER, OTHER } from './record-samples.ts'

interface Hosts {
  readonly folder: string
  readonly home: DirectoryHome
  readonly other: DirectoryHome
}

function twoHosts(): Hosts {
  const folder = join(temporaryDirectory(), 'vda')
  return { folder, home: DirectoryHome.at(inlineRunner, folder), other: DirectoryHome.at(inlineRunner, folder) }
}

/** Calls that are asked for in turn come to the runner one by one. */
function oneByOne(runner: BlockingRunner): BlockingRunner {
  return {
    async run<C extends BlockingCall>(call: C): Promise<BlockingResultOf<C['kind']>> {
      if (call.kind !== 'inTurn' && call.kind !== 'inTurnThenList') return runner.run(call)
      const results: number[] = []
      for (const each of call.calls) {
        results.push(await runner.run(each))
        if ((results.at(-1) ?? 0) < 0) break
      }
      let answer: BlockingResult = results
      if (call.kind === 'inTurnThenList') {
        const failed = (results.at(-1) ?? 0) < 0
        answer = { results, names: failed ? null : await runner.run({ kind: 'listDirectory', path: call.path }) }
      }
      return answer as BlockingResultOf<C['kind']>
    },
  }
}

/** Runs `before` ahead of the first call of that kind, and may answer the call itself. */
function disturbed(kind: BlockingCall['kind'], before: () => Promise<number | undefined>): BlockingRunner {
  let done = false
  return oneByOne({
    async run<C extends BlockingCall>(call: C): Promise<BlockingResultOf<C['kind']>> {
      if (call.kind === kind && !done) {
        done = true
        const answer = await before()
        if (answer !== undefined) return answer as BlockingResultOf<C['kind']>
      }
      return inlineRunner.run(call)
    },
  })
}

/** The first link is made, `meanwhile` happens, and the answer is that the name was taken. */
function deafRunner(meanwhile: () => Promise<void> = () => Promise.resolve()): BlockingRunner {
  let heard = false
  return oneByOne({
    async run<C extends BlockingCall>(call: C): Promise<BlockingResultOf<C['kind']>> {
      const result = await inlineRunner.run(call)
      if (call.kind !== 'link' || heard) return result
      heard = true
      await meanwhile()
      return -ERRNO.EEXIST as BlockingResultOf<C['kind']>
    },
  })
}

/** No link is ever made. */
const muteRunner: BlockingRunner = oneByOne({
  run<C extends BlockingCall>(call: C): Promise<BlockingResultOf<C['kind']>> {
    if (call.kind !== 'link') return inlineRunner.run(call)
    return Promise.resolve(-ERRNO.EIO as BlockingResultOf<C['kind']>)
  },
})

async function recordOf(newest: Newest | Promise<Newest>): Promise<OwnershipRecord> {
  const settled = await newest
  if (settled.kind !== 'record') throw new Error(`there is no record: ${JSON.stringify(settled)}`)
  return settled.record
}

async function grow(home: DirectoryHome, count: number): Promise<void> {
  for (let each = 0; each < count; each++) {
    const outcome = await home.compareAndSwap(sequenceOf(await home.readNewest()), draftOf())
    expect(outcome.won).toBe(true)
  }
}

describe('as every home', () => {
  recordHomeContract(() => {
    const { folder, home, other } = twoHosts()
    const next = async (): Promise<string> =>
      join(folder, `${String(sequenceOf(await home.readNewest()) + 1).padStart(16, '0')}.json`)
    return Promise.resolve({
      home,
      other,
      deaf: (meanwhile) => Promise.resolve(DirectoryHome.at(deafRunner(meanwhile), folder)),
      mute: () => Promise.resolve(DirectoryHome.at(muteRunner, folder)),
      spoil: async () => {
        writeFileSync(await next(), '{"format":"interlockd-record","version":1')
      },
      copyNewest: async () => {
        const path = await next()
        const newest = readdirSync(folder).sort().at(-1) ?? ''
        writeFileSync(path, readFileSync(join(folder, newest)))
      },
    })
  })
})

test('records are numbered files', async () => {
  const { folder, home } = twoHosts()
  await grow(home, 2)
  expect(readdirSync(folder).sort()).toEqual(['0000000000000001.json', '0000000000000002.json'])
})

test('the records of an image lie beside its real path, or in a folder of its id', async () => {
  const directory = temporaryDirectory()
  const beside = new DirectoryHome(inlineRunner, { kind: 'beside' })
  expect(beside.describe()).toContain('not found')
  beside.locate(join(directory, 'vda.raw'))
  await beside.compareAndSwap(0, draftOf())
  expect(existsSync(join(directory, 'vda.raw.interlock/0000000000000001.json'))).toBe(true)
  const under = homesUnder(directory)('disk-7')
  under.locate('/dev/sda')
  await under.compareAndSwap(0, draftOf())
  expect(under.describe()).toBe(join(directory, 'disk-7'))
  expect(existsSync(join(directory, 'disk-7/0000000000000001.json'))).toBe(true)
})

test('a record directory that is missing is a file system that is not mounted, not an image without a record', async () => {
  const directory = join(temporaryDirectory(), 'not-mounted')
  const home = homesUnder(directory)('vda')
  await expect(home.readNewest()).rejects.toMatchObject({
    code: 'record-io',
    message: expect.stringContaining(directory),
  })
  await expect(home.compareAndSwap(0, draftOf())).rejects.toMatchObject({ code: 'record-io' })
  expect(existsSync(directory)).toBe(false)
})

test('of two that swap at once one wins, whoever is faster by a step', async () => {
  for (const step of ['createFile', 'link', 'syncDirectory'] as const) {
    const { folder, other } = twoHosts()
    await grow(other, 1)
    const slow = DirectoryHome.at(
      disturbed(step, async () => {
        await other.compareAndSwap(1, draftOf({ holder: OTHER }))
        return undefined
      }),
      folder,
    )
    const outcome = await slow.compareAndSwap(1, draftOf({ holder: HOLDER }))
    const winner = step === 'syncDirectory' ? HOLDER : OTHER
    expect([step, outcome.won]).toEqual([step, winner === HOLDER])
    expect((await recordOf(other.readNewest())).holder).toEqual(winner)
    expect(readdirSync(folder)).toHaveLength(2)
  }
})

test('whoever has been overtaken after his link has lost, and knows that his record was one of the log', async () => {
  const { folder, other } = twoHosts()
  await grow(other, 1)
  const slow = DirectoryHome.at(
    disturbed('syncDirectory', async () => {
      await other.compareAndSwap(2, draftOf({ holder: OTHER }))
      return undefined
    }),
    folder,
  )
  const outcome = await slow.compareAndSwap(1, draftOf({ holder: HOLDER }))
  expect(outcome).toMatchObject({
    won: false,
    superseded: { sequence: 2, holder: HOLDER },
    newest: { record: { sequence: 3, holder: OTHER } },
  })
})

test('whoever sleeps until his number was pruned has lost, and was never part of the log', async () => {
  const { folder, other } = twoHosts()
  await grow(other, 1)
  const sleeper = DirectoryHome.at(
    disturbed('link', async () => {
      await grow(other, RECORDS_KEPT + 20)
      return undefined
    }),
    folder,
  )
  const outcome = await sleeper.compareAndSwap(1, draftOf({ holder: OTHER, generation: 9 }))
  expect(outcome).toMatchObject({ won: false, superseded: null, newest: { record: { sequence: RECORDS_KEPT + 21 } } })
  expect((await recordOf(other.readNewest())).generation).toBe(4)
})

test('a lost reply to a link is no lost race', async () => {
  const { folder, home } = twoHosts()
  await grow(home, 1)
  for (const errno of [ERRNO.EEXIST, ERRNO.EIO]) {
    let calls: BlockingCall[] = []
    const deaf = oneByOne({
      async run<C extends BlockingCall>(call: C): Promise<BlockingResultOf<C['kind']>> {
        calls.push(call)
        const result = await inlineRunner.run(call)
        return call.kind === 'link' ? (-errno as BlockingResultOf<C['kind']>) : result
      },
    })
    const expected = sequenceOf(await home.readNewest())
    expect((await DirectoryHome.at(deaf, folder).compareAndSwap(expected, draftOf())).won).toBe(true)
    expect(calls.filter(({ kind }) => kind === 'link')).toHaveLength(1)
    calls = []
  }
})

test('a link that failed is an error, never a guess', async () => {
  const { folder, home } = twoHosts()
  await grow(home, 1)
  const failing = DirectoryHome.at(
    disturbed('link', () => Promise.resolve(-ERRNO.EIO)),
    folder,
  )
  await expect(failing.compareAndSwap(1, draftOf())).rejects.toMatchObject({ code: 'record-io' })
  expect(readdirSync(folder)).toEqual(['0000000000000001.json'])
})

test('nothing is said to be written before file and directory are durable', async () => {
  for (const kind of ['createFile', 'syncDirectory'] as const) {
    const { folder, home } = twoHosts()
    await grow(home, 1)
    const failing = DirectoryHome.at(
      disturbed(kind, () => Promise.resolve(-ERRNO.ENOSPC)),
      folder,
    )
    await expect(failing.compareAndSwap(1, draftOf())).rejects.toThrow('ENOSPC')
  }
})

test('an unreadable newest record is not skipped', async () => {
  const { folder, home } = twoHosts()
  await grow(home, 2)
  writeFileSync(join(folder, '0000000000000003.json'), '{')
  expect(await home.readNewest()).toMatchObject({
    kind: 'unreadable',
    sequence: 3,
    detail: expect.stringContaining('torn'),
  })
  mkdirSync(join(folder, '0000000000000004.json'))
  expect(await home.readNewest()).toMatchObject({ kind: 'unreadable', sequence: 4 })
  expect(await home.readAll()).toHaveLength(4)
})

test('files of other names are nobody’s records', async () => {
  const { folder, home } = twoHosts()
  await grow(home, 1)
  for (const name of ['9.json', '0000000000000009.json.bak', 'x0000000000000009.json', '0000000000000000.json']) {
    writeFileSync(join(folder, name), '{}')
  }
  expect(await home.readNewest()).toMatchObject({ kind: 'record', record: { sequence: 1 } })
})

test('the newest records are kept, older ones and forgotten temporary files go', async () => {
  const { folder, home } = twoHosts()
  writeFileSync(join(temporaryDirectory(), 'unrelated'), '')
  await grow(home, 3)
  writeFileSync(join(folder, `.0000000000000003.${'d'.repeat(32)}`), 'of a host that died')
  // Neither a record that is no file, nor what nobody can remove, keeps the others.
  mkdirSync(join(folder, `.0000000000000001.${'e'.repeat(32)}`))
  await grow(home, RECORDS_KEPT + 2 * PRUNED_AT_ONCE - 6)
  await home.close()
  const names = readdirSync(folder).sort()
  const records = names.filter((name) => name.endsWith('.json'))
  expect(names.filter((name) => !records.includes(name))).toEqual([`.0000000000000001.${'e'.repeat(32)}`])
  expect(records.at(-1)).toBe(`${String(RECORDS_KEPT + 2 * PRUNED_AT_ONCE - 3).padStart(16, '0')}.json`)
  expect(records.length).toBeGreaterThanOrEqual(RECORDS_KEPT)
  expect(records.length).toBeLessThan(RECORDS_KEPT + PRUNED_AT_ONCE)
})

test('a folder behind a symbolic link is the same log', async () => {
  const { folder, home } = twoHosts()
  await grow(home, 1)
  const linked = `${folder}-linked`
  symlinkSync(folder, linked)
  expect((await recordOf(DirectoryHome.at(inlineRunner, linked).readNewest())).sequence).toBe(1)
  rmSync(linked)
})
