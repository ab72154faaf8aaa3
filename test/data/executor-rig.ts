/**
 * A simulated plane whose disk fails as a test plans, and what its disk was given, in words: for tests of the executor.
 */

import type { DiskRecord } from '../support/simulated-engine.ts'
import { SimulatedPlane } from '../support/simulated-plane.ts'

export type Plan = (record: Readonly<DiskRecord>) => number

/** A plane whose disk fails as a plan says, which may change: 0 is success, else a negative errno. */
export class Rig {
  readonly plane: SimulatedPlane
  plan: Plan = () => 0

  constructor(options: { readonly seed?: number; readonly shortChance?: number } = {}) {
    this.plane = new SimulatedPlane({
      seed: options.seed ?? 1,
      parts: 2,
      engine: { shortChance: options.shortChance ?? 0, plan: (record) => this.plan(record) },
    })
  }
}

/** The operations that the disk was given, as words. */
export function operations(plane: SimulatedPlane): string[] {
  return plane.engine.history.map(({ kind, position, lengthBytes }) =>
    kind === 'sync' ? 'sync' : `${kind} ${position}+${lengthBytes}`,
  )
}

export function failing(kind: DiskRecord['kind'], errno: number): Plan {
  return (record) => (record.kind === kind ? -errno : 0)
}
