/**
 * How a handover can end, and why a step of it failed. There are four endings: handed over, brought back, unchanged, and
 * unclear; the first three say who has the image open. Nothing here asks a daemon anything.
 */

import { ControlProblem, ControlUnreachable } from '../client/index.ts'
import type { Problem, Receipt, RefusalCode } from '../client/index.ts'

export type End = 'source' | 'destination'

/** Codes of failures that no daemon has refused. docs/orchestrating.md says what each means. */
export const OWN_CODES = [
  'unreachable',
  'timed-out',
  'cancelled',
  'not-ready-to-move',
  'qemu-refused',
  'qemu-lost',
  'migration-failed',
] as const
type OwnCode = (typeof OWN_CODES)[number]

/** What a step failed with, as a value. */
export interface Failure {
  /** The step that did not succeed. */
  readonly step: string
  /**
   * The daemon's own code; or that none answered, that time ran out, or that somebody wants no handover any more. Where
   * a QEMU is driven too: that it refused, does not answer, or that its migration came to nothing.
   */
  readonly code: RefusalCode | OwnCode
  readonly message: string
  /** The daemon's problem document; null where the failure is not a daemon's refusal. */
  readonly problem: Problem | null
}

export type Ending =
  /** Only the destination has it open. */
  | {
      readonly kind: 'handedOver'
      readonly openAt: 'destination'
      readonly generation: number
      /** Of the source's close; null where it could not be had any more, or is not there yet. */
      readonly receipt: Receipt | null
      /** Handed over early, and the source still drains. */
      readonly draining: boolean
      /** It was so before this run began. */
      readonly already: boolean
      readonly notes: readonly string[]
    }
  /** Only the source has it open, again or still. */
  | { readonly kind: 'broughtBack'; readonly openAt: 'source'; readonly generation: number; readonly failure: Failure }
  /** Nothing was begun. `openAt` is null where nobody has it open. */
  | {
      readonly kind: 'unchanged'
      readonly openAt: End | null
      readonly failure: Failure
      readonly advice: readonly string[]
    }
  /** Whoever cannot be asked may have it; or nobody has, and only a person can decide who should. */
  | {
      readonly kind: 'unclear'
      readonly openAt: null
      readonly failure: Failure
      /** What is known of each end and of the record. */
      readonly known: readonly string[]
      /** What to do, in this order. */
      readonly advice: readonly string[]
    }

/** Thrown by the steps; `failure` says it as a value. */
export class StepFailed extends Error {
  override readonly name = 'StepFailed'
  readonly failure: Failure

  constructor(failure: Failure, cause?: unknown) {
    super(`${failure.step}: ${failure.message}`, { cause })
    this.failure = failure
  }
}

/** Whatever a step threw, as a value. What is neither a daemon's answer nor a lack of one is a bug, and is thrown on. */
export function failureOf(step: string, error: unknown): Failure {
  if (error instanceof StepFailed) return error.failure
  if (error instanceof ControlProblem) {
    return { step, code: error.code, message: error.message, problem: error.document }
  }
  if (error instanceof ControlUnreachable) {
    return { step, code: 'unreachable', message: error.message, problem: null }
  }
  throw error
}

export function hasCode(error: unknown, ...codes: readonly RefusalCode[]): error is ControlProblem {
  return error instanceof ControlProblem && codes.includes(error.code)
}
