/**
 * What every home of records owes to those who decide by it, asked of one home after the other: the rig brings two hosts,
 * and a third one whose answers or requests are lost.
 */

import { expect, test } from 'vitest'
import type { Newest, OwnershipRecord, RecordHome } from '../../src/ownership/home.ts'
import { sequenceOf } from '../../src/ownership/home.ts'
import { repairRecord } from '../../src/ownership/record-repair.ts'
import { eventually } from '../support/eventually.ts'
import { draftOf, HOLDER, OTHER, receiptOf } from './record-samples.ts'

export interface HomeRig {
  readonly home: RecordHome
  readonly other: RecordHome
  /** What it writes for the first time is carried out, `meanwhile` happens, and the answer is lost. */
  deaf(meanwhile?: () => Promise<void>): Promise<RecordHome>
  /** Nothing that it writes arrives. */
  mute(): Promise<RecordHome>
  /** What is no record becomes the newest. */
  spoil(): Promise<void>
  /** The newest record again, as it is, under the next number. */
  copyNewest(): Promise<void>
}

const RACES = 20
const CAREFUL = { nobodyWrites: false }
/** Every slot of a worker, each in a list. */
const LONGEST = 8192

async function recordOf(newest: Newest | Promise<Newest>): Promise<OwnershipRecord> {
  const settled = await newest
  if (settled.kind !== 'record') throw new Error(`there is no record: ${JSON.stringify(settled)}`)
  return settled.record
}

async function grow(home: RecordHome, count: number): Promise<void> {
  for (let each = 0; each < count; each++) {
    const outcome = await home.compareAndSwap(sequenceOf(await home.readNewest()), draftOf())
    expect(outcome.won).toBe(true)
  }
}

/** The same home, where something happens as soon as a record has been set aside. */
function withAfterwards(home: RecordHome, happens: () => Promise<void>): RecordHome {
  return {
    kind: home.kind,
    shared: home.shared,
    describe: () => home.describe(),
    locate: (realPath) => {
      home.locate(realPath)
    },
    readNewest: () => home.readNewest(),
    readAll: async () => (await home.readAll?.()) ?? [],
    setAside: async (sequence) => {
      const aside = (await home.setAside?.(sequence)) ?? ''
      await happens()
      return aside
    },
    compareAndSwap: (expected, draft) => home.compareAndSwap(expected, draft),
    close: () => home.close(),
  }
}

