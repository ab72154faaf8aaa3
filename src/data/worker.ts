/**
 * The entry of a data worker: makes the engine and the data plane on this thread, and runs the loop. Whatever goes wrong
 * here is a bug: it is thrown, the thread ends, and the main thread fences what lived on it.
 */

import { receiveMessageOnPort, workerData } from 'node:worker_threads'
import type { MessagePort } from 'node:worker_threads'
import { createEngine } from '../engine/create.ts'
import { assert } from '../foundation/assert.ts'
import type { Order } from '../plane-link/orders.ts'
import type { WorkerMessage } from '../plane-link/reports.ts'
import type { WorkerStart } from '../plane-link/worker-start.ts'
import { SharedWord } from '../plane-link/worker-start.ts'
import { viewMemory } from '../posix/mapping.ts'
import { peerGone } from '../posix/socket.ts'
import { DataPlane } from './data-plane.ts'
import { PAGE_BYTES, layOutMemory } from '../plane-link/memory-layout.ts'

function start(given: WorkerStart): void {
  const { limits, port } = given
  const words = new Int32Array(given.shared)
  const bytes = viewMemory(given.arenaAddress, given.arenaLengthBytes)
  const layout = layOutMemory(limits)
  assert(layout.totalBytes <= given.arenaLengthBytes, 'the arena is as long as its layout')
  const engine = createEngine(given.engine, {
    arena: { address: given.arenaAddress, lengthBytes: given.arenaLengthBytes, bytes },
    doorbellDescriptor: given.doorbellDescriptor,
    stopWord: words.subarray(SharedWord.stop, SharedWord.stop + 1),
    streamsMax: limits.connectionsMax,
    filesMax: limits.exportsMax,
    operationsMax: limits.slotsMax,
    registeredBytes: layout.inboxesAt,
    ...(given.blockingPort === null ? {} : { blockingPort: given.blockingPort }),
    threadPoolSize: given.threadPoolSize,
  })
  const arrived: Order[] = []
  let ordersTaken = 0
  const say = (message: WorkerMessage): void => {
    port.postMessage(message)
  }
  const plane = new DataPlane({
    engine,
    limits,
    bytes,
    say,
    nextOrder: () => {
      const first = arrived.shift()
      if (first !== undefined) return first
      if (Atomics.load(words, SharedWord.orders) === ordersTaken) return undefined
      const order = takeOrder(port)
      if (order !== undefined) ordersTaken = (ordersTaken + 1) | 0
      return order
    },
    peerGone,
    now: () => performance.now(),
    wantClock: (wanted) => {
      Atomics.store(words, SharedWord.clock, wanted ? 1 : 0)
    },
  })
  if (engine.kind === 'file') {
    port.on('message', (order: Order | null) => {
      if (order !== null) {
        ordersTaken = (ordersTaken + 1) | 0
        arrived.push(order)
      }
      engine.wake()
    })
  }
  port.once('close', () => {
    engine.dispose()
  })
  say({
    kind: 'ready',
    engine: given.engine,
    description: engine.description,
    ringDescriptor: engine.ringDescriptor,
  })
  engine.run(() => {
    plane.turn()
    words[SharedWord.turns] = ((words[SharedWord.turns] ?? 0) + 1) | 0
    words[SharedWord.arenaPages] = plane.state.arena.usedBytes / PAGE_BYTES
  })
  if (engine.kind === 'io_uring') {
    engine.dispose()
    port.close()
  }
}

/** The next order that has come, past the messages that say nothing and only wake. */
function takeOrder(port: MessagePort): Order | undefined {
  for (;;) {
    const received = receiveMessageOnPort(port)
    if (received === undefined) return undefined
    if (received.message !== null) return received.message as Order
  }
}

start(workerData as WorkerStart)
