/**
 * Blocking threads for many images: each call goes to a thread that is idle, so an image that hangs costs one thread and
 * delays nobody else, until all threads hang. Where all are busy calls wait here, in order, and not behind any particular
 * call: one that hangs has nothing behind it. Another thread is started only for a call that has waited a little: most
 * calls are over long before a thread has come up. Calls of different images are not ordered among each other; a caller that
 * needs order waits for each answer.
 *
 * A thread costs some 12 MiB. What was needed at once for a moment is let go after a while, also when calls never cease;
 * only as many as are asked for are kept beside those that are in a call, for those who must not wait for a thread to start.
 */

import { BlockingThread } from './blocking-thread.ts'
import type { BlockingCall, BlockingResultOf, BlockingRunner } from './calls.ts'

/**
 * How often the pool looks whether it has more threads than were needed at once since its last look. One leaves at a time:
 * making one takes more than a tenth of a second of processor time, and what many exports need again and again as they
 * open shall not be made anew for each.
 */
const LOOK_MS = 500

/** How long a call waits for a thread that is busy before another one is started. */
const PATIENCE_MS = 5

/** A call that has found no thread yet. */
interface WaitingCall {
  readonly call: BlockingCall
  readonly resolve: (result: never) => void
  readonly reject: (reason: unknown) => void
}

export class BlockingPool implements BlockingRunner {
  readonly #name: string
  readonly #threadsMax: number
  readonly #threadsKept: number
  readonly #closing = new Set<Promise<void>>()
  readonly #waiting: WaitingCall[] = []
  #noneWaits: () => void = () => undefined
  #look: NodeJS.Timeout | null = null
  /** The most calls at once since the last look. */
  #busiest = 0
  #threads: BlockingThread[] = []
  /** One at a time: they would only take the processor from each other. */
  #isStarting = false
  #started = 0
  #patience: NodeJS.Timeout | null = null

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
    this.#lookLater()
    const thread = this.#idleThread()
    if (thread !== null) return this.#runOn(thread, call)
    return new Promise((resolve, reject) => {
      this.#waiting.push({ call, resolve, reject })
      if (this.#threads.length === 0) this.#startThread()
      else this.#startThreadSoon()
    })
  }

  /** What was asked is done first. */
  async close(): Promise<void> {
    if (this.#look !== null) clearTimeout(this.#look)
    if (this.#waiting.length > 0) await new Promise<void>((resolve) => (this.#noneWaits = resolve))
    if (this.#patience !== null) clearTimeout(this.#patience)
    await Promise.all([...this.#closing, ...this.#threads.map((thread) => thread.close())])
  }

  async #runOn<C extends BlockingCall>(thread: BlockingThread, call: C): Promise<BlockingResultOf<C['kind']>> {
    const running = thread.run(call)
    this.#busiest = Math.max(this.#busiest, this.busyCount)
    try {
      return await running
    } finally {
      this.#serveWaiting()
    }
  }

  #serveWaiting(): void {
    while (this.#waiting.length > 0) {
      const thread = this.#idleThread()
      if (thread === null) {
        this.#startThreadSoon()
        return
      }
      const { call, resolve, reject } = this.#waiting.shift() as WaitingCall
      // The queue forgets which kind of result belongs to which call; the thread gives the right one.
      this.#runOn(thread, call).then(resolve as (result: unknown) => void, reject)
    }
    this.#noneWaits()
  }

  /** One that has come up and has nothing to do. */
  #idleThread(): BlockingThread | null {
    // A thread that died would otherwise look idle for ever.
    this.#threads = this.#threads.filter((thread) => !thread.gone)
    return this.#threads.find((thread) => thread.outstanding === 0) ?? null
  }

  /** Where calls still wait after a while. Whenever a thread is free, calls that still wait ask for this again. */
  #startThreadSoon(): void {
    this.#patience ??= setTimeout(() => {
      this.#patience = null
      // What has been answered by now is heard first.
      setImmediate(() => {
        if (this.#waiting.length > 0 && !this.#isStarting) this.#startThread()
      })
    }, PATIENCE_MS)
  }

  #startThread(): void {
    if (this.#threads.length >= this.#threadsMax) return
    const thread = new BlockingThread(`${this.#name}-${this.#started}`)
    this.#started += 1
    this.#threads.push(thread)
    void this.#comeUp(thread)
  }

  /** Whoever waits is served by whoever is free first: this thread, or one that was busy. */
  async #comeUp(thread: BlockingThread): Promise<void> {
    this.#isStarting = true
    try {
      await thread.run({ kind: 'inTurn', calls: [] })
    } catch (error) {
      this.#waiting.shift()?.reject(error)
    } finally {
      this.#isStarting = false
      this.#serveWaiting()
    }
  }

  #lookLater(): void {
    if (this.#look !== null) return
    this.#look = setTimeout(() => {
      this.#look = null
      this.#retire()
    }, LOOK_MS)
    this.#look.unref()
  }

  #retire(): void {
    const needed = Math.max(this.busyCount + this.#threadsKept, this.#busiest)
    const leaving = this.#threads.findLast((thread) => thread.outstanding === 0)
    if (leaving !== undefined && this.#threads.length > needed) {
      this.#threads = this.#threads.filter((thread) => thread !== leaving)
      const closed = leaving.close().finally(() => this.#closing.delete(closed))
      this.#closing.add(closed)
    }
    this.#busiest = this.busyCount
    if (this.#threads.length > this.#threadsKept) this.#lookLater()
  }
}
