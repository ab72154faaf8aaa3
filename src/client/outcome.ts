/**
 * A call's end as a value, for orchestrators, to whom a refusal is an answer like any other: done, refused with the
 * daemon's problem, or unreachable, after which nobody knows whether it was carried out. Bugs, and calls that the caller
 * has aborted himself, still reject.
 */

import type { Problem } from './problem.ts'
import { ControlProblem, ControlUnreachable } from './problem.ts'

export type Outcome<T> =
  | { readonly kind: 'done'; readonly value: T }
  /** `problem.code` decides; some codes add members, such as `outstanding` with `still-draining`. */
  | { readonly kind: 'refused'; readonly problem: Problem }
  /** `code` as of the system, such as ECONNREFUSED: undefined where something else answered. */
  | { readonly kind: 'unreachable'; readonly code: string | undefined; readonly reason: string }

/** `await outcomeOf(source.close('vda', { timeoutMs: 30_000 }))` */
export async function outcomeOf<T>(call: Promise<T>): Promise<Outcome<T>> {
  try {
    return { kind: 'done', value: await call }
  } catch (error) {
    if (error instanceof ControlProblem) return { kind: 'refused', problem: error.document }
    if (error instanceof ControlUnreachable) return { kind: 'unreachable', code: error.code, reason: error.message }
    throw error
  }
}
