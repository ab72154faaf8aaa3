/**
 * Blocking threads for many images: each call goes to a thread that is idle, so an image that hangs costs one thread and
 * delays nobody else, until all threads hang. Calls of different images are not ordered among each other; a caller that
 * needs order waits for each answer.
 *
 * A thread costs some 12 MiB. What was needed at once for a moment is let go after a while; only as many as are asked for
 * are kept, for those who must not wait for a thread to start.
 */

import { present } from '../foundation/assert.ts'
import { BlockingThread } from './blocking-thread.ts'
import type { BlockingCall, BlockingResultOf, BlockingRunner } from './calls.ts'

/** How long a thread may be idle before it is let go. */
const IDLE_MS = 500

export class BlockingPool implements BlockingRunner {
  readonly #name: string
  readonly #threadsMax: number
  readonly #threadsKept: number
  readonly #closing = new Set<Promise<void>>()
  #retirement: NodeJS.Timeout | null = null
  #threads: BlockingThread[] = []
  #started = 0

  constructor(name: string, threadsMax: number, threadsKept = 1) {
    this.#name = name
    this.#threadsMax = threadsMax
    this.#threadsKept = threadsKept
  }

  /** Threads that are in a call now. */
  get busyCount(): number {
    return this.#threads.filter((thread) => thread.outstanding > 0).length
  }

  run<C extends BlockingCall>(call: C): Promise<BlockingResultOf<C['kind']>> {
    const result = this.#choose().run(call)
    this.#retireLater()
    return result
  }

  async close(): Promise<void> {
    if (this.#retirement !== null) clearTimeout(this.#retirement)
    await Promise.all([...this.#closing, ...this.#threads.map((thread) => thread.close())])
  }

  /** Looks once nothing was asked for a while; a call that comes meanwhile puts it off. */
  #retireLater(): void {
    if (this.#retirement !== null) clearTimeout(this.#retirement)
    this.#retirement = setTimeout(() => {
      this.#retire()
    }, IDLE_MS)
    this.#retirement.unref()
  }

  #retire(): void {
    const idle = this.#threads.filter((thread) => thread.outstanding === 0)
    const leaving = idle.slice(Math.max(0, this.#threadsKept - (this.#threads.length - idle.length)))
    this.#threads = this.#threads.filter((thread) => !leaving.includes(thread))
    for (const thread of leaving) {
      const closed = thread.close().finally(() => this.#closing.delete(closed))
      this.#closing.add(closed)
    }
    // Those in a call now are looked at again.
    if (this.#threads.length > this.#threadsKept) this.#retireLater()
  }

  #choose(): BlockingThread {
    // A thread that died is replaced: it would otherwise look idle for ever.
    this.#threads = this.#threads.filter((thread) => !thread.gone)
    const idle = this.#threads.find((thread) => thread.outstanding === 0)
    if (idle !== undefined) return idle
    if (this.#threads.length < this.#threadsMax) {
      const thread = new BlockingThread(`${this.#name}-${this.#started}`)
      this.#started += 1
      this.#threads.push(thread)
      return thread
    }
    const byLoad = [...this.#threads].sort((a, b) => a.outstanding - b.outstanding)
    return present(byLoad[0], 'a blocking thread')
  }
}
