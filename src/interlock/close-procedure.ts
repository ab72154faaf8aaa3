/**
 * The close of one export, step by step, as a machine that is told what has happened and says what to do next. It does
 * nothing itself. Its invariant: it says `closed` only after the gate shut, everything admitted drained, the sync
 * succeeded, the engine let go of the file, the descriptor was closed, the generation's lock was proved free, and the
 * record of all that was durable, in this order, with no fault in between.
 *
 *   shuttingGate ─▶ draining ─▶ awaitingPredecessor ─▶ syncing ─▶ detaching ─▶ closingDescriptor ─▶ provingLock
 *        │             │                │                 │                                             │
 *        └─────────────┴────────────────┴─────────────────┴─▶ cancelled (`open`)        closed ◀─ recording
 *
 * Any state before `closed` goes to `fenced` on a failed sync or any fault. The steps from detaching on cannot be
 * cancelled: the generation ends there. What arrives late in `cancelled`, `fenced` or `closed` is ignored, except that a
 * sync which was under way when the close was cancelled still fences when it fails. What arrives out of order otherwise
 * is a bug of the caller. Times are milliseconds of one monotonic clock, told with each event.
 */

import { AssertionFailure, assert, unreachable } from '../foundation/assert.ts'
import type { Range } from './range.ts'
import type { AbortedRequest, Durability } from './receipt.ts'

export interface CloseSettings {
  readonly durability: Durability
  readonly unsubmitted: 'drain' | 'abort'
  readonly requests: 'park' | 'refuse'
  /** A previous generation, handed over early, has not yet cleared. */
  readonly predecessorDraining: boolean
}

export type CloseEvent = { readonly atMs: number } & (
  | { readonly kind: 'gateShut'; readonly aborted: readonly AbortedRequest[] }
  | { readonly kind: 'drained'; readonly result: DrainedRequests }
  | { readonly kind: 'predecessorCleared' }
  /** 0, or the errno of the fdatasync. */
  | { readonly kind: 'synced'; readonly errno: number }
  | { readonly kind: 'detached' }
  | { readonly kind: 'descriptorClosed' }
  /** Whether a fresh descriptor found the lock of the generation free. */
  | { readonly kind: 'lockProved'; readonly free: boolean }
  /** failed: not known to be written, to be tried again with the very same facts. lost: somebody else wrote it. */
  | { readonly kind: 'recorded'; readonly outcome: 'done' | 'failed' | 'lost' }
  /** The operator wants the export open after all. */
  | { readonly kind: 'cancelled' }
  /** The worker died or faulted, ownership was lost, or somebody fenced the export. */
  | { readonly kind: 'faulted'; readonly reason: string }
)

/** What was admitted and uncleared when the gate shut, and what became of it. */
export interface DrainedRequests {
  readonly cancelled: boolean
  readonly requests: number
  readonly writes: number
  readonly bytes: number
  readonly aborted: readonly AbortedRequest[]
  readonly indeterminate: readonly Range[]
}

/** What the procedure knows for the receipt. */
export interface CloseFacts {
  readonly drained: { readonly requests: number; readonly writes: number; readonly bytes: number }
  readonly aborted: readonly AbortedRequest[]
  readonly indeterminate: readonly Range[]
  readonly elapsedMs: { readonly drain: number; readonly sync: number; readonly record: number; readonly total: number }
}

export type CloseDecision =
  | { readonly act: 'shutGate'; readonly requests: 'park' | 'refuse'; readonly abortUnsubmitted: boolean }
  | { readonly act: 'drain' }
  | { readonly act: 'awaitPredecessor' }
  | { readonly act: 'sync' }
  | { readonly act: 'detach' }
  | { readonly act: 'closeDescriptor' }
  | { readonly act: 'proveLock'; readonly again: boolean }
  | { readonly act: 'record'; readonly facts: CloseFacts; readonly again: boolean }
  | { readonly act: 'closed'; readonly facts: CloseFacts }
  /** The same generation goes on: the gate admits again. */
  | { readonly act: 'resume' }
  /** Too late to cancel: the close goes on, and the export can be opened again once it is closed. */
  | { readonly act: 'refuseCancel' }
  | { readonly act: 'fence'; readonly reason: string }
  | { readonly act: 'nothing' }

