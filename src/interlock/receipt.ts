/**
 * The receipt that `close` answers: proof, in numbers, of what was drained and how it was made durable. It is kept in
 * the ownership record, so that the same close asked again gives the same receipt.
 */

import type { Range } from './range.ts'

export const RECEIPT_VERSION = 1

export interface Holder {
  /** Random identity of the host, from the daemon's state directory. */
  readonly host: string
  /** The kernel's boot id. */
  readonly boot: string
  /** Random identity of this run of the daemon. */
  readonly instance: string
}

export interface AbortedRequest {
  readonly client: number
  /** Sixteen hexadecimal digits, as the client sent them. */
  readonly cookie: string
  readonly command: string
  readonly offset: number
  readonly length: number
}

export interface Receipt {
  readonly version: typeof RECEIPT_VERSION
  readonly export: string
  readonly image: { readonly path: string; readonly size: number; readonly device: string; readonly inode: number }
  readonly generation: number
  readonly holder: Holder
  readonly state: 'closed'
  /** ISO 8601, UTC. */
  readonly closedAt: string
  readonly durability: Durability
  readonly drained: { readonly requests: number; readonly writes: number; readonly bytes: number }
  readonly aborted: readonly AbortedRequest[]
  readonly indeterminate: readonly Range[]
  readonly reason: CloseReason
  /** The nonce that the destination's standby gave out, or one of our own. */
  readonly nonce: string
  readonly clearedBy: 'drain' | 'lock' | 'reboot' | 'fence'
  readonly elapsedMs: { readonly drain: number; readonly sync: number; readonly record: number; readonly total: number }
}

export type Durability = 'sync' | 'writeback'
export type CloseReason = 'handover' | 'shutdown'
