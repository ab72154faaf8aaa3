/** The tests of test/exports/takeover.test.ts, with the records in etcd instead of beside the image. */

import { afterAll, beforeAll, expect, test } from 'vitest'
import { keepRecordsIn } from '../exports/ownership-rig.ts'
import { startEtcd } from '../support/etcd-cluster.ts'
import type { EtcdCluster } from '../support/etcd-cluster.ts'
import { Scratch } from '../support/scratch.ts'
import { placesIn } from './etcd-rig.ts'

const shared = new Scratch()
let etcd: EtcdCluster

beforeAll(async () => {
  etcd = await startEtcd(shared)
})

afterAll(() => shared.dispose())

keepRecordsIn(placesIn(() => etcd))

await import('../exports/takeover.test.ts')

test('the records were in etcd', async () => {
  expect((await etcd.checked(['get', '/test/', '--prefix', '--keys-only'])).trim()).not.toBe('')
})
