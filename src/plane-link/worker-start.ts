/**
 * What a data worker is started with, and the words of memory that it shares with the main thread. Only numbers,
 * addresses and ports cross: each thread makes its own view of the arena.
 */

import type { MessagePort } from 'node:worker_threads'

export interface WorkerLimits {
  readonly slotsMax: number
  readonly connectionsMax: number
  readonly exportsMax: number
  readonly requestsPerConnectionMax: number
  readonly arenaBytes: number
  readonly inboxBytes: number
  readonly payloadBytesMax: number
  readonly stalledPeerMs: number
  readonly farewellMs: number
}

export interface WorkerStart {
  readonly index: number
  readonly engine: 'io_uring' | 'file'
  readonly limits: WorkerLimits
  readonly arenaAddress: bigint
  readonly arenaLengthBytes: number
  readonly doorbellDescriptor: number
  readonly shared: SharedArrayBuffer
  readonly port: MessagePort
  /** Null for io_uring. */
  readonly blockingPort: MessagePort | null
  readonly threadPoolSize: number
}

/** Indexes of the shared Int32 words. */
export const SharedWord = {
  /** Not 0: the worker leaves its loop. */
  stop: 0,
  /** Counts the orders posted, so that a turn without orders need not look at the port. */
  orders: 1,
  /** Not 0: the worker wants to be woken now and then, because something in it depends on time. */
  clock: 2,
  /** Pages of the buffer arena that are in use, as of the worker's latest turn. */
  arenaPages: 3,
  /** Turns of the worker until now, modulo 2^32. */
  turns: 4,
} as const
export const SHARED_WORDS = 5