export type CloseState =
  | { readonly step: 'shuttingGate' }
  | { readonly step: 'draining'; readonly aborted: readonly AbortedRequest[] }
  | { readonly step: 'awaitingPredecessor'; readonly drained: Drained }
  | { readonly step: 'syncing'; readonly drained: Drained; readonly fromMs: number }
  | { readonly step: 'detaching'; readonly synced: Synced }
  | { readonly step: 'closingDescriptor'; readonly synced: Synced }
  | { readonly step: 'provingLock'; readonly synced: Synced }
  | { readonly step: 'recording'; readonly facts: CloseFacts }
  | { readonly step: 'closed'; readonly facts: CloseFacts }
  | { readonly step: 'cancelled'; readonly syncing: boolean }
  | { readonly step: 'fenced'; readonly reason: string }

export type CloseStep = CloseState['step']

type Drained = Omit<CloseFacts, 'elapsedMs'> & { readonly drainMs: number }
type Synced = Drained & { readonly syncMs: number; readonly atMs: number }

export class CloseProcedure {
  readonly #settings: CloseSettings
  readonly #beganAtMs: number
  #state: CloseState = { step: 'shuttingGate' }
  #predecessorDraining: boolean

  constructor(settings: CloseSettings, beganAtMs: number) {
    this.#settings = settings
    this.#beganAtMs = beganAtMs
    this.#predecessorDraining = settings.predecessorDraining
  }

  get state(): CloseState {
    return this.#state
  }

  get beganAtMs(): number {
    return this.#beganAtMs
  }

  /** What to do first. */
  begin(): CloseDecision {
    assert(this.#state.step === 'shuttingGate', 'a close begins once')
    const { requests, unsubmitted } = this.#settings
    return { act: 'shutGate', requests, abortUnsubmitted: unsubmitted === 'abort' }
  }

  /** Takes an event; throws, unchanged, where it cannot come now. */
  take(event: CloseEvent): CloseDecision {
    if (isOver(this.#state)) return this.#takeLate(this.#state, event)
    switch (event.kind) {
      case 'cancelled':
        return this.#cancel()
      case 'faulted':
        return this.#fence(event.reason)
      case 'gateShut':
        return this.#gateShut(event.aborted)
      case 'drained':
        return this.#drained(event.result, event.atMs)
      case 'predecessorCleared':
        return this.#predecessorCleared(event.atMs)
      case 'synced':
        return this.#synced(event.errno, event.atMs)
      case 'detached':
        return this.#detached()
      case 'descriptorClosed':
        return this.#descriptorClosed()
      case 'lockProved':
        return this.#lockProved(event.free, event.atMs)
      case 'recorded':
        return this.#recorded(event.outcome)
      default:
        return unreachable(event)
    }
  }

  #gateShut(aborted: readonly AbortedRequest[]): CloseDecision {
    this.#expect('shuttingGate')
    this.#state = { step: 'draining', aborted }
    return { act: 'drain' }
  }

  #drained(result: DrainedRequests, atMs: number): CloseDecision {
    const state = this.#expect('draining')
    if (result.cancelled) throw new AssertionFailure('a drain is cancelled only when the close was')
    // In writeback a failed write may have been answered as done: what was promised is gone.
    if (this.#settings.durability === 'writeback' && result.indeterminate.length > 0) {
      return this.#fence('a write failed in writeback')
    }
    const drained: Drained = {
      drained: { requests: result.requests, writes: result.writes, bytes: result.bytes },
      aborted: withoutRepeats([...state.aborted, ...result.aborted]),
      indeterminate: result.indeterminate,
      drainMs: atMs - this.#beganAtMs,
    }
    if (this.#predecessorDraining) {
      this.#state = { step: 'awaitingPredecessor', drained }
      return { act: 'awaitPredecessor' }
    }
    return this.#sync(drained, atMs)
  }

  /** May come at any time; only the waiting for it is a step. */
  #predecessorCleared(atMs: number): CloseDecision {
    this.#predecessorDraining = false
    if (this.#state.step !== 'awaitingPredecessor') return { act: 'nothing' }
    return this.#sync(this.#state.drained, atMs)
  }

  #sync(drained: Drained, atMs: number): CloseDecision {
    this.#state = { step: 'syncing', drained, fromMs: atMs }
    return { act: 'sync' }
  }

