/**
 * Plain facts of a run of the simulation: the failures that its disk has, and what it tells in the end.
 */

/** Of the failures that the disk is planned to have. */
export const EIO = 5
export const ENOSPC = 28
export const EOPNOTSUPP = 95

export interface RunSummary {
  readonly requests: number
  readonly answered: number
  readonly reasons: ReadonlyMap<string, number>
  readonly rounds: number
  readonly faults: number
  readonly powerCut: boolean
}
