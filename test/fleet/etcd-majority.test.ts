/**
 * Records in a cluster of three on the loopback whose leader is killed, and whose members come and go: races are still won
 * once, watches still tell, and daemons hand over.
 */

import { beforeEach, expect, test } from 'vitest'
import type { RecordHome, SwapOutcome } from '../../src/ownership/home.ts'
import { sequenceOf } from '../../src/ownership/home.ts'
import { draftOf, HOLDER, OTHER } from '../ownership/record-samples.ts'
import { startDaemon } from '../support/daemon.ts'
import type { EtcdCluster } from '../support/etcd-cluster.ts'
import { eventually } from '../support/eventually.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { etcdOfFile, homeAt, placesIn } from './etcd-rig.ts'

const RACES = 1_000
const PATIENT = { timeoutMs: 60_000 }

const etcd = etcdOfFile({ members: 3 })

beforeEach(() => etcd.cluster.ready())

interface Round {
  readonly outcome: SwapOutcome
  readonly home: RecordHome
}

/** One opens, and closes again on top of its own record. */
async function race(homes: readonly RecordHome[], sequence: number, generation: number): Promise<number> {
  const rounds: Round[] = await Promise.all(
    homes.map(async (home, index) => {
      const holder = index === 0 ? HOLDER : OTHER
      return { home, outcome: await home.compareAndSwap(sequence, draftOf({ state: 'opening', generation, holder })) }
    }),
  )
  const winners = rounds.filter(({ outcome }) => outcome.won)
  expect(winners).toHaveLength(1)
  const [winner] = winners
  if (winner?.outcome.won !== true) throw new Error('nobody won')
  const { record } = winner.outcome
  const closed = await winner.home.compareAndSwap(record.sequence, { ...record, state: 'closed' })
  expect(closed.won).toBe(true)
  return record.sequence + 1
}

test(`of two that open at once one wins, ${RACES} times, while members are stopped, killed and started`, async () => {
  const [first = '', second = '', third = ''] = etcd.cluster.endpoints
  const homes = [
    homeAt('/test/race', [first, second, third], PATIENT),
    homeAt('/test/race', [third, first, second], PATIENT),
  ]
  let down: Awaited<ReturnType<EtcdCluster['leader']>> | null = null
  let sequence = 0
  for (let round = 1; round <= RACES; round++) {
    if (round % 250 === 100) {
      down = await etcd.cluster.leader()
      // Rounds go on while it dies, and while nobody leads.
      if (round < RACES / 2) void down.kill()
      else void down.stop()
    }
    if (round % 250 === 150 && down !== null) {
      await down.program.exited
      down.start()
    }
    sequence = await race(homes, sequence, round)
  }
  expect(sequence).toBe(2 * RACES)
  const newest = await homeAt('/test/race', etcd.cluster.endpoints).readNewest()
  expect(newest).toMatchObject({ record: { sequence: 2 * RACES, generation: RACES, state: 'closed' } })
})

test('a watch tells of everything through a change of the leader and a restart of its own member', async () => {
  const home = homeAt('/test/watched', etcd.cluster.endpoints, PATIENT)
  const [own = ''] = etcd.cluster.endpoints
  const watching = homeAt('/test/watched', etcd.cluster.endpoints, PATIENT)
  const seen: number[] = []
  watching.watch((newest) => seen.push(sequenceOf(newest)))
  const write = async (): Promise<number> => {
    const outcome = await home.compareAndSwap(sequenceOf(await home.readNewest()), draftOf())
    if (!outcome.won) throw new Error('there was nobody to lose to')
    return outcome.record.sequence
  }
  const told = (sequence: number): Promise<unknown> =>
    eventually(`record ${sequence} to be told of`, () => seen.includes(sequence), { timeoutMs: 40_000 })
  await told(0)
  await told(await write())
  const leader = await etcd.cluster.leader()
  await leader.kill()
  await told(await write())
  leader.start()
  const member = etcd.cluster.members.find(({ endpoint }) => endpoint === own)
  await etcd.cluster.ready()
  await member?.stop()
  await told(await write())
  member?.start()
  await told(await write())
  expect(seen).toEqual([0, 1, 2, 3, 4])
})

test('daemons hand over while the leader dies', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const { ownership, settings } = placesIn(() => etcd.cluster).apart(scratch)
  const exports = [{ name: 'vda', path }]
  const options = { exports, engine: 'file', tcp: false, ownership, ownershipSettings: settings } as const
  const hosts = [await startDaemon(scratch, options), await startDaemon(scratch, { ...options, standby: true })]
  const [source, destination] = hosts
  if (source === undefined || destination === undefined) throw new Error('there are two')
  const leader = await etcd.cluster.leader()
  const closing = source.close('vda')
  await leader.kill()
  expect((await closing).receipt.generation).toBe(1)
  const opened = await eventually('the destination to open', () => destination.open('vda').catch(() => null), {
    timeoutMs: 60_000,
  })
  expect(opened).toMatchObject({ state: 'open', generation: 2 })
  leader.start()
  await etcd.cluster.ready()
  expect((await destination.close('vda')).receipt.generation).toBe(2)
})

test('a member that has lost its majority answers nobody', async () => {
  const [one, two, three] = etcd.cluster.members
  if (one === undefined || two === undefined || three === undefined) throw new Error('there are three')
  const home = homeAt('/test/alone', [one.endpoint], { timeoutMs: 3_000 })
  expect(await home.readNewest()).toEqual({ kind: 'absent' })
  await two.kill()
  await three.kill()
  await expect(home.readNewest()).rejects.toMatchObject({ code: 'record-unreachable' })
  await expect(home.compareAndSwap(0, draftOf())).rejects.toMatchObject({ code: 'record-unreachable' })
  two.start()
  three.start()
  await etcd.cluster.ready()
  const newest = await eventually('an answer', () => home.readNewest().catch(() => null), { timeoutMs: 30_000 })
  expect(sequenceOf(newest)).toBeLessThanOrEqual(1)
})
