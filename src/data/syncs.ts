/**
 * fdatasync, shared: at most one is on its way per export, and whoever asks meanwhile is covered by the next one. A sync
 * covers the writes that had completed when it was handed to the engine, so nobody may join one that is on its way.
 */

import { assert } from '../foundation/assert.ts'
import type { PlaneState } from './plane-state.ts'
import { NO_SLOT } from './request-io.ts'
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
    const { nextInSync } = this.#state.io
    nextInSync[slot] = NO_SLOT
    if (served.syncWaitingFirst === NO_SLOT) served.syncWaitingFirst = slot
    else nextInSync[served.syncWaitingLast] = slot
    served.syncWaitingLast = slot
    this.#begin(served)
  }

  /** The same for an order of the main thread. */
  joinOrder(served: ServedExport, order: number): void {
    served.syncOrdersWaiting.push(order)
    this.#begin(served)
  }

  /** Answers the orders; returns the first request that this sync covered, or NO_SLOT; `nextInSync` leads to the others. */
  completed(served: ServedExport, result: number): number {
    assert(served.syncRunning, 'a sync completes once')
    served.syncRunning = false
    if (result >= 0) served.synced = served.syncing
    for (const order of served.syncOrdersCovered) {
      this.#state.say({ kind: 'report', order, value: { errno: result < 0 ? -result : errnoOfFault(served) } })
    }
    if (served.syncOrdersCovered.length > 0) served.syncOrdersCovered = []
    const covered = served.syncCoveredFirst
    served.syncCoveredFirst = NO_SLOT
    this.#begin(served)
    return covered
  }

  #begin(served: ServedExport): void {
    if (served.syncRunning) return
    if (served.syncWaitingFirst === NO_SLOT && served.syncOrdersWaiting.length === 0) return
    served.syncRunning = true
    served.syncing = served.dirty
    served.syncCoveredFirst = served.syncWaitingFirst
    served.syncWaitingFirst = NO_SLOT
    if (served.syncOrdersWaiting.length > 0) {
      served.syncOrdersCovered = served.syncOrdersWaiting
      served.syncOrdersWaiting = []
    }
    this.#state.engine.sync(served.file, makeToken(TokenKind.exportSync, served.index, 0))
  }
}

/** The kernel tells of a failed write-back once: what a later sync says of a faulted export proves nothing. */
function errnoOfFault(served: ServedExport): number {
  return served.faulted ? EIO : 0
}
