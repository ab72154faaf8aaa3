/**
 * Calls that belong together, with a named place behind each where a crash is tested. They go to the blocking thread in
 * one way; where a fault may happen they go one at a time, so that it happens between the very same calls.
 */

import type { BlockingRunner, PlainCall } from '../blocking/calls.ts'
import { faultPoint, faultsAreArmed } from '../fault-points/fault-point.ts'

export interface Step {
  readonly call: PlainCall
  /** Passed once the call has been answered without an error. */
  readonly faultPoint?: string
}

/** The answers of those that ran: fewer than were asked for where the last one failed. */
export async function runSteps(runner: BlockingRunner, steps: readonly Step[]): Promise<readonly number[]> {
  if (!faultsAreArmed()) return runner.run({ kind: 'inTurn', calls: steps.map(({ call }) => call) })
  const results: number[] = []
  for (const { call, faultPoint: behind } of steps) {
    const result = await runner.run(call)
    results.push(result)
    if (result < 0) break
    if (behind !== undefined) await faultPoint(behind)
  }
  return results
}
