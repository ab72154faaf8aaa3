/**
 * The data workers of a daemon: started together, one replaced when it has died and somebody needs it again. It knows
 * which worker is which, and nothing of what lives on them.
 */

import { LIMITS } from '../config/limits.ts'
import type { OperatorLimits } from '../config/limits.ts'
import { assert, present } from '../foundation/assert.ts'
import { layOutMemory } from '../plane-link/memory-layout.ts'
import type { WorkerLimits } from '../plane-link/worker-start.ts'
import { DataWorker } from '../plane-link/data-worker.ts'
import type { Notice, WorkerReady } from '../plane-link/reports.ts'
import type { ExportLog, Placement } from './export-context.ts'

export interface WorkerPoolOptions {
  readonly count: number
  readonly engine: { readonly kind: 'io_uring' | 'file'; readonly reason: string }
  readonly limits: OperatorLimits
  readonly threadPoolSize: number
  readonly log: ExportLog
  readonly onNotice: (worker: DataWorker, notice: Exclude<Notice, WorkerReady>) => void
  readonly onDeath: (worker: DataWorker, cause: Error) => void
}

/** A peer that stands still so long while others wait for its memory is cut. */
const STALLED_PEER_MS = 5000
/** How long a connection that is being cut may take for its last answers. */
const FAREWELL_MS = 1000

export class WorkerPool {
  readonly #options: WorkerPoolOptions
  readonly #workers: DataWorker[] = []

  constructor(options: WorkerPoolOptions) {
    this.#options = options
  }

  get workers(): readonly DataWorker[] {
    return this.#workers
  }

  async start(): Promise<void> {
    for (let index = 0; index < this.#options.count; index += 1) this.#workers.push(this.#spawn(index))
    await Promise.all(this.#workers.map((worker) => this.#announce(worker)))
  }

  /** The worker of that number, alive. */
  async place(index: number): Promise<Placement> {
    const worker = present(this.#workers[index], `worker ${index}`)
    if (worker.alive) return { worker, engine: this.#options.engine }
    const next = this.#spawn(index)
    this.#workers[index] = next
    await this.#announce(next)
    return { worker: next, engine: this.#options.engine }
  }

  async stop(): Promise<void> {
    await Promise.all(this.#workers.filter((worker) => worker.alive).map((worker) => worker.stop()))
  }

  /** For the last moment of the process: nobody may sleep through it. */
  abandon(): void {
    for (const worker of this.#workers) worker.abandon()
  }

  async #announce(worker: DataWorker): Promise<void> {
    const ready = await worker.ready
    this.#options.log.info(
      { worker: worker.index, engine: ready.engine, description: ready.description },
      'data worker started',
    )
  }

  #spawn(index: number): DataWorker {
    const limits = workerLimits(this.#options.limits)
    const worker: DataWorker = new DataWorker({
      index,
      engine: this.#options.engine.kind,
      limits,
      arenaLengthBytes: layOutMemory(limits).totalBytes,
      threadPoolSize: this.#options.threadPoolSize,
      onNotice: (notice) => {
        this.#options.onNotice(worker, notice)
      },
      onDeath: (cause) => {
        this.#options.onDeath(worker, cause)
      },
    })
    return worker
  }
}

function workerLimits(limits: OperatorLimits): WorkerLimits {
  assert(limits.connectionsMax <= LIMITS.connectionsMax * 4, 'the limits were checked')
  return {
    slotsMax: LIMITS.slotsPerWorker,
    connectionsMax: limits.connectionsMax,
    exportsMax: LIMITS.exportsMax,
    requestsPerConnectionMax: limits.requestsPerConnectionMax,
    arenaBytes: limits.arenaBytes,
    inboxBytes: LIMITS.inboxBytes,
    payloadBytesMax: LIMITS.payloadBytesMax,
    stalledPeerMs: STALLED_PEER_MS,
    farewellMs: FAREWELL_MS,
  }
}
