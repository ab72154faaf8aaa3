/**
 * One end of a line to a blocking thread: calls go out, results come back in the same order. Both ends of the line may
 * be in any thread. It holds nothing but the calls that are not answered yet.
 */

import { receiveMessageOnPort } from 'node:worker_threads'
import type { MessagePort } from 'node:worker_threads'
import { present } from '../foundation/assert.ts'
import type { BlockingCall, BlockingResult, BlockingResultOf, BlockingRunner } from './calls.ts'

/** What goes out on a line. */
export interface BlockingRequest {
  readonly id: number
  readonly call: BlockingCall
}

/** What comes back. */
export interface BlockingReply {
  readonly id: number
  readonly result: BlockingResult
}

/** The thread ended before it answered; what became of the call is unknown. */
export class BlockingThreadGone extends Error {
  override readonly name = 'BlockingThreadGone'
}

interface Waiting {
  readonly resolve: (result: never) => void
  readonly reject: (reason: Error) => void
}

export class BlockingPort implements BlockingRunner {
  readonly #port: MessagePort
  readonly #waiting = new Map<number, Waiting>()
  #lastId = 0
  #closed = false

  constructor(port: MessagePort) {
    this.#port = port
    port.on('message', (reply: BlockingReply) => {
      this.#settle(reply)
    })
    port.on('close', () => {
      this.#fail()
    })
    // Waiting for calls keeps a thread alive only while there are any.
    port.unref()
  }

  /** How many calls are not answered yet, the one that runs included. */
  get outstanding(): number {
    return this.#waiting.size
  }

  /** True once no call will be answered any more: the thread ended, or this end was closed. */
  get gone(): boolean {
    return this.#closed
  }

  /** Rejects with `BlockingThreadGone` only; the failure of the call itself is its result. */
  run<C extends BlockingCall>(call: C): Promise<BlockingResultOf<C['kind']>> {
    if (this.#closed) return Promise.reject(new BlockingThreadGone(`the line for '${call.kind}' is closed`))
    this.#lastId += 1
    const request: BlockingRequest = { id: this.#lastId, call }
    return new Promise((resolve, reject) => {
      this.#waiting.set(request.id, { resolve, reject })
      if (this.#waiting.size === 1) this.#port.ref()
      this.#port.postMessage(request)
    })
  }

  /** What was answered by now is still given, even where the news of it was not heard yet. */
  close(): void {
    if (!this.#closed) this.#takeAnswered()
    this.#port.close()
    this.#fail()
  }

  #takeAnswered(): void {
    let heard = receiveMessageOnPort(this.#port)
    while (heard !== undefined) {
      this.#settle(heard.message as BlockingReply)
      heard = receiveMessageOnPort(this.#port)
    }
  }

  #settle(reply: BlockingReply): void {
    const waiting = present(this.#waiting.get(reply.id), `the call ${reply.id} that was answered`)
    this.#waiting.delete(reply.id)
    if (this.#waiting.size === 0) this.#port.unref()
    // The map forgets which kind of result belongs to which call; the thread's switch guarantees it.
    waiting.resolve(reply.result as never)
  }

  #fail(): void {
    this.#closed = true
    const abandoned = [...this.#waiting.values()]
    this.#waiting.clear()
    for (const waiting of abandoned) waiting.reject(new BlockingThreadGone('the blocking thread ended during the call'))
  }
}
