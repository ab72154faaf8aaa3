/**
 * The main thread's end of a data worker: starts it, sends it orders, matches each with its report, passes its notices
 * on, and notices its death. It knows nothing of what the orders mean.
 *
 * A worker that sleeps in the kernel cannot be terminated. It leaves by itself, after the order `stop`, when it finds
 * the stop word set; if it dies before, every order that is not answered rejects with `WorkerGone`. Its death is told at
 * once. Its thread may stay for as long as a disk has what it had submitted: that is waited for by `released` only.
 */

import { MessageChannel, Worker } from 'node:worker_threads'
import type { MessagePort } from 'node:worker_threads'
import { BlockingThread } from '../blocking/blocking-thread.ts'
import { assert, present } from '../foundation/assert.ts'
import { closeDescriptor } from '../posix/descriptor.ts'
import { createEventfd, ringEventfd } from '../posix/eventfd.ts'
import type { MappedMemory } from '../posix/mapping.ts'
import { mapMemory, unmapMemory } from '../posix/mapping.ts'
import { PAGE_BYTES } from './memory-layout.ts'
import type { Order, OrderBody, OrderKind } from './orders.ts'
import type { Notice, ReportOf, WorkerFailed, WorkerMessage, WorkerReady } from './reports.ts'
import type { WorkerLimits, WorkerStart } from './worker-start.ts'
import { SHARED_WORDS, SharedWord } from './worker-start.ts'

const CLOCK_INTERVAL_MS = 250
/** A worker allocates next to nothing while it serves; what it needs memory for is listings. */
const HEAP = { maxYoungGenerationSizeMb: 2, maxOldGenerationSizeMb: 256 } as const

/** The worker ended before it answered. */
export class WorkerGone extends Error {
  override readonly name = 'WorkerGone'
}

export interface DataWorkerOptions {
  readonly index: number
  readonly engine: 'io_uring' | 'file'
  readonly limits: WorkerLimits
  readonly arenaLengthBytes: number
  readonly threadPoolSize: number
  readonly onNotice: (notice: Exclude<Notice, WorkerReady>) => void
  /** Once, when the worker has ended without having been stopped. */
  readonly onDeath: (cause: Error) => void
}

interface Waiting {
  readonly kind: OrderKind
  readonly resolve: (value: never) => void
  readonly reject: (reason: Error) => void
}

export class DataWorker {
  readonly index: number
  readonly ready: Promise<WorkerReady>
  readonly #options: DataWorkerOptions
  readonly #worker: Worker
  readonly #port: MessagePort
  readonly #words: Int32Array
  readonly #doorbell: number
  readonly #memory: MappedMemory
  /** For calls that the file engine cannot make without waiting; io_uring has no need of it. */
  readonly #blocking: BlockingThread | null
  readonly #waiting = new Map<number, Waiting>()
  readonly #exited: Promise<void>
  readonly #released: Promise<void>
  readonly #clock: NodeJS.Timeout
  #lastOrder = 0
  #state: 'running' | 'stopping' | 'dead' = 'running'
  #failure: Error | undefined
  #ringDescriptor = -1
  #resolveReady: (ready: WorkerReady) => void = () => undefined
  #rejectReady: (reason: Error) => void = () => undefined
  #resolveReleased: () => void = () => undefined

