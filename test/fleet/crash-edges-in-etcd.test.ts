/** Those edges of test/exports/crash-edges.test.ts that are etcd's, with the records there instead of beside the image. */

import { expect, test } from 'vitest'
import { withRecordsInEtcd } from './etcd-rig.ts'

const recordKeys = await withRecordsInEtcd(() => import('../exports/crash-edges.test.ts'))

test('the records were in etcd', async () => {
  expect(await recordKeys()).not.toBe('')
})
