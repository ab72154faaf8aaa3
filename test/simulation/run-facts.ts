/**
 * What a run of the simulation knows of each of its clients, and what it tells in the end. Plain facts; what happens to
 * them is in `data-plane-run.ts`.
 */

import type { SimulatedFrontend } from '../support/simulated-frontend.ts'
import type { ExportLife } from './export-life.ts'

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

export interface Client {
  readonly frontend: SimulatedFrontend
  readonly life: ExportLife
  readonly wants: number
  /** It made a promise with NBD_CMD_DISC, broke the protocol, or cut the connection: it is owed nothing any more. */
  departed: boolean
  sentAt: Map<number, number>
  /** Errors that the request deserves whatever happens; absent for a good one. */
  deserved: Map<number, number>
  readonly patience: number
}
