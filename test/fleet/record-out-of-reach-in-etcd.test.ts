/** The test of test/handover/record-out-of-reach.test.ts, with the records in an etcd of its own, which is stopped. */

import { expect, test } from 'vitest'
import { homeOfRecords, keepRecordsIn } from '../exports/ownership-rig.ts'
import { placesIn } from './etcd-rig.ts'

const nowhereElse = (): never => {
  throw new Error('there is no other etcd')
}
keepRecordsIn(placesIn(nowhereElse))

await import('../handover/record-out-of-reach.test.ts')

test('the records were in etcd', () => {
  expect(homeOfRecords()).toBe('etcd')
})
