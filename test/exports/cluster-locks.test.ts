/**
 * `cluster_locks`: the hosts' locks reach each other, so that another host's lock says that its writes are over. An opening
 * waits for the lock of a host that is still there, however dead it looks, and then opens by it.
 *
 * @module-tag slow
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { ENGINES } from '../support/daemon.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { connectFrontend } from '../support/nbd-frontend.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { BLOCK, newestOf, startHost } from './ownership-rig.ts'

/** Long enough for an opening that waits to have tried many times. */
const MANY_TRIES_MS = 1_000

test.each(ENGINES)('an open waits for the lock of another host, and then opens by it (%s)', async (engine) => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const exports = [{ name: 'vda', path, cluster_locks: true }]
  const holder = await startHost(scratch, path, { engine, exports })
  const other = await startHost(scratch, path, { engine, exports, standby: true })
  const frontend = await connectFrontend(scratch, holder.address, 'vda')
  await frontend.request('WRITE', { offset: 0, data: BLOCK })
  // It answers nobody any more, and still has the image.
  holder.program.signal('SIGSTOP')
  const opening = other.open('vda', { timeoutMs: 60_000 })
  opening.catch(() => undefined)
  await sleep(MANY_TRIES_MS)
  expect(await other.status('vda')).toMatchObject({ state: 'opening' })
  expect(newestOf(path)).toMatchObject({ state: 'open', generation: 1 })
  await holder.kill()
  expect(await opening).toMatchObject({ state: 'open', generation: 2, clearedBy: 'lock' })
  expect(newestOf(path)).toMatchObject({ state: 'open', generation: 2, cleared: { generation: 1, by: 'lock' } })
  const fresh = await connectFrontend(scratch, other.address, 'vda')
  expect((await fresh.read(0, BLOCK.length)).equals(BLOCK)).toBe(true)
})
