/**
 * The network between one daemon and etcd, cut in silence while everything else goes on: the daemon is in a network
 * namespace of its own, its clients reach it by a Unix socket.
 */

import { expect, test } from 'vitest'
import { BLOCK, refusal } from '../exports/ownership-rig.ts'
import { makeCutNetwork } from '../support/cut-network.ts'
import type { CutNetwork } from '../support/cut-network.ts'
import { startDaemon } from '../support/daemon.ts'
import type { Daemon } from '../support/daemon.ts'
import { startEtcd } from '../support/etcd-cluster.ts'
import { eventually } from '../support/eventually.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { connectFrontend } from '../support/nbd-frontend.ts'
import type { NbdFrontend } from '../support/nbd-frontend.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { placesIn } from './etcd-rig.ts'
import type { RecordPlace } from '../exports/ownership-rig.ts'

const SOON = { timeoutMs: 60_000 }

interface Rig {
  readonly network: CutNetwork
  readonly place: RecordPlace
  /** Behind the network. */
  readonly holder: Daemon
  readonly other: Daemon
  readonly frontend: NbdFrontend
}

async function makeRig(): Promise<Rig> {
  const scratch = scratchOfTest()
  const network = await makeCutNetwork(scratch)
  const etcd = await startEtcd(scratch, { address: network.address })
  const path = makeImage(scratch, MEBIBYTE)
  const place = placesIn(() => etcd).apart(scratch)
  const ownershipSettings = [...place.settings, 'timeout = "2s"']
  const exports = [{ name: 'vda', path }]
  const options = { exports, engine: 'file', tcp: false, ownership: 'etcd', ownershipSettings } as const
  const holder = await startDaemon(scratch, { ...options, wrapper: network.wrapper })
  const other = await startDaemon(scratch, { ...options, standby: true })
  const frontend = await connectFrontend(scratch, holder.address, 'vda')
  await frontend.request('WRITE', { offset: 0, data: BLOCK })
  return { network, place, holder, other, frontend }
}

test('the daemon that is cut off serves on, and its close ends when the network is back', async () => {
  const { network, place, holder, other, frontend } = await makeRig()
  await network.cut()
  await frontend.request('WRITE', { offset: 4096, data: BLOCK })
  const late = await refusal(holder, 'close', { timeoutMs: 5_000 })
  expect(late).toMatchObject({ status: 504, step: 'recording' })
  expect((await holder.status('vda')).stateReason).toContain('waits for its record')
  // Who can reach etcd is told what it knows, and gets nothing.
  expect(await refusal(other, 'open')).toMatchObject({ status: 409, code: 'held-by-other' })
  const closing = holder.close('vda')
  await network.mend()
  expect((await closing).receipt.generation).toBe(1)
  expect(place.newest('vda')).toMatchObject({ state: 'closed', generation: 1 })
  expect(await other.open('vda')).toMatchObject({ generation: 2 })
})

test('what was written while it was cut off it learns as soon as the network is back', async () => {
  const { network, place, holder, frontend } = await makeRig()
  await network.cut()
  const home = place.home('vda')
  const newest = await home.readNewest()
  if (newest.kind !== 'record') throw new Error('there is a record')
  const thief = { ...newest.record.holder, host: 'f'.repeat(32), openToken: 'f'.repeat(32), name: 'thief' }
  const stolen = await home.compareAndSwap(newest.record.sequence, { ...newest.record, generation: 2, holder: thief })
  expect(stolen.won).toBe(true)
  expect((await holder.status('vda')).state).toBe('open')
  await network.mend()
  await eventually('the fence', async () => (await holder.status('vda')).state === 'fenced', SOON)
  expect((await holder.status('vda')).stateReason).toContain('ownership is lost to thief')
  expect((await frontend.send('WRITE', { offset: 0, data: BLOCK }).reply).error).toBe(108)
})
