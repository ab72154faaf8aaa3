/**
 * Calls that belong together, with a named place behind each where a crash is tested. They go to the blocking thread in
 * one way; where a fault may happen they go one at a time, so that it happens between the very same calls.
 */

import type { BlockingRunner, ListedResults, PlainCall } from '../blocking/calls.ts'
import { faultPoint, faultsAreArmed } from '../fault-points/fault-point.ts'

export interface Step {
  readonly call: PlainCall
  /** Passed once the call has been answered without an error. */
  readonly faultPoint?: string
}

/** The answers of those that ran, fewer than were asked for where the last one failed; and what is in the directory then. */
export async function runSteps(runner: BlockingRunner, steps: readonly Step[], listed: string): Promise<ListedResults> {
  if (!faultsAreArmed()) {
    return runner.run({ kind: 'inTurnThenList', calls: steps.map(({ call }) => call), path: listed })
  }
  const results: number[] = []
  for (const { call, faultPoint: behind } of steps) {
    const result = await runner.run(call)
    results.push(result)
    if (result < 0) return { results, names: null }
    if (behind !== undefined) await faultPoint(behind)
  }
  return { results, names: await runner.run({ kind: 'listDirectory', path: listed }) }
}
