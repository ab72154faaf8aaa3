/**
 * The home of records in etcd, against Debian's etcd: the contract of every home, and what is particular to this one. A
 * forwarder loses answers and requests where the network would.
 */

import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { EtcdHome } from '../../src/ownership/etcd-home.ts'
import { recordHomeContract } from '../ownership/record-home-contract.ts'
import type { HomeRig } from '../ownership/record-home-contract.ts'
import { startEtcd } from '../support/etcd-cluster.ts'
import type { EtcdCluster } from '../support/etcd-cluster.ts'
import { Scratch } from '../support/scratch.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { startUnreliableGateway } from '../support/unreliable-gateway.ts'
import type { UnreliableGateway } from '../support/unreliable-gateway.ts'
import { homeAt } from './etcd-rig.ts'

const shared = new Scratch()
let etcd: EtcdCluster
let lastKey = 0

beforeAll(async () => {
  etcd = await startEtcd(shared)
})

afterAll(() => shared.dispose())

function newKey(): string {
  lastKey += 1
  return `/test/${lastKey}`
}

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
  const key = newKey()
  const gateway = async (change: (gateway: UnreliableGateway) => void): Promise<EtcdHome> => {
    const unreliable = await startUnreliableGateway(scratchOfTest(), etcd.endpoints[0] ?? '')
    change(unreliable)
    return homeAt(key, [unreliable.endpoint], { timeoutMs: 3_000 })
  }
  return {
    home: homeAt(key, etcd.endpoints),
    other: homeAt(key, etcd.endpoints),
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
      await etcd.checked(['put', key, '{"format":"interlockd-record","version":1'])
    },
    copyNewest: async () => {
      const newest = await etcd.checked(['get', key, '--print-value-only'])
      await etcd.checked(['put', key, newest.trimEnd()])
    },
  }
}

describe('as every home', () => {
  recordHomeContract(makeRig)
})

test('the record is one key, never bound to a lease', async () => {
  const { home } = await makeRig()
  await home.compareAndSwap(0, (await import('../ownership/record-samples.ts')).draftOf())
  expect(home.describe()).toContain('/test/')
})
