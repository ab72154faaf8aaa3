/**
 * Admitted requests with nothing in their way that wait for room in the engine. Exports take turns, and of one export
 * the first comes first. A disk that does not answer cannot take the engine's depth from the others: an export begins
 * one more only while what it has there is less than a multiple of what is left free, so that something always is.
 *
 * Requests of an export are linked by their slots; nothing here allocates.
 */

import type { PlaneState } from './plane-state.ts'
import { NO_SLOT } from './request-io.ts'
import { Ring } from './ring.ts'
import type { ServedExport } from './served-export.ts'

/** One export alone gets eight ninths of the depth, and never the last place. */
const SHARE_OF_FREE = 8

export class ReadyQueue {
  /** Operations that the engine has, over all exports. */
  operations = 0
  readonly #state: PlaneState
  /** Exports with something waiting, in the order of their turns. */
  readonly #turns: Ring

  constructor(state: PlaneState) {
    this.#state = state
    this.#turns = new Ring(state.limits.exportsMax)
  }

  push(served: ServedExport, slot: number): void {
    const { nextReady } = this.#state.io
    nextReady[slot] = NO_SLOT
    if (served.readyFirst === NO_SLOT) served.readyFirst = slot
    else nextReady[served.readyLast] = slot
    served.readyLast = slot
    if (served.hasTurn) return
    served.hasTurn = true
    this.#turns.push(served.index)
  }

  /** The next one that there is room for, or NO_SLOT. */
  take(): number {
    for (let turns = this.#turns.count; turns > 0; turns -= 1) {
      const free = this.#state.engine.diskDepth - this.operations
      if (free <= 0) return NO_SLOT
      const index = this.#turns.shift()
      const served = this.#state.exports[index] as ServedExport
      const slot = mayBegin(served.operations, free) ? served.readyFirst : NO_SLOT
      if (slot !== NO_SLOT) served.readyFirst = this.#state.io.nextReady[slot] as number
      served.hasTurn = served.readyFirst !== NO_SLOT
      if (served.hasTurn) this.#turns.push(index)
      if (slot !== NO_SLOT) return slot
    }
    return NO_SLOT
  }

  /** An operation was handed to the engine. */
  begun(served: ServedExport): void {
    this.operations += 1
    served.operations += 1
  }

  /** The engine has completed an operation. */
  ended(served: ServedExport): void {
    this.operations -= 1
    served.operations -= 1
  }

  /** Forgets what waits of an export, unless `keep` speaks for it; the order of the others stays. */
  filter(served: ServedExport, keep: (slot: number) => boolean): void {
    const { nextReady } = this.#state.io
    let slot = served.readyFirst
    served.readyFirst = NO_SLOT
    while (slot !== NO_SLOT) {
      const next = nextReady[slot] as number
      if (keep(slot)) this.push(served, slot)
      slot = next
    }
    if (served.readyFirst !== NO_SLOT || !served.hasTurn) return
    served.hasTurn = false
    this.#turns.filter((index) => index !== served.index)
  }
}

function mayBegin(operations: number, free: number): boolean {
  return operations === 0 || (free > 1 && operations < SHARE_OF_FREE * free)
}
