/**
 * One close on its way: asks the close procedure what is next, does it, and tells it what came of that. All waiting is
 * here, all judgement there. A run never gives up by itself: it ends closed, cancelled or fenced.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import type { CloseDecision, CloseEvent, CloseFacts, CloseSettings, CloseStep } from '../interlock/close-procedure.ts'
import { CloseProcedure } from '../interlock/close-procedure.ts'
import type { Receipt } from '../interlock/receipt.ts'
import type { DrainResult } from '../plane-link/reports.ts'
import type { AbortedRequest } from '../interlock/receipt.ts'

/** What a close does to the export, step by step; each settles when it has happened. */
export interface CloseActions {
  shutGate(requests: 'park' | 'refuse', abortUnsubmitted: boolean): Promise<readonly AbortedRequest[]>
  drain(): Promise<DrainResult>
  predecessorCleared(): Promise<void>
  /** 0 or an errno. */
  sync(): Promise<number>
  detach(): Promise<void>
  closeDescriptor(): Promise<void>
  proveLock(): Promise<boolean>
  /** Writes the record with this receipt. */
  record(facts: CloseFacts, receipt: Receipt): Promise<'done' | 'failed' | 'lost'>
  receipt(facts: CloseFacts): Receipt
}

export type CloseEnd =
  | { readonly kind: 'closed'; readonly receipt: Receipt }
  | { readonly kind: 'cancelled' }
  | { readonly kind: 'fenced'; readonly reason: string; readonly syncFailed: boolean }

const PROOF_INTERVAL_MS = 20
const RECORD_INTERVAL_MS = 500

type NewEvent = CloseEvent extends infer E ? (E extends CloseEvent ? Omit<E, 'atMs'> : never) : never

export class CloseRun {
  readonly ended: Promise<CloseEnd>
  readonly #procedure: CloseProcedure
  readonly #actions: CloseActions
  readonly #now: () => number
  #receipt: Receipt | null = null
  #syncErrno = 0
  #resolve: (end: CloseEnd) => void = () => undefined

  constructor(settings: CloseSettings, actions: CloseActions, now: () => number) {
    this.#procedure = new CloseProcedure(settings, now())
    this.#actions = actions
    this.#now = now
    this.ended = new Promise((resolve) => {
      this.#resolve = resolve
    })
  }

  get step(): CloseStep {
    return this.#procedure.state.step
  }

  get elapsedMs(): number {
    return this.#now() - this.#procedure.beganAtMs
  }

  /** Runs to the end. Rejects only where a step broke in a way that is none of its outcomes: the export is then fenced. */
  async run(): Promise<void> {
    let decision = this.#procedure.begin()
    while (!this.#over(decision)) {
      const event = await this.#perform(decision)
      if (event === null) return
      decision = this.#take(event)
    }
  }

  /** `open` while closing. True: the generation goes on, and the caller lets the gate admit again. */
  cancel(): boolean {
    const resumed = this.#take({ kind: 'cancelled' }).act === 'resume'
    if (resumed) this.#resolve({ kind: 'cancelled' })
    return resumed
  }

  /** Something happened that no close can survive. */
  fault(reason: string): void {
    this.#over(this.#take({ kind: 'faulted', reason }))
  }

  predecessorCleared(): void {
    this.#take({ kind: 'predecessorCleared' })
  }

  #take(event: NewEvent): CloseDecision {
    return this.#procedure.take({ ...event, atMs: this.#now() })
  }

  /** Ends the run where the decision is an end. */
  #over(decision: CloseDecision): boolean {
    switch (decision.act) {
      case 'closed':
        if (this.#receipt !== null) this.#resolve({ kind: 'closed', receipt: this.#receipt })
        return true
      case 'fence':
        this.#resolve({ kind: 'fenced', reason: decision.reason, syncFailed: this.#syncErrno !== 0 })
        return true
      case 'nothing':
      case 'resume':
      case 'refuseCancel':
        return true
      default:
        return false
    }
  }

  async #perform(decision: CloseDecision): Promise<NewEvent | null> {
    switch (decision.act) {
      case 'shutGate':
        return {
          kind: 'gateShut',
          aborted: await this.#actions.shutGate(decision.requests, decision.abortUnsubmitted),
        }
      case 'drain':
        return { kind: 'drained', result: await this.#actions.drain() }
      case 'awaitPredecessor':
        await this.#actions.predecessorCleared()
        return { kind: 'predecessorCleared' }
      case 'sync':
        this.#syncErrno = await this.#actions.sync()
        return { kind: 'synced', errno: this.#syncErrno }
      case 'detach':
        await this.#actions.detach()
        return { kind: 'detached' }
      case 'closeDescriptor':
        await this.#actions.closeDescriptor()
        return { kind: 'descriptorClosed' }
      case 'proveLock':
        if (decision.again) await sleep(PROOF_INTERVAL_MS)
        return { kind: 'lockProved', free: await this.#actions.proveLock() }
      case 'record':
        if (decision.again) await sleep(RECORD_INTERVAL_MS)
        this.#receipt ??= this.#actions.receipt(decision.facts)
        return { kind: 'recorded', outcome: await this.#actions.record(decision.facts, this.#receipt) }
      default:
        return null
    }
  }
}
