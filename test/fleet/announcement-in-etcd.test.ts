/** The tests of test/exports/announcement.test.ts, with the records in etcd instead of beside the image. */

import { expect, test } from 'vitest'
import { withRecordsInEtcd } from './etcd-rig.ts'

const recordKeys = await withRecordsInEtcd(() => import('../exports/announcement.test.ts'))

test('the records were in etcd', async () => {
  expect(await recordKeys()).not.toBe('')
})