  constructor(options: DataWorkerOptions) {
    this.index = options.index
    this.#options = options
    this.#words = new Int32Array(new SharedArrayBuffer(SHARED_WORDS * 4))
    this.#doorbell = createEventfd()
    assert(this.#doorbell >= 0, 'an eventfd could be made')
    this.#memory = mapMemory(options.arenaLengthBytes)
    this.#blocking = options.engine === 'file' ? new BlockingThread(`data-blocking-${options.index}`) : null
    const { port1, port2 } = new MessageChannel()
    const blockingPort = this.#blocking?.connectBlockingThread() ?? null
    const start: WorkerStart = {
      index: options.index,
      engine: options.engine,
      limits: options.limits,
      arenaAddress: this.#memory.address,
      arenaLengthBytes: options.arenaLengthBytes,
      doorbellDescriptor: this.#doorbell,
      shared: this.#words.buffer as SharedArrayBuffer,
      port: port2,
      blockingPort,
      threadPoolSize: options.threadPoolSize,
    }
    this.#port = port1
    this.ready = new Promise((resolve, reject) => {
      this.#resolveReady = resolve
      this.#rejectReady = reject
    })
    // Whoever waits for the worker hears of its end; whoever does not must not be ended by it.
    this.ready.catch(() => undefined)
    this.#worker = new Worker(new URL('../data/worker.js', import.meta.url), {
      name: `data-${options.index}`,
      workerData: start,
      transferList: blockingPort === null ? [port2] : [port2, blockingPort],
      resourceLimits: HEAP,
      trackUnmanagedFds: false,
    })
    this.#released = new Promise((resolve) => {
      this.#resolveReleased = resolve
    })
    this.#exited = new Promise((resolve) => {
      this.#worker.once('exit', () => {
        this.#ended()
        resolve()
      })
    })
    this.#worker.on('error', (error) => {
      this.#died(error instanceof Error ? error : new Error(String(error)))
    })
    port1.on('message', (message: WorkerMessage | WorkerFailed) => {
      this.#received(message)
    })
    this.#clock = setInterval(() => {
      if (Atomics.load(this.#words, SharedWord.clock) !== 0) this.#ring()
    }, CLOCK_INTERVAL_MS)
    this.#clock.unref()
  }

  get alive(): boolean {
    return this.#state !== 'dead'
  }

  /** Settles when a worker that has died asks nothing of any descriptor by its number any more. Never before it has. */
  get released(): Promise<void> {
    return this.#released
  }

  /** Bytes of the buffer arena that are reserved, as of the worker's latest turn. */
  get arenaUsedBytes(): number {
    return Atomics.load(this.#words, SharedWord.arenaPages) * PAGE_BYTES
  }

  /** Turns that the worker has taken, modulo 2^32. */
  get turns(): number {
    return Atomics.load(this.#words, SharedWord.turns) >>> 0
  }

  /** Sends an order and resolves with the value of its report; rejects with `WorkerGone` only. */
  order<B extends OrderBody>(body: B): Promise<ReportOf<B['kind']>> {
    if (this.#state === 'dead') return Promise.reject(this.#gone(body.kind))
    this.#lastOrder += 1
    const order: Order = { ...body, order: this.#lastOrder }
    return new Promise((resolve, reject) => {
      this.#waiting.set(order.order, { kind: body.kind, resolve, reject })
      this.#port.postMessage(order)
      Atomics.add(this.#words, SharedWord.orders, 1)
      if (this.#options.engine === 'io_uring') this.#ring()
    })
  }

  /** Ends all connections, then the worker. Settles when its thread is gone. */
  async stop(): Promise<void> {
    if (this.#state === 'running') {
      this.#state = 'stopping'
      await this.order({ kind: 'stop' }).catch(() => null)
      this.#setStopWord()
      if (this.#options.engine === 'file') this.#port.close()
    }
    await this.#exited
    await this.#blocking?.close()
  }

  /** For the last moment of a process: the worker must not sleep through it. */
  abandon(): void {
    this.#setStopWord()
  }

  #setStopWord(): void {
    Atomics.store(this.#words, SharedWord.stop, 1)
    // One that has died waits for nothing else.
    Atomics.notify(this.#words, SharedWord.stop)
    this.#ring()
  }

  /** A worker that sleeps in the kernel is woken by its eventfd, one in node's loop by a message that says nothing. */
  #ring(): void {
    if (this.#state === 'dead') return
    if (this.#options.engine === 'io_uring') ringEventfd(this.#doorbell)
    else this.#port.postMessage(null)
  }

  #received(message: WorkerMessage | WorkerFailed): void {
    switch (message.kind) {
      case 'report': {
        const waiting = present(this.#waiting.get(message.order), `the order ${message.order} that was reported`)
        this.#waiting.delete(message.order)
        waiting.resolve(message.value as never)
        return
      }
      case 'ready':
        this.#ringDescriptor = message.ringDescriptor
        this.#resolveReady(message)
        return
      case 'failed': {
        // It has closed its ring, and what the kernel has holds its own reference to the file.
        if (this.#options.engine === 'io_uring') {
          this.#ringDescriptor = -1
          this.#resolveReleased()
        }
        const failure = new Error(message.message)
        failure.stack = message.stack
        this.#died(failure)
        return
      }
      default:
        this.#options.onNotice(message)
    }
  }

  #gone(kind: OrderKind): WorkerGone {
    const cause = this.#failure === undefined ? '' : `: ${this.#failure.message}`
    return new WorkerGone(`the data worker ${this.index} ended before it answered '${kind}'${cause}`)
  }

  /** It serves nothing any more; its thread may still be there. */
  #died(cause: Error): void {
    if (this.#state === 'dead') return
    this.#failure = cause
    this.#worker.unref()
    this.#isDead()
    this.#options.onDeath(cause)
  }

  #isDead(): void {
    this.#state = 'dead'
    clearInterval(this.#clock)
    for (const waiting of this.#waiting.values()) waiting.reject(this.#gone(waiting.kind))
    this.#waiting.clear()
    this.#rejectReady(this.#failure ?? new WorkerGone(`the data worker ${this.index} ended`))
    this.#port.close()
  }

  /** The thread is gone. */
  #ended(): void {
    const stopped = this.#state === 'stopping'
    if (stopped) this.#isDead()
    else this.#died(new Error(`the data worker ${this.index} ended by itself`))
    closeDescriptor(this.#doorbell)
    if (stopped) {
      unmapMemory(this.#memory)
      return
    }
    // The kernel may still write to the arena of a worker that died, so that memory stays mapped.
    if (this.#ringDescriptor >= 0) closeDescriptor(this.#ringDescriptor)
    void this.#blocking?.close().then(this.#resolveReleased)
    if (this.#blocking === null) this.#resolveReleased()
  }
}
