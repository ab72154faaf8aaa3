/**
 * What an engine is made with, and how it ends. It is the same for every engine, so that whoever starts a worker needs
 * no knowledge of which one it got.
 */

import type { MessagePort } from 'node:worker_threads'
import type { ArenaMemory, Engine } from './contract.ts'

export interface EngineOptions {
  readonly arena: ArenaMemory
  /** An eventfd that other threads ring; it stays the caller's. The file engine is woken by messages and leaves it alone. */
  readonly doorbellDescriptor: number
  /** One Int32 in shared memory. Once it is not 0 the engine takes no further turn, and `run` of io_uring returns. */
  readonly stopWord: Int32Array
  readonly streamsMax: number
  readonly filesMax: number
  /** Disk operations that are expected at once. More are no error; they may cost memory. */
  readonly operationsMax: number
  /** The first bytes of the arena, where disk buffers lie: registered with the kernel if it lets. 0: nothing is. */
  readonly registeredBytes: number
  /** A thread that runs calls which may wait, for the file engine. Without it, it can neither discard nor zero. */
  readonly blockingPort?: MessagePort
  /** Threads of libuv's pool, for the file engine. */
  readonly threadPoolSize: number
  /** Takes no optional feature of the kernel, as if it were the oldest that will do. For tests and diagnosis. */
  readonly plainRing?: boolean
}

/** An engine, and what its owner must do when it is no longer needed. */
export interface OwnedEngine extends Engine {
  /**
   * The ring, so that the main thread can close it when a worker has died without disposing; -1 where there is none.
   */
  readonly ringDescriptor: number
  /** In one phrase: which kernel features it uses, or how many threads. For the log. */
  readonly description: string
  /** Closes what is left of streams and of the engine itself. After the last turn, on the engine's own thread. */
  dispose(): void
}