  #synced(errno: number, atMs: number): CloseDecision {
    const state = this.#expect('syncing')
    if (errno !== 0) return this.#fence(failedSync(errno))
    this.#state = { step: 'detaching', synced: { ...state.drained, syncMs: atMs - state.fromMs, atMs } }
    return { act: 'detach' }
  }

  #detached(): CloseDecision {
    const state = this.#expect('detaching')
    this.#state = { step: 'closingDescriptor', synced: state.synced }
    return { act: 'closeDescriptor' }
  }

  #descriptorClosed(): CloseDecision {
    const state = this.#expect('closingDescriptor')
    this.#state = { step: 'provingLock', synced: state.synced }
    return { act: 'proveLock', again: false }
  }

  #lockProved(free: boolean, atMs: number): CloseDecision {
    const { synced } = this.#expect('provingLock')
    // Somebody still refers to the open file. That is no fault, and no proof either.
    if (!free) return { act: 'proveLock', again: true }
    const facts: CloseFacts = {
      drained: synced.drained,
      aborted: synced.aborted,
      indeterminate: synced.indeterminate,
      elapsedMs: {
        drain: synced.drainMs,
        sync: synced.syncMs,
        record: atMs - synced.atMs,
        total: atMs - this.#beganAtMs,
      },
    }
    this.#state = { step: 'recording', facts }
    return { act: 'record', facts, again: false }
  }

  #recorded(outcome: 'done' | 'failed' | 'lost'): CloseDecision {
    const { facts } = this.#expect('recording')
    switch (outcome) {
      case 'done':
        this.#state = { step: 'closed', facts }
        return { act: 'closed', facts }
      case 'failed':
        return { act: 'record', facts, again: true }
      case 'lost':
        return this.#fence('another holder wrote the ownership record')
    }
  }

  #cancel(): CloseDecision {
    if (!canCancel(this.#state.step)) return { act: 'refuseCancel' }
    this.#state = { step: 'cancelled', syncing: this.#state.step === 'syncing' }
    return { act: 'resume' }
  }

  #fence(reason: string): CloseDecision {
    this.#state = { step: 'fenced', reason }
    return { act: 'fence', reason }
  }

  #takeLate(state: CloseState, event: CloseEvent): CloseDecision {
    if (state.step === 'cancelled' && state.syncing && event.kind === 'synced') {
      this.#state = { step: 'cancelled', syncing: false }
      if (event.errno !== 0) return this.#fence(failedSync(event.errno))
    }
    if (state.step === 'closed' && event.kind === 'cancelled') return { act: 'refuseCancel' }
    return { act: 'nothing' }
  }

  #expect<Step extends CloseStep>(step: Step): Extract<CloseState, { readonly step: Step }> {
    const state: CloseState = this.#state
    if (!isAt(state, step)) throw new AssertionFailure(`a close that is ${state.step} is not ${step}`)
    return state
  }
}

function isAt<Step extends CloseStep>(state: CloseState, step: Step): state is Extract<CloseState, { step: Step }> {
  return state.step === step
}

function isOver(state: CloseState): boolean {
  return state.step === 'closed' || state.step === 'cancelled' || state.step === 'fenced'
}

function canCancel(step: CloseStep): boolean {
  return step === 'shuttingGate' || step === 'draining' || step === 'awaitingPredecessor' || step === 'syncing'
}

function failedSync(errno: number): string {
  return `the image could not be made durable: fdatasync failed with errno ${errno}`
}

/** A request may be named by the gate that aborted it and by the drain that followed. */
function withoutRepeats(aborted: readonly AbortedRequest[]): AbortedRequest[] {
  const seen = new Map(aborted.map((request) => [JSON.stringify(request), request]))
  return [...seen.values()]
}
