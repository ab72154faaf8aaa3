/**
 * The receipt that `close` answers: proof, in numbers, of what was drained and how it was made durable. It is kept in
 * the ownership record, so that the same close asked again gives the same receipt. Here it is built and judged; reading
 * one that somebody else wrote is receipt-parser.ts.
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

/** A fence command that ran, and what it said. */
export interface FenceReport {
  readonly command: string
  /** What it was told to switch off. */
  readonly plug: string
  readonly exitStatus: number
  /** The end of its output. */
  readonly output: string
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
  readonly clearedBy: ClearedBy
  /** Codes of what was not safe under the image while it was open; absent where nothing was. */
  readonly unsafe?: readonly string[]
  /** How the holder before was fenced, where this generation began by a takeover. */
  readonly fence?: FenceReport
  /**
   * `record` is from the end of the sync until the record was ready to be written: letting go of the file and proving
   * the lock free. The writing itself cannot be in it, since the receipt is part of what is written.
   */
  readonly elapsedMs: { readonly drain: number; readonly sync: number; readonly record: number; readonly total: number }
}

export const DURABILITIES = ['sync', 'writeback'] as const
export type Durability = (typeof DURABILITIES)[number]
export const CLOSE_REASONS = ['handover', 'shutdown'] as const
export type CloseReason = (typeof CLOSE_REASONS)[number]
export const CLEARED_BY = ['drain', 'lock', 'reboot', 'fence'] as const
export type ClearedBy = (typeof CLEARED_BY)[number]

/** Everything that a receipt says, with the time of the close in milliseconds since 1970. */
export type ReceiptFacts = Omit<Receipt, 'version' | 'state' | 'closedAt'> & { readonly closedAtMs: number }

export function buildReceipt(facts: ReceiptFacts): Receipt {
  return {
    version: RECEIPT_VERSION,
    export: facts.export,
    image: facts.image,
    generation: facts.generation,
    holder: facts.holder,
    state: 'closed',
    closedAt: new Date(facts.closedAtMs).toISOString(),
    durability: facts.durability,
    drained: facts.drained,
    aborted: facts.aborted,
    indeterminate: facts.indeterminate,
    reason: facts.reason,
    nonce: facts.nonce,
    clearedBy: facts.clearedBy,
    ...(facts.unsafe !== undefined && facts.unsafe.length > 0 && { unsafe: facts.unsafe }),
    ...(facts.fence && { fence: facts.fence }),
    elapsedMs: facts.elapsedMs,
  }
}

/** What a receipt must agree with before it opens an image. Null where nothing is expected. */
export interface ReceiptExpectation {
  readonly export: string
  readonly sizeBytes: number
  /** The nonce that this standby gave out: a receipt of an earlier handover does not carry it. */
  readonly nonce: string | null
  /** The oldest generation that the receipt may close: the newest that is known here. */
  readonly generationMin: number | null
}

/** Why the receipt does not fit, in one sentence; null where it does. */
export function receiptProblem(receipt: Receipt, expectation: ReceiptExpectation): string | null {
  if (receipt.export !== expectation.export) {
    return `the receipt is for export '${receipt.export}', not for '${expectation.export}'`
  }
  if (receipt.image.size !== expectation.sizeBytes) {
    return `the receipt is for an image of ${receipt.image.size} bytes; this one has ${expectation.sizeBytes}`
  }
  if (expectation.nonce !== null && receipt.nonce !== expectation.nonce) {
    return 'the receipt does not carry the nonce that this standby gave out: it is of another handover'
  }
  if (expectation.generationMin !== null && receipt.generation < expectation.generationMin) {
    return `the receipt closes generation ${receipt.generation}; generation ${expectation.generationMin} is known here`
  }
  return null
}
