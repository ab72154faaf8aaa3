/**
 * A small thread that runs calls which may wait, one at a time, for whoever holds a line to it. Each purpose has a
 * thread of its own, so that a dead image cannot delay another export's record.
 *
 * A call that hangs in the kernel hangs its thread and all calls behind it, and no more than that: there is no way to
 * interrupt it. Such a thread cannot be terminated either: `close` then never settles, and node's orderly exit waits for
 * it for ever. A signal that kills the process still works, without any help from the program: most waits end at once,
 * an uninterruptible one when the device or file server answers. So whoever must leave with a call outstanding logs that
 * and sends itself SIGKILL.
 */

import { MessageChannel, Worker } from 'node:worker_threads'
import type { MessagePort } from 'node:worker_threads'
import { BlockingPort } from './blocking-port.ts'
import type { BlockingCall, BlockingResultOf, BlockingRunner } from './calls.ts'

/** The messages to the thread itself, beside those on its lines. */
export type ThreadMessage = { readonly kind: 'line'; readonly port: MessagePort } | { readonly kind: 'leave' }

const HEAP = { maxOldGenerationSizeMb: 24, maxYoungGenerationSizeMb: 1, codeRangeSizeMb: 16, stackSizeMb: 1 } as const

export class BlockingThread implements BlockingRunner {
  readonly name: string
  readonly #worker: Worker
  readonly #exited: Promise<void>
  readonly #line: BlockingPort
  #failure: Error | null = null

  /** Throws nothing: a thread that fails to start or dies rejects the calls on its lines. */
  constructor(name: string) {
    this.name = name
    this.#worker = new Worker(new URL('./thread-entry.js', import.meta.url), {
      name,
      resourceLimits: HEAP,
      trackUnmanagedFds: false,
    })
    this.#exited = new Promise((resolve) => {
      this.#worker.once('exit', () => {
        resolve()
      })
    })
    this.#worker.on('error', (error) => {
      this.#failure = error
    })
    this.#worker.unref()
    this.#line = new BlockingPort(this.connectBlockingThread())
  }

  /** What ended the thread, where it did not end by `close`: the cause behind a `BlockingThreadGone`. */
  get failure(): Error | null {
    return this.#failure
  }

  /** True once it answers no call any more. */
  get gone(): boolean {
    return this.#line.gone
  }

  /** Calls of this line that are not answered yet. */
  get outstanding(): number {
    return this.#line.outstanding
  }

  run<C extends BlockingCall>(call: C): Promise<BlockingResultOf<C['kind']>> {
    return this.#line.run(call)
  }

  /**
   * A further line, to be transferred to another thread, which posts `BlockingRequest` and receives `BlockingReply`
   * (`BlockingPort` does both) without the thread that made it in between.
   */
  connectBlockingThread(): MessagePort {
    const { port1, port2 } = new MessageChannel()
    const message: ThreadMessage = { kind: 'line', port: port2 }
    this.#worker.postMessage(message, [port2])
    return port1
  }

  /** Settles once the thread has finished what was asked of it and is gone: never, if a call hangs. */
  async close(): Promise<void> {
    const message: ThreadMessage = { kind: 'leave' }
    this.#worker.ref()
    this.#worker.postMessage(message)
    await this.#exited
    this.#line.close()
  }
}
