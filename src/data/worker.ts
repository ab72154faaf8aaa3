/**
 * The entry of a data worker: makes the engine and the data plane on this thread, and runs the loop. Whatever goes wrong
 * here is a bug: it is told and thrown, and the main thread fences what lived on it. The thread ends then, but for that of
 * a ring: it stays, with nothing to do, until the daemon ends.
 */

import { receiveMessageOnPort, workerData } from 'node:worker_threads'
import type { MessagePort } from 'node:worker_threads'
import { createEngine } from '../engine/create.ts'
import type { OwnedEngine } from '../engine/resources.ts'
import { throwingFaultPoint } from '../fault-points/fault-point.ts'
import { assert } from '../foundation/assert.ts'
import type { Order } from '../plane-link/orders.ts'
import type { WorkerFailed, WorkerMessage } from '../plane-link/reports.ts'
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
  const engine = engineOver(bytes, words, given)
  const arrived: Order[] = []
  let ordersTaken = 0
  const nextOfPort = (): Order | undefined => {
    if (Atomics.load(words, SharedWord.orders) === ordersTaken) return undefined
    const order = takeOrder(port)
    if (order !== undefined) ordersTaken = (ordersTaken + 1) | 0
    return order
  }
  const say = (message: WorkerMessage): void => {
    port.postMessage(message)
  }
  const plane = new DataPlane({
    engine,
    limits,
    bytes,
    say,
    nextOrder: () => {
      const order = arrived.shift() ?? nextOfPort()
      if (order !== undefined) throwingFaultPoint('worker: order taken')
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
  const orDie = dyingOnce((error) => {
    engine.dispose()
    port.postMessage({ kind: 'failed', message: error.message, stack: error.stack ?? '' } satisfies WorkerFailed)
    // The kernel lets the thread of a ring go only when the disk is done, and whoever joins it would wait as long.
    if (engine.kind === 'io_uring') Atomics.wait(words, SharedWord.stop, 0)
  })
  const turn = (): void => {
    plane.turn()
    words[SharedWord.turns] = ((words[SharedWord.turns] ?? 0) + 1) | 0
    words[SharedWord.arenaPages] = plane.state.arena.usedBytes / PAGE_BYTES
  }
  // The file engine takes its turns after `run` has returned.
  orDie(() => {
    engine.run(() => {
      orDie(turn)
    })
  })
  if (engine.kind === 'io_uring') {
    engine.dispose()
    port.close()
  }
}

function engineOver(bytes: Uint8Array, words: Int32Array, given: WorkerStart): OwnedEngine {
  const { limits } = given
  const layout = layOutMemory(limits)
  assert(layout.totalBytes <= given.arenaLengthBytes, 'the arena is as long as its layout')
  return createEngine(given.engine, {
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
}

/** Runs what it is given; of the first error it tells, and throws it on. */
function dyingOnce(tell: (error: Error) => void): (act: () => void) => void {
  let dying = false
  return (act) => {
    try {
      act()
    } catch (error) {
      if (!dying) {
        dying = true
        tell(error instanceof Error ? error : new Error(String(error)))
      }
      throw error
    }
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
