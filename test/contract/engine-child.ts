/**
 * A process of its own in which one real engine runs the contract's scenarios, one after the other, as the test asks. It
 * runs the built program, because an engine may start threads. A scenario that hangs holds this thread: the test then
 * kills the process.
 *
 * Beyond what the scenarios look at, it reports descriptors that are left over.
 */

import { ok } from 'node:assert/strict'
import { readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import type * as Threads from '../../src/blocking/blocking-thread.ts'
import type * as Create from '../../src/engine/create.ts'
import type * as Descriptors from '../../src/posix/descriptor.ts'
import type * as Eventfd from '../../src/posix/eventfd.ts'
import type * as Files from '../../src/posix/file.ts'
import type * as Locks from '../../src/posix/locks.ts'
import type * as Mapping from '../../src/posix/mapping.ts'
import { present } from '../../src/foundation/assert.ts'
import { DISK_SCENARIOS } from './disk-scenarios.ts'
import { LIFE_SCENARIOS } from './life-scenarios.ts'
import { ARENA_BYTES, IMAGE_BYTES, Rig } from './rig.ts'
import type { Scenario } from './rig.ts'
import { connectedPair, SocketClient } from './socket-client.ts'
import type { Transport } from './socket-client.ts'
import { STREAM_SCENARIOS } from './stream-scenarios.ts'

export interface ScenarioOrder {
  readonly scenario: string
  readonly transport: Transport
  /** Bytes of the arena that the engine may register with the kernel. */
  readonly registeredBytes: number
  /** A ring as on the oldest kernel that will do. */
  readonly plainRing: boolean
}

export interface ScenarioReport {
  readonly outcome: 'done' | 'stopped' | 'failed'
  /** Of a failure. */
  readonly detail: string
}

const BLOCK_BYTES = 4096
const LEAK_PATIENCE_MS = 3000

// What this process starts must not load the loader of TypeScript that it was started with.
process.execArgv.length = 0

const dist = new URL('../../dist/', import.meta.url)
const load = async <T>(path: string): Promise<T> => (await import(new URL(path, dist).href)) as T
const { createEngine } = await load<typeof Create>('engine/create.js')
const { mapMemory } = await load<typeof Mapping>('posix/mapping.js')
const { createEventfd } = await load<typeof Eventfd>('posix/eventfd.js')
const { closeDescriptor } = await load<typeof Descriptors>('posix/descriptor.js')
const { OPEN, openFile } = await load<typeof Files>('posix/file.js')
const locks = await load<typeof Locks>('posix/locks.js')
const { BlockingThread } = await load<typeof Threads>('blocking/blocking-thread.js')

/** Sets the stop word if asked to, then wakes the engine both ways; it sleeps by itself, so it works while we do not. */
const RINGER = `
  const { parentPort, workerData } = require('node:worker_threads')
  import(workerData.eventfdModule).then(({ ringEventfd }) => {
    parentPort.on('message', ({ delayMs, stop }) => {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, delayMs)
      if (stop) Atomics.store(workerData.stopWord, 0, 1)
      ringEventfd(workerData.doorbell)
      parentPort.postMessage('wake')
    })
    parentPort.postMessage('ready')
  })
`

const kind = process.argv[2] as Create.RealEngineKind
const directory = present(process.argv[3], 'the directory to work in')
const imagePath = join(directory, 'image.raw')
const arena = mapMemory(ARENA_BYTES)
const doorbell = createEventfd()
const stopWord = new Int32Array(new SharedArrayBuffer(4))
const blocking = new BlockingThread('contract')
const ringer = new Worker(RINGER, {
  eval: true,
  workerData: { doorbell, stopWord, eventfdModule: new URL('posix/eventfd.js', dist).href },
})
await new Promise((resolve) => ringer.once('message', resolve))
// A thread that is still starting opens descriptors of its own.
await blocking.run({ kind: 'listDirectory', path: directory })
const SCENARIOS: Readonly<Record<string, Scenario>> = { ...STREAM_SCENARIOS, ...DISK_SCENARIOS, ...LIFE_SCENARIOS }

/** What each open descriptor refers to. The one that reads the list is gone by the time it is looked at. */
function openDescriptors(): string[] {
  return readdirSync('/proc/self/fd').flatMap((name) => {
    try {
      return [`${name} ${readlinkSync(`/proc/self/fd/${name}`)}`]
    } catch {
      return []
    }
  })
}

function openImage(options: { readonly durable: boolean; readonly readOnly: boolean }): number {
  const access = options.readOnly ? OPEN.readOnly : OPEN.readWrite
  const descriptor = openFile(imagePath, access | OPEN.direct | (options.durable ? OPEN.dataSync : 0))
  ok(descriptor >= 0, `the image opens: ${descriptor}`)
  if (!options.readOnly) equalZero(locks.setLock(descriptor, 'exclusive', lockByte(descriptor), 1n))
  return descriptor
}

/** An open file description keeps its lock until the last reference to it is gone, the kernel's own included. */
function closeImage(descriptor: number): boolean {
  equalZero(closeDescriptor(descriptor))
  const fresh = openFile(imagePath, OPEN.readWrite)
  const result = locks.setLock(fresh, 'exclusive', lockByte(descriptor), 1n)
  equalZero(closeDescriptor(fresh))
  return result === 0
}

const lockByte = (descriptor: number): bigint => 2n ** 62n + BigInt(descriptor)

function equalZero(result: number): void {
  ok(result === 0, `the call succeeds: ${result}`)
}

async function runScenario(order: ScenarioOrder): Promise<ScenarioReport> {
  const scenario = SCENARIOS[order.scenario]
  ok(scenario !== undefined, `there is a scenario '${order.scenario}'`)
  writeFileSync(imagePath, new Uint8Array(IMAGE_BYTES))
  arena.bytes.fill(0)
  Atomics.store(stopWord, 0, 0)
  const openBefore = openDescriptors()

  const blockingPort = blocking.connectBlockingThread()
  const engine = createEngine(kind, {
    arena,
    doorbellDescriptor: doorbell,
    stopWord,
    streamsMax: 128,
    filesMax: 8,
    operationsMax: 512,
    registeredBytes: order.registeredBytes,
    plainRing: order.plainRing,
    blockingPort,
    threadPoolSize: Number(process.env['UV_THREADPOOL_SIZE']),
  })
  const rig = new Rig({
    engine,
    arena: arena.bytes,
    blockBytes: BLOCK_BYTES,
    connect: () => {
      const [engineEnd, clientEnd] = connectedPair(order.transport)
      return { stream: engine.addStream(engineEnd), client: new SocketClient(clientEnd) }
    },
    openImage,
    imageBytes: () => readFileSync(imagePath),
    wakeLater: (delayMs) => {
      ringer.postMessage({ delayMs, stop: false })
    },
    stopLater: (delayMs) => {
      ringer.postMessage({ delayMs, stop: true })
    },
    closeImage,
  })
  const wake = (): void => {
    engine.wake()
  }
  ringer.on('message', wake)
  let report: ScenarioReport = { outcome: 'stopped', detail: '' }
  const generator = scenario(rig)
  const waiting = { condition: () => true }
  engine.run(() => {
    try {
      if (!rig.turn(generator, waiting)) return
      ok(rig.outstandingCount === 0, 'every token has completed')
      report = { outcome: 'done', detail: '' }
    } catch (error) {
      report = { outcome: 'failed', detail: error instanceof Error ? (error.stack ?? error.message) : String(error) }
    }
    Atomics.store(stopWord, 0, 1)
  })
  while (Atomics.load(stopWord, 0) === 0) await sleep(1)
  await sleep(5)
  ringer.off('message', wake)
  generator.return()
  engine.dispose()
  rig.dispose()
  blockingPort.close()
  return report.outcome === 'failed' ? report : ((await leftOver(openBefore)) ?? report)
}

/** A failure that names the descriptors which are still open, if there are any. */
async function leftOver(openBefore: readonly string[]): Promise<ScenarioReport | undefined> {
  const deadline = performance.now() + LEAK_PATIENCE_MS
  let extra: string[] = []
  do {
    extra = openDescriptors().filter((name) => !openBefore.includes(name))
    if (extra.length === 0) return undefined
    await sleep(5)
  } while (performance.now() < deadline)
  return { outcome: 'failed', detail: `descriptors are left open: ${extra.join(', ')}` }
}

process.on('disconnect', () => {
  process.kill(process.pid, 'SIGKILL')
})
process.on('message', (order: ScenarioOrder) => {
  runScenario(order).then(
    (report) => process.send?.(report),
    (error: unknown) => process.send?.({ outcome: 'failed', detail: String(error) }),
  )
})
process.send?.('ready')
