/**
 * The home of records in etcd, against Debian's etcd: the contract of every home, and what is particular to this one. A
 * forwarder loses answers and requests where the network would.
 */

import { describe, expect, test } from 'vitest'
import type { EtcdHome } from '../../src/ownership/etcd-home.ts'
import { draftOf } from '../ownership/record-samples.ts'
import { recordHomeContract } from '../ownership/record-home-contract.ts'
import type { HomeRig } from '../ownership/record-home-contract.ts'
import { eventually } from '../support/eventually.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { startUnreliableGateway } from '../support/unreliable-gateway.ts'
import type { UnreliableGateway } from '../support/unreliable-gateway.ts'
import { connectionTo, etcdOfFile, homeAt } from './etcd-rig.ts'

const etcd = etcdOfFile()

function onceFor(
  path: string,
  fate: 'loseAnswer' | 'loseRequest' | 'swallow',
): (asked: string) => 'pass' | typeof fate {
  let left = 1
  return (asked) => {
    if (asked !== path || left === 0) return 'pass'
    left -= 1
    return fate
  }
}

async function makeRig(): Promise<HomeRig> {
  const key = etcd.newKey()
  const gateway = async (change: (gateway: UnreliableGateway) => void): Promise<EtcdHome> => {
    const unreliable = await startUnreliableGateway(scratchOfTest(), etcd.cluster.endpoints[0] ?? '')
    change(unreliable)
    return homeAt(key, [unreliable.endpoint], { timeoutMs: 3_000 })
  }
  return {
    home: homeAt(key, etcd.cluster.endpoints),
    other: homeAt(key, etcd.cluster.endpoints),
    deaf: (meanwhile = () => Promise.resolve()) =>
      gateway((unreliable) => {
        unreliable.fate = onceFor('/v3/kv/txn', 'loseAnswer')
        unreliable.meanwhile = meanwhile
      }),
    mute: () =>
      gateway((unreliable) => {
        unreliable.fate = (path) => (path === '/v3/kv/txn' ? 'loseRequest' : 'pass')
      }),
    spoil: async () => {
      await etcd.cluster.checked(['put', key, '{"format":"interlockd-record","version":1'])
    },
    copyNewest: async () => {
      const newest = await etcd.cluster.checked(['get', key, '--print-value-only'])
      await etcd.cluster.checked(['put', key, newest.trimEnd()])
    },
  }
}

describe('as every home', () => {
  recordHomeContract(makeRig)
})

test('the record is one key, never bound to a lease', async () => {
  const key = etcd.newKey()
  const home = homeAt(key, etcd.cluster.endpoints)
  await home.compareAndSwap(0, draftOf())
  await home.compareAndSwap(1, draftOf({ generation: 5 }))
  const said = await etcd.cluster.checked(['get', key, '--prefix', '--write-out', 'json'])
  const { kvs } = JSON.parse(said) as { kvs: Record<string, unknown>[] }
  expect(kvs).toMatchObject([{ key: Buffer.from(key).toString('base64'), version: 2 }])
  expect(kvs[0]).not.toHaveProperty('lease')
  expect((await etcd.cluster.checked(['lease', 'list'])).trim()).toBe('found 0 leases')
})

test('keys that were quiet until etcd had compacted what came since cost one new stream, not one each', async () => {
  const { cluster } = etcd
  const put = (key: string, value: string): Promise<string> => cluster.checked(['put', key, value])
  const gateway = await startUnreliableGateway(scratchOfTest(), cluster.endpoints[0] ?? '')
  const { watch } = connectionTo([gateway.endpoint])
  const keys = Array.from({ length: 8 }, () => etcd.newKey())
  const told = new Map<string, string>()
  for (const key of keys) {
    await put(key, 'quiet')
    watch.follow(key, (found) => told.set(key, found === null ? '' : Buffer.from(found.value).toString('utf8')))
  }
  const allTold = (value: string) => () => keys.every((key) => told.get(key) === value)
  await eventually('the keys to be read', allTold('quiet'))
  const loud = etcd.newKey()
  for (const value of ['1', '2', '3']) await put(loud, value)
  await cluster.checked(['compact', String(await cluster.revision())])
  const streamsBefore = gateway.forwarded.filter((path) => path === '/v3/watch').length
  // As when a stream has grown old: it is made anew for all.
  watch.follow(loud, () => undefined)
  for (const key of keys) await put(key, 'changed')
  await eventually('the changes behind the compaction', allTold('changed'), { timeoutMs: 60_000 })
  const streams = gateway.forwarded.filter((path) => path === '/v3/watch').length
  expect(streams - streamsBefore).toBeLessThanOrEqual(3)
})
