/**
 * Daemons whose etcd is away: stopped, started late, out of reach. What is open stays open and serves; nothing new opens;
 * a close is quiet at once and waits with its receipt until the record is durable. One node of Debian's etcd for each test.
 */

import { readdirSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { Refusal } from '../../src/foundation/refusal.ts'
import { BLOCK, refusal } from '../exports/ownership-rig.ts'
import type { RecordPlace } from '../exports/ownership-rig.ts'
import type { Daemon, DaemonOptions, LogLine } from '../support/daemon.ts'
import { rawExchange } from '../support/control-rig.ts'
import { startDaemon } from '../support/daemon.ts'
import { startEtcd } from '../support/etcd-cluster.ts'
import type { EtcdCluster, EtcdMember } from '../support/etcd-cluster.ts'
import { eventually } from '../support/eventually.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { connectFrontend } from '../support/nbd-frontend.ts'
import type { Scratch } from '../support/scratch.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { watchExport } from '../support/watched-events.ts'
import { placesIn } from './etcd-rig.ts'

const SOON = { timeoutMs: 30_000 }

interface Rig {
  readonly scratch: Scratch
  readonly etcd: EtcdCluster
  readonly member: EtcdMember
  readonly path: string
  readonly place: RecordPlace
  host(options?: Partial<DaemonOptions>): Promise<Daemon>
}

async function makeRig(): Promise<Rig> {
  const scratch = scratchOfTest()
  const etcd = await startEtcd(scratch)
  const [member] = etcd.members
  if (member === undefined) throw new Error('there is no member')
  const path = makeImage(scratch, MEBIBYTE)
  const place = placesIn(() => etcd).apart(scratch)
  const { ownership, settings } = place
  const where = { ownership, ownershipSettings: [...settings, 'timeout = "2s"'] }
  const host = (options: Partial<DaemonOptions> = {}): Promise<Daemon> =>
    startDaemon(scratch, { exports: [{ name: 'vda', path }], engine: 'file', tcp: false, ...where, ...options })
  return { scratch, etcd, member, path, place, host }
}

function stateOf(place: RecordPlace): string {
  const newest = place.newest('vda')
  return newest === undefined ? 'none' : `${newest.state} ${newest.generation}`
}

/** Descriptors of the process that lead to the file. */
function descriptorsOf(daemon: Daemon, path: string): readonly string[] {
  const folder = `/proc/${daemon.pid}/fd`
  return readdirSync(folder).filter((name) => {
    try {
      return readlinkSync(join(folder, name)) === path
    } catch {
      return false
    }
  })
}

async function metricsOf({ controlPath }: Daemon): Promise<string> {
  return (await rawExchange(controlPath, { path: '/metrics' })).text
}

/** What the export's events say of its record, from here on. */
function recordEvents(daemon: Daemon): readonly string[] {
  return daemon.log.flatMap(({ msg }) => (typeof msg === 'string' && msg.includes('record') ? [msg] : []))
}

test('what is open serves on, nothing new opens, and a close waits quietly for its record', async () => {
  const { scratch, member, path, place, host } = await makeRig()
  const holder = await host()
  const other = await host({ standby: true })
  const frontend = await connectFrontend(scratch, holder.address, 'vda')
  await frontend.request('WRITE', { offset: 0, data: BLOCK })
  await member.stop()
  await frontend.request('WRITE', { offset: 4096, data: BLOCK })
  const problem = await refusal(other, 'open')
  expect(problem).toMatchObject({ status: 503, code: 'record-unreachable' })
  expect(problem['detail']).toContain(member.endpoint)
  // It has not noticed, or does not mind: its clients are served.
  await frontend.request('WRITE', { offset: 8192, data: BLOCK })
  expect((await holder.status('vda')).state).toBe('open')
  const late = await refusal(holder, 'close', { timeoutMs: 8_000 })
  expect(late).toMatchObject({ status: 504, code: 'still-draining', step: 'recording', outstanding: { submitted: 0 } })
  expect(late['detail']).toContain('waits for its record')
  expect(await holder.status('vda')).toMatchObject({ state: 'closing', lastReceipt: null })
  expect((await holder.status('vda')).stateReason).toContain('all is durable and the image is closed')
  expect(descriptorsOf(holder, path)).toEqual([])
  const closing = holder.close('vda')
  member.start()
  const { receipt } = await closing
  expect(receipt).toMatchObject({ generation: 1, state: 'closed', drained: { requests: 0 } })
  expect(stateOf(place)).toBe('closed 1')
  expect(recordEvents(holder).some((said) => said.startsWith('the record was written after'))).toBe(true)
  const opened = await eventually('the other host to open', () => other.open('vda').catch(() => null), SOON)
  expect(opened).toMatchObject({ state: 'open', generation: 2 })
})

test('an outage that nobody runs into is measured and told all the same, and is over with the first answer', async () => {
  const { member, host } = await makeRig()
  const daemon = await host()
  const unreachableSeconds = async (): Promise<number> =>
    Number(/^interlockd_records_unreachable_seconds (\S+)$/mu.exec(await metricsOf(daemon))?.[1])
  const alarms = (): readonly LogLine[] =>
    daemon.log.filter(({ msg }) => typeof msg === 'string' && msg.startsWith('etcd has not answered for long'))
  expect(await unreachableSeconds()).toBe(0)
  await member.stop()
  await eventually('the metric to grow', async () => (await unreachableSeconds()) > 5, { timeoutMs: 60_000 })
  await eventually('an alarm, and another one', () => alarms().length >= 2, { timeoutMs: 60_000 })
  expect(alarms()[0]).toMatchObject({ endpoints: [member.endpoint] })
  expect((await daemon.status('vda')).state).toBe('open')
  member.start()
  await eventually('the metric to be 0 again', async () => (await unreachableSeconds()) === 0, { timeoutMs: 60_000 })
  expect(daemon.log.filter(({ msg }) => msg === 'etcd is back')).toHaveLength(1)
})

test('an early close waits for its record too, and can be cancelled meanwhile', async () => {
  const { scratch, member, place, host } = await makeRig()
  const source = await host()
  const destination = await host({ standby: true })
  const frontend = await connectFrontend(scratch, source.address, 'vda')
  await member.stop()
  const late = await refusal(source, 'close', { early: true, timeoutMs: 3_000 })
  expect(late).toMatchObject({ status: 504, code: 'still-draining' })
  const reasonOf = async (): Promise<string> => (await source.status('vda')).stateReason ?? ''
  await eventually('its reason', async () => (await reasonOf()).includes('the handover waits for its record'), SOON)
  member.start()
  // Whichever comes first: it is recorded as open again, or the handover is.
  await eventually('the source to open again', () => source.open('vda').catch(() => null), SOON)
  const { state, generation } = await source.status('vda')
  expect(state).toBe('open')
  await eventually('the record to say so', () => stateOf(place) === `open ${generation}`, SOON)
  await frontend.request('WRITE', { offset: 4096, data: BLOCK })
  expect(await refusal(destination, 'open')).toMatchObject({ code: 'held-by-other' })
  await member.stop()
  const early = source.api('POST', '/exports/vda/close', { early: true })
  await eventually('the handover to wait', async () => (await source.status('vda')).stateReason !== null, SOON)
  member.start()
  expect((await early).status).toBeLessThan(300)
  expect((await destination.open('vda')).generation).toBe(generation + 1)
  expect((await source.close('vda')).receipt.generation).toBe(generation)
})

test('a daemon that starts before etcd waits, says so, and opens when it can', async () => {
  const { member, host } = await makeRig()
  await member.stop()
  const daemon = await host()
  const waiting = await daemon.status('vda')
  expect(waiting).toMatchObject({ state: 'standby', generation: 0 })
  expect(waiting.stateReason).toContain('it is asked again')
  member.start()
  await eventually('the export to open', async () => (await daemon.status('vda')).state === 'open', SOON)
})

test('a daemon that dies while its close waits has closed nothing: its next run goes on by the lock', async () => {
  const { member, place, host } = await makeRig()
  const first = await host()
  await member.stop()
  expect(await refusal(first, 'close', { timeoutMs: 3_000 })).toMatchObject({ step: 'recording' })
  await first.kill()
  member.start()
  const second = await host({ stateDirectory: first.stateDirectory })
  await eventually('the next generation', () => stateOf(place) === 'open 2', SOON)
  expect(await second.status('vda')).toMatchObject({ state: 'open', generation: 2, clearedBy: 'lock' })
})

test('a holder that slept while its record was taken and compacted away stops when it wakes', async () => {
  const { scratch, etcd, member, place, host } = await makeRig()
  const holder = await host()
  const frontend = await connectFrontend(scratch, holder.address, 'vda')
  await frontend.request('WRITE', { offset: 0, data: BLOCK })
  holder.program.signal('SIGSTOP')
  // Or its kernel would keep for it what it is told meanwhile.
  await member.stop()
  member.start()
  await etcd.ready()
  const home = place.home('vda')
  const newest = await home.readNewest()
  if (newest.kind !== 'record') throw new Refusal('not-found', 'there is a record')
  const thief = { ...newest.record.holder, host: 'f'.repeat(32), openToken: 'f'.repeat(32), name: 'thief' }
  let { sequence } = newest.record
  for (let each = 0; each < 20; each++) {
    const outcome = await home.compareAndSwap(sequence, { ...newest.record, generation: 2, holder: thief })
    expect(outcome.won).toBe(true)
    sequence += 1
  }
  await etcd.checked(['compact', String(await etcd.revision())])
  holder.program.signal('SIGCONT')
  await eventually('the fence', async () => (await holder.status('vda')).state === 'fenced', SOON)
  expect((await holder.status('vda')).stateReason).toContain('ownership is lost to thief')
  expect((await frontend.send('WRITE', { offset: 0, data: BLOCK }).reply).error).toBe(108)
})

test('an event says that a close waits for its record, once, and another one that it was written', async () => {
  const { member, host } = await makeRig()
  const holder = await host()
  const events = await watchExport(holder, 'vda')
  const recorded = () => events().flatMap((event) => (event.kind === 'record' ? [event] : []))
  await member.stop()
  const closing = holder.close('vda')
  await eventually('an event of waiting', () => recorded().length > 0, SOON)
  const waiting = { change: 'waiting', detail: expect.stringContaining('the close waits for its record') as string }
  expect(recorded()).toMatchObject([waiting])
  const { stateReason } = await holder.status('vda')
  expect(stateReason).toContain(recorded()[0]?.detail)
  expect(events().some(({ kind }) => kind === 'receipt')).toBe(false)
  // Long enough for it to ask in vain again: that is the same waiting.
  await sleep(3_000)
  expect(recorded()).toHaveLength(1)
  member.start()
  const { receipt } = await closing
  await eventually('the receipt', () => events().some(({ kind }) => kind === 'receipt'), SOON)
  const written = {
    change: 'written',
    detail: expect.stringMatching(/^the record was written after \d+ ms/u) as string,
  }
  const last = events().filter(({ kind }) => kind === 'record' || kind === 'receipt')
  expect(last).toMatchObject([waiting, written, { kind: 'receipt', receipt: { nonce: receipt.nonce } }])
})
