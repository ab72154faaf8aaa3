/**
 * Blocking threads for many images: each call goes to a thread that is idle, so an image that hangs costs one thread and
 * delays nobody else, until all threads hang. Calls of different images are not ordered among each other; a caller that
 * needs order waits for each answer.
 */

import { present } from '../foundation/assert.ts'
import { BlockingThread } from './blocking-thread.ts'
import type { BlockingCall, BlockingResultOf, BlockingRunner } from './calls.ts'

export class BlockingPool implements BlockingRunner {
  readonly #name: string
  readonly #threadsMax: number
  #threads: BlockingThread[] = []
  #started = 0

  constructor(name: string, threadsMax: number) {
    this.#name = name
    this.#threadsMax = threadsMax
  }

  /** Threads that are in a call now. */
  get busyCount(): number {
    return this.#threads.filter((thread) => thread.outstanding > 0).length
  }

  run<C extends BlockingCall>(call: C): Promise<BlockingResultOf<C['kind']>> {
    return this.#choose().run(call)
  }

  async close(): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.close()))
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
