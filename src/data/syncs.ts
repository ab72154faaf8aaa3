/**
 * fdatasync, shared: at most one is on its way per export, and whoever asks meanwhile is covered by the next one. A sync
 * covers the writes that had completed when it was handed to the engine, so nobody may join one that is on its way.
 */

import { assert } from '../foundation/assert.ts'
import type { PlaneState } from './plane-state.ts'
import type { ServedExport } from './served-export.ts'
import { TokenKind, makeToken } from './token.ts'

const EIO = 5

export class Syncs {
  readonly #state: PlaneState

  constructor(state: PlaneState) {
    this.#state = state
  }

  /** The request is answered once a sync that begins from now on has completed. */
  join(served: ServedExport, slot: number): void {
    served.syncWaiting.push(slot)
    this.#begin(served)
  }

  /** The same for an order of the main thread. */
  joinOrder(served: ServedExport, order: number): void {
    served.syncOrdersWaiting.push(order)
    this.#begin(served)
  }

  /** Answers the orders; returns the requests that this sync covered, to be emptied by the caller. */
  completed(served: ServedExport, result: number): number[] {
    assert(served.syncRunning, 'a sync completes once')
    served.syncRunning = false
    if (result >= 0) served.synced = served.syncing
    for (const order of served.syncOrdersCovered) {
      this.#state.say({ kind: 'report', order, value: { errno: result < 0 ? -result : errnoOfFault(served) } })
    }
    served.syncOrdersCovered.length = 0
    const covered = served.syncCovered.splice(0)
    this.#begin(served)
    return covered
  }

  #begin(served: ServedExport): void {
    if (served.syncRunning || served.syncWaiting.length + served.syncOrdersWaiting.length === 0) return
    served.syncRunning = true
    served.syncing = served.dirty
    for (const slot of served.syncWaiting) served.syncCovered.push(slot)
    served.syncWaiting.length = 0
    for (const order of served.syncOrdersWaiting) served.syncOrdersCovered.push(order)
    served.syncOrdersWaiting.length = 0
    this.#state.engine.sync(served.file, makeToken(TokenKind.exportSync, served.index, 0))
  }
}

/** The kernel tells of a failed write-back once: what a later sync says of a faulted export proves nothing. */
function errnoOfFault(served: ServedExport): number {
  return served.faulted ? EIO : 0
}
