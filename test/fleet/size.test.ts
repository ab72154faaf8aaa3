/**
 * What a daemon costs by the number of its exports and connections, as the kernel counts it: 256 exports on two workers,
 * with 1,024 connections that ask for nothing. A second daemon with a quarter of the exports tells what each of them
 * costs: what is there for everybody cancels out.
 *
 * @module-tag slow
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { usageOf } from '../benchmark/process-usage.ts'
import { rawExchange } from '../support/control-rig.ts'
import type { Daemon } from '../support/daemon.ts'
import { connectFrontend } from '../support/nbd-frontend.ts'
import { Scratch } from '../support/scratch.ts'
import { evacuate, makeImages, startFleetDaemon } from './fleet-rig.ts'

const KIB = 1024
const FEW = 64
const MANY = 256
const CONNECTIONS_PER_EXPORT = 4
const CONNECTIONS = MANY * CONNECTIONS_PER_EXPORT
/**
 * Processor time of the daemon, for each export: how long it takes depends on what else the machine does. Some 25 to 55 ms
 * were seen; a slower processor may take more, but not more for one of many than for one of few.
 */
const START_MS_MAX = 200
const EVACUATION_MS_MAX = 100
const MICROSECONDS = 1000
/** What starting has left behind is gone by then: threads, garbage, looks at what is under the images. */
const SETTLING_MS = 8_000
const IDLE_MS = 8_000
/** Of one processor: looks at the records, and what Node does by itself. */
const IDLE_SHARE_MAX = 0.1
/** Of an answer, for each export: some 45 lines of metrics with the export's name in each. */
const ANSWER_BYTES_MAX = 4 * KIB
/** Its state on the main thread and on a worker, its record, its row of 8,192 slots in the ledger (32 KiB), its metrics. */
const EXPORT_BYTES_MAX = 512 * KIB
/** Its state, the views of its buffers, and the garbage of its negotiation. */
const CONNECTION_BYTES_MAX = 64 * KIB
const PATIENCE = { timeout: 240_000 }

interface Served {
  readonly count: number
  readonly daemon: Daemon
  /** Processor time until all were open. */
  readonly startMs: number
}

const shared = new Scratch()
let few: Served
let many: Served

beforeAll(async () => {
  few = await serve(FEW)
  many = await serve(MANY)
  await sleep(SETTLING_MS)
}, 300_000)

afterAll(() => shared.dispose())

async function serve(count: number): Promise<Served> {
  const images = makeImages(shared, count)
  const daemon = await startFleetDaemon(shared, images)
  return { count, daemon, startMs: processorMs(daemon) }
}

function processorMs({ pid }: Daemon): number {
  return usageOf(pid).cpuMicroseconds / MICROSECONDS
}

/** The least of several looks: garbage comes and goes. */
async function residentBytes({ daemon }: Served): Promise<number> {
  let least = Infinity
  for (let look = 0; look < 10; look += 1) {
    least = Math.min(least, usageOf(daemon.pid).residentBytes)
    await sleep(200)
  }
  return least
}

async function connect({ daemon, count }: Served, connections: number): Promise<void> {
  for (let index = 0; index < connections; index += 1) {
    const name = `volume-${String(index % count).padStart(3, '0')}`
    const frontend = await connectFrontend(shared, daemon.address, name)
    await frontend.read(0, 4 * KIB, 60_000)
  }
}

async function connectionsByWorker({ daemon }: Served): Promise<number[]> {
  const { text } = await rawExchange(daemon.controlPath, { path: '/metrics' })
  return [...text.matchAll(/^interlockd_worker_connections\{worker="\d+"\} (\d+)$/gmu)].map(([, count]) =>
    Number(count),
  )
}

/** Processor time of one answer, in microseconds, of many: the kernel counts in steps of ten milliseconds. */
async function costOf({ daemon }: Served, path: string): Promise<{ microseconds: number; bytes: number }> {
  const rounds = 20
  const ask = async (): Promise<number> => (await rawExchange(daemon.controlPath, { path })).text.length
  await ask()
  const before = usageOf(daemon.pid).cpuMicroseconds
  let bytes = 0
  for (let round = 0; round < rounds; round += 1) bytes = await ask()
  return { microseconds: (usageOf(daemon.pid).cpuMicroseconds - before) / rounds, bytes }
}

test('an export is opened at the start with little work, also as one of 256', () => {
  console.log(`processor time of a start: ${few.startMs} ms with ${FEW} exports, ${many.startMs} ms with ${MANY}`)
  const eachMs = (many.startMs - few.startMs) / (MANY - FEW)
  expect(eachMs).toBeLessThan(START_MS_MAX)
  expect(eachMs).toBeLessThan((2 * few.startMs) / FEW)
})

test('an export costs no more memory than it needs, and neither does a connection', PATIENCE, async () => {
  const [withFew, withMany] = [await residentBytes(few), await residentBytes(many)]
  expect((withMany - withFew) / (MANY - FEW)).toBeLessThan(EXPORT_BYTES_MAX)
  await connect(many, CONNECTIONS / 2)
  const withSome = await residentBytes(many)
  await connect(many, CONNECTIONS / 2)
  const withTwice = await residentBytes(many)
  expect((withTwice - withSome) / (CONNECTIONS / 2)).toBeLessThan(CONNECTION_BYTES_MAX)
  // The workers share the exports evenly.
  expect(await connectionsByWorker(many)).toEqual([CONNECTIONS / 2, CONNECTIONS / 2])
  await connect(few, FEW * CONNECTIONS_PER_EXPORT)
})

test('with all of them idle, little processor time is used', PATIENCE, async () => {
  const before = usageOf(many.daemon.pid).cpuMicroseconds
  await sleep(IDLE_MS)
  const share = (usageOf(many.daemon.pid).cpuMicroseconds - before) / (1000 * IDLE_MS)
  expect(share).toBeLessThan(IDLE_SHARE_MAX)
})

test.each(['/metrics', '/v1/exports'])(
  '%s of four times the exports is four times the work, and not sixteen',
  async (path) => {
    const [one, two] = [await costOf(few, path), await costOf(many, path)]
    expect(two.bytes).toBeLessThan(((1.1 * MANY) / FEW) * one.bytes)
    expect(two.bytes).toBeLessThan(ANSWER_BYTES_MAX * MANY)
    expect(two.microseconds).toBeLessThan(((2 * MANY) / FEW) * one.microseconds)
  },
)

test('all are evacuated with little work', PATIENCE, async () => {
  const beforeMs = processorMs(many.daemon)
  const { outcome, report } = await evacuate(many.daemon)
  const spentMs = processorMs(many.daemon) - beforeMs
  console.log(`evacuated in ${report.elapsedMs} ms, with ${spentMs} ms of processor time`)
  expect(outcome).toMatchObject({ status: 0 })
  expect(report).toMatchObject({ complete: true, quiet: true })
  expect(report.exports).toHaveLength(MANY)
  expect(spentMs / MANY).toBeLessThan(EVACUATION_MS_MAX)
})