/** Declares the tests; `makeRig` is called in each of them. */
export function recordHomeContract(makeRig: () => Promise<HomeRig>): void {
  test('what one host writes the other reads, and a swap wins only against what it has seen', async () => {
    const { home, other } = await makeRig()
    expect(await home.readNewest()).toEqual({ kind: 'absent' })
    const first = await home.compareAndSwap(0, draftOf({ state: 'opening' }))
    expect(first).toMatchObject({ won: true, record: { sequence: 1, state: 'opening', version: 1 } })
    expect(await other.readNewest()).toEqual({ kind: 'record', record: 'record' in first && first.record })
    expect(await other.compareAndSwap(0, draftOf({ holder: OTHER }))).toMatchObject({
      won: false,
      superseded: null,
      newest: { record: { holder: HOLDER } },
    })
    expect((await other.compareAndSwap(1, draftOf({ holder: OTHER }))).won).toBe(true)
    expect((await recordOf(home.readNewest())).holder).toEqual(OTHER)
    // It knows the first record, and not that there is a second one.
    expect(await home.compareAndSwap(1, draftOf())).toMatchObject({ won: false, newest: { record: { sequence: 2 } } })
  })

  test('of two that swap at once one wins, and each knows which', async () => {
    const { home, other } = await makeRig()
    for (let round = 0; round < RACES; round++) {
      const [one, two] = await Promise.all([
        home.compareAndSwap(round, draftOf({ holder: HOLDER })),
        other.compareAndSwap(round, draftOf({ holder: OTHER })),
      ])
      expect([one.won, two.won].filter(Boolean)).toHaveLength(1)
      expect((await recordOf(home.readNewest())).holder).toEqual(one.won ? HOLDER : OTHER)
    }
  })

  test('a lost answer is no lost race', async () => {
    const { home, deaf } = await makeRig()
    await grow(home, 1)
    const outcome = await (await deaf()).compareAndSwap(1, draftOf({ holder: OTHER }))
    expect(outcome).toMatchObject({ won: true, record: { sequence: 2 } })
    expect(await recordOf(home.readNewest())).toMatchObject({ sequence: 2, holder: OTHER })
  })

  test('whoever has been overtaken has lost, and knows that his record was one of the log', async () => {
    const { home, deaf } = await makeRig()
    await grow(home, 1)
    const slow = await deaf(async () => {
      await home.compareAndSwap(sequenceOf(await home.readNewest()), draftOf({ holder: HOLDER, generation: 5 }))
      await grow(home, 2)
    })
    expect(await slow.compareAndSwap(1, draftOf({ holder: OTHER }))).toMatchObject({
      won: false,
      superseded: { sequence: 2, holder: OTHER },
      newest: { record: { sequence: 5, holder: HOLDER } },
    })
  })

  test('what cannot be written is an error, never a guess', async () => {
    const { home, mute } = await makeRig()
    await grow(home, 1)
    const code = expect.stringMatching(/^record-(?:io|unreachable)$/u) as string
    await expect((await mute()).compareAndSwap(1, draftOf({ holder: OTHER }))).rejects.toMatchObject({ code })
    expect(await recordOf(home.readNewest())).toMatchObject({ sequence: 1, holder: HOLDER })
  })

  test('an unreadable newest record is not skipped, and another one can be written on top of it', async () => {
    const { home, other, spoil } = await makeRig()
    await grow(home, 2)
    await spoil()
    const newest = await home.readNewest()
    expect(newest).toMatchObject({ kind: 'unreadable', sequence: 3, detail: expect.stringContaining('torn') as string })
    expect((await other.compareAndSwap(2, draftOf())).won).toBe(false)
    expect((await home.compareAndSwap(sequenceOf(newest), draftOf())).won).toBe(true)
    expect((await recordOf(other.readNewest())).sequence).toBe(4)
  })

  test('of two that repair at once one wins', async () => {
    const { home, other, spoil } = await makeRig()
    await grow(home, 1)
    await spoil()
    const ends = await Promise.allSettled([repairRecord(home, CAREFUL), repairRecord(other, CAREFUL)])
    expect(ends.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
    expect(await recordOf(home.readNewest())).toMatchObject({ sequence: 3, state: 'fenced' })
  })

  test('a holder that writes while its record is repaired wins', async () => {
    const { home, other, spoil } = await makeRig()
    await grow(home, 1)
    await spoil()
    // A holder that lives does not read before it writes: it has its own record in mind.
    const overtaken = withAfterwards(home, async () => {
      await other.compareAndSwap(2, draftOf({ state: 'closing', closeReason: 'handover' }))
    })
    await expect(repairRecord(overtaken, CAREFUL)).rejects.toMatchObject({ code: 'held-by-other' })
    expect(await recordOf(home.readNewest())).toMatchObject({ sequence: 3, state: 'closing' })
  })

  test('a record that was copied to another number is foreign', async () => {
    const { home, copyNewest } = await makeRig()
    await grow(home, 1)
    await copyNewest()
    const detail = expect.stringContaining('another number') as string
    expect(await home.readNewest()).toMatchObject({ kind: 'unreadable', sequence: 2, detail })
  })

  test('the longest record fits', async () => {
    const { home, other } = await makeRig()
    const each = Array.from({ length: LONGEST }, (_, index) => ({ offset: 2 ** 52 + 8192 * index, length: 4096 }))
    const aborted = each.map((range, index) => ({
      ...{ client: 1_000_000, cookie: index.toString(16).padStart(16, 'f'), command: 'NBD_CMD_WRITE_ZEROES' },
      ...range,
    }))
    const draining = [{ generation: 3, holder: OTHER, ranges: each.slice(0, LONGEST / 2) }]
    const receipt = { ...receiptOf(4), aborted: aborted.slice(LONGEST / 2) }
    const outcome = await home.compareAndSwap(
      0,
      draftOf({ state: 'closed', draining, receipt, closeReason: 'handover' }),
    )
    expect(outcome.won).toBe(true)
    expect((await recordOf(other.readNewest())).receipt?.aborted).toHaveLength(LONGEST / 2)
  })

  test('a watch tells of what others write, and of nothing twice', async () => {
    const { home, other } = await makeRig()
    await grow(home, 1)
    const seen: number[] = []
    const end = other.watch?.((newest) => seen.push(sequenceOf(newest)), 5)
    await eventually('the first record', () => seen.includes(1))
    await grow(home, 1)
    await eventually('the second record', () => seen.includes(2))
    end?.()
    await grow(home, 1)
    expect(await recordOf(other.readNewest())).toMatchObject({ sequence: 3 })
    expect(seen).toEqual([1, 2])
    await other.close()
  })
}
