/**
 * Run by `allocation.test.ts` in a process of its own, with `--expose-gc` and a young generation so large that nothing
 * is collected while it measures: what the heap grows by is what was allocated. Prints one JSON object.
 */

import { PerformanceObserver } from 'node:perf_hooks'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { layOutMemory } from '../../src/plane-link/memory-layout.ts'
import type { Order } from '../../src/plane-link/orders.ts'
import { DataPlane } from '../../src/data/data-plane.ts'
import { COMMAND, FLAG, encodeRequest } from '../support/simulated-frontend.ts'
import { TirelessEngine } from './tireless-engine.ts'

const ROUND_REQUESTS = 16_000
const ROUNDS = 6
const ROUNDS_MAX = 60
const ENDURANCE_REQUESTS = 200_000
const SIZE_BYTES = 1 << 20

const limits = {
  slotsMax: 256,
  connectionsMax: 4,
  exportsMax: 2,
  requestsPerConnectionMax: 64,
  arenaBytes: 1 << 20,
  inboxBytes: 65_536,
  payloadBytesMax: 128 * 1024,
  stalledPeerMs: 1000,
  farewellMs: 1000,
}

function makePlane(durability: 'sync' | 'writeback'): TirelessEngine {
  const bytes = new Uint8Array(layOutMemory(limits).totalBytes)
  const engine = new TirelessEngine(bytes)
  const generationCell = new SharedArrayBuffer(4)
  new Int32Array(generationCell)[0] = 1
  const exportId = 1
  const orders: Order[] = [
    {
      order: 1,
      kind: 'attachExport',
      exportId,
      name: 'measured',
      sizeBytes: SIZE_BYTES,
      readOnly: false,
      durability,
      clients: 'exclusive',
      generationCell,
    },
    {
      order: 2,
      kind: 'attachFile',
      exportId,
      descriptor: 3,
      alignmentBytes: 512,
      generation: 1,
      sizeBytes: SIZE_BYTES,
      syncAfterWrite: false,
    },
    { order: 3, kind: 'setGate', exportId, reads: 'admit', writes: 'admit', abortUnsubmitted: false },
    {
      order: 4,
      kind: 'adoptConnection',
      exportId,
      clientId: 1,
      descriptor: 4,
      unread: new Uint8Array(0),
      peer: 'tireless',
      peerIdentity: 'tireless',
    },
  ]
  const plane = new DataPlane({
    engine,
    limits,
    bytes,
    say: () => undefined,
    nextOrder: () => orders.shift(),
    peerGone: () => false,
    now: () => 1,
    wantClock: () => undefined,
  })
  engine.run(plane.turn)
  engine.settle()
  return engine
}

/** As many requests of a kind as a connection may have at once, in different places. */
function script(command: number, lengthBytes: number, flags = 0, shift = 0): Uint8Array {
  const parts: Uint8Array[] = []
  for (let index = 0; index < limits.requestsPerConnectionMax; index += 1) {
    const offset = command === COMMAND.FLUSH ? 0 : (index * 8192 + shift) % (SIZE_BYTES / 2)
    parts.push(encodeRequest({ cookie: index + 1, command, flags, offset, length: lengthBytes }))
    if (command === COMMAND.WRITE) parts.push(new Uint8Array(lengthBytes))
  }
  return Buffer.concat(parts)
}

function heapBytes(): number {
  return process.memoryUsage().heapUsed
}

function collect(): void {
  if (globalThis.gc === undefined) throw new Error('run this with --expose-gc')
  globalThis.gc()
}

let collections = 0
const collectionsSeen = new PerformanceObserver((list) => {
  collections += list.getEntries().length
})
collectionsSeen.observe({ entryTypes: ['gc'] })

/** The observer hears of a collection in a later turn of the event loop. */
async function collectionsSoFar(): Promise<number> {
  await nextTurn()
  await nextTurn()
  return collections
}

/**
 * Bytes allocated per request: the least of several rounds, because the compiler works beside them and allocates, too.
 * A round in which V8 collected says nothing and is played again. -1 if there were not as many answers as requests.
 */
async function measure(durability: 'sync' | 'writeback', requests: Uint8Array, replyBytes: number): Promise<number> {
  const engine = makePlane(durability)
  const times = ROUND_REQUESTS / limits.requestsPerConnectionMax
  engine.play(requests, times * 2)
  const bytesOfRounds: number[] = []
  for (let round = 0; round < ROUNDS_MAX && bytesOfRounds.length < ROUNDS; round += 1) {
    collect()
    const collected = await collectionsSoFar()
    engine.sentBytes = 0
    const before = heapBytes()
    engine.play(requests, times)
    const allocated = heapBytes() - before
    if (engine.sentBytes !== ROUND_REQUESTS * replyBytes) return -1
    if ((await collectionsSoFar()) === collected) bytesOfRounds.push(allocated / ROUND_REQUESTS)
  }
  if (bytesOfRounds.length < ROUNDS) throw new Error(`V8 collected in most of ${ROUNDS_MAX} rounds`)
  return Math.min(...bytesOfRounds)
}

function endure(): number {
  const engine = makePlane('sync')
  const mixed = Buffer.concat([
    script(COMMAND.WRITE, 4096),
    script(COMMAND.READ, 4096),
    script(COMMAND.WRITE, 700, 0, 100),
    script(COMMAND.WRITE_ZEROES, 4096),
  ])
  const times = ENDURANCE_REQUESTS / limits.requestsPerConnectionMax / 4
  engine.play(mixed, times)
  collect()
  const before = heapBytes()
  engine.play(mixed, times)
  collect()
  return heapBytes() - before
}

process.stdout.write(
  JSON.stringify({
    bytesPerRequest: {
      write: await measure('sync', script(COMMAND.WRITE, 4096), 16),
      read: await measure('sync', script(COMMAND.READ, 4096), 16 + 4096),
      'unaligned write': await measure('sync', script(COMMAND.WRITE, 700, 0, 100), 16),
      trim: await measure('sync', script(COMMAND.TRIM, 4096), 16),
      zeroes: await measure('sync', script(COMMAND.WRITE_ZEROES, 5000, 0, 100), 16),
      'write with FUA': await measure('writeback', script(COMMAND.WRITE, 4096, FLAG.FUA), 16),
      flush: await measure('writeback', script(COMMAND.FLUSH, 0), 16),
    },
    grownBytes: endure(),
    requests: ENDURANCE_REQUESTS,
  }),
)
