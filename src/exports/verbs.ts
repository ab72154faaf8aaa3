/**
 * What the control plane can ask of the exports, and what they answer. The registry implements it; the HTTP routes, the
 * daemon's start and stop, and nothing else call it. Every method that cannot do what was asked rejects with a `Refusal`.
 */

import type { RefusalCode } from '../foundation/refusal.ts'
import type { Hold, Range } from '../interlock/range.ts'
import type { ClearedBy, CloseReason, Durability, Holder, Receipt } from '../interlock/receipt.ts'
import type { HomeKind, RecordState } from '../ownership/home.ts'
import type { ClientsMode } from '../plane-link/orders.ts'
import type { PhaseCounts, RequestInspection } from '../plane-link/reports.ts'
import type { ExportState, XenbusState } from '../interlock/lifecycle.ts'

export type StandbyReads = 'serve' | 'park'

/** An export as configuration or `add` declares it, all defaults filled in. */
export interface ExportDefinition {
  readonly name: string
  readonly path: string
  readonly description: string
  readonly imageId: string | null
  readonly readOnly: boolean
  readonly durability: Durability
  readonly clients: ClientsMode
  readonly standby: boolean
  readonly standbyReads: StandbyReads
  readonly clusterLocks: boolean
  /** O_DIRECT (the default), or the page cache: then the export is not safe to migrate, and says so. */
  readonly cache: 'direct' | 'buffered'
  /** Codes of the preflight that are accepted at every opening. */
  readonly allowUnsafe?: readonly string[]
}

export interface ClientStatus {
  readonly id: number
  readonly peer: string
  /** ISO 8601, UTC. */
  readonly since: string
  readonly writer: boolean
  readonly outstanding: PhaseCounts
}

export interface ExportStatus {
  readonly name: string
  readonly path: string
  readonly description: string
  readonly size: number
  readonly blockSize: number
  readonly state: ExportState
  readonly xenbusState: XenbusState
  /** Why it is in this state when somebody did not simply ask for it: the reason of a fence, of waiting in standby. */
  readonly stateReason: string | null
  /** 0 when this daemon never opened it for writing. */
  readonly generation: number
  readonly readOnly: boolean
  readonly durability: Durability
  readonly cache: 'direct' | 'buffered'
  readonly clientsMode: ClientsMode
  /**
   * Codes of what makes a migration unsafe here, empty when nothing is known: "buffered", "shared-clients", and those of
   * the preflight with which the export was opened all the same.
   */
  readonly unsafe: readonly string[]
  readonly engine: { readonly kind: 'io_uring' | 'file'; readonly reason: string }
  readonly worker: number
  readonly holder: Holder | null
  readonly clients: readonly ClientStatus[]
  readonly outstanding: PhaseCounts
  readonly orphans: number
  readonly holds: readonly (Hold & { readonly waiting: number })[]
  /** How long a predecessor has been holding writes back; 0 when none does. */
  readonly heldForMs: number
  /** How the generation before this one was found to be over, where that was not by its own close. */
  readonly clearedBy: ClearedBy | null
  readonly indeterminate: readonly Range[]
  readonly totals: {
    readonly reads: number
    readonly writes: number
    readonly flushes: number
    readonly trims: number
    readonly bytesRead: number
    readonly bytesWritten: number
    readonly errors: number
  }
  /** The nonce that a receipt must carry to open this standby; null in other states. */
  readonly nonce: string | null
  readonly lastReceipt: Receipt | null
}

export type StackVerdict = 'safe' | 'condition' | 'unsafe'

export type StackSeverity = 'note' | 'condition' | 'unsafe'

/** One thing that was found in the stack, by a stable code; docs/preflight.md explains each. */
export interface StackFinding {
  readonly code: string
  /** The same wherever the code occurs. */
  readonly severity: StackSeverity
  /** What is the matter here, with the names of this machine. */
  readonly detail: string
  /** What to do about it, or what has to be true. */
  readonly mend: string
}

export interface StackLayer {
  /** 0 is the image; what is under a layer follows it and is deeper. */
  readonly depth: number
  readonly kind: 'file' | 'fileSystem' | 'device' | 'unknown'
  readonly words: string
  readonly verdict: StackVerdict
  readonly findings: readonly StackFinding[]
  /** Everything that was found out about the layer; its members depend on the kind. */
  readonly facts: Readonly<Record<string, unknown>>
}

/** What is under an image, down to the hardware or the network, and whether the image may move. */
export interface StackReport {
  readonly path: string
  readonly realPath: string | null
  readonly verdict: StackVerdict
  /** Of all layers, each once. */
  readonly codes: readonly string[]
  readonly layers: readonly StackLayer[]
  /** What has not answered yet; the report then says what is known without it. */
  readonly waitingFor: string | null
  /** ISO 8601, UTC. */
  readonly at: string
}

/** The newest ownership record, as far as others may know it. */
export interface RecordSummary {
  readonly sequence: number
  readonly generation: number
  readonly state: RecordState
  readonly closeReason: CloseReason | null
  readonly holder: Holder & { readonly name: string }
  /** The holder is the host that answers. */
  readonly heldHere: boolean
  /** Generations that were handed over early and may still write. */
  readonly draining: readonly number[]
  /** Who has begun to take it over; null where nobody has. */
  readonly takeoverBy: string | null
  /** Of the receipt in it; null where it has none: what was opened then was never written to, or is not closed. */
  readonly receiptNonce: string | null
  /** The same at two daemons exactly when both have read this record in one and the same home. */
  readonly fingerprint: string
}

/** Which image an export has, and which record it sees: what the two ends of a handover have to agree on. */
export interface OwnershipReport {
  readonly export: string
  /** The identity that the operator declared in place of the measured one. */
  readonly declaredId: string | null
  /** As it was found when it was last opened here; null where it could not be. */
  readonly image: {
    readonly realPath: string
    readonly kind: 'file' | 'block'
    readonly device: string
    readonly inode: number
    readonly wwid: string | null
    readonly sizeBytes: number
  } | null
  /** Where the record lives. Not shared: nobody else can see it. */
  readonly home: { readonly kind: HomeKind; readonly shared: boolean; readonly place: string }
  /** The versions of the formats that this daemon reads and writes. */
  readonly formats: { readonly record: number; readonly receipt: number }
  /** Null where there is none yet, or where it cannot be understood. */
  readonly record: RecordSummary | null
  readonly unreadable: string | null
}

export interface CloseOptions {
  readonly early: boolean
  readonly unsubmitted: 'drain' | 'abort'
  readonly requests: 'park' | 'refuse'
  readonly disconnect: boolean
  readonly reason: CloseReason
  /** The nonce that the destination's standby gave out; goes into the receipt. */
  readonly nonce: string | null
  /** False answers as soon as the close has begun. */
  readonly wait: boolean
  /** Bounds the waiting, not the closing. Null waits for ever. */
  readonly timeoutMs: number | null
}

export interface OpenOptions {
  readonly receipt: Receipt | null
  readonly takeover: boolean
  readonly timeoutMs: number | null
  /**
   * Waits for a close also where it has not begun: for an opening that is asked for together with the close. Else a holder
   * that has it open is refused at once. It is `timeoutMs` that bounds it.
   */
  readonly awaitClose?: boolean
  /** Codes of the preflight that the operator accepts for this opening. */
  readonly allowUnsafe?: readonly string[]
}

export interface EvacuationOptions {
  /** Hand over early what can be; the rest is closed in the ordinary way. */
  readonly early: boolean
  readonly unsubmitted: 'drain' | 'abort'
  readonly requests: 'park' | 'refuse'
  /** Closes at once, at most. Null: all of them. */
  readonly parallel: number | null
  /** Bounds the waiting, not the closing. Null waits for ever. */
  readonly timeoutMs: number | null
}

/** What an evacuation has made of one export. Times are milliseconds since its beginning; null: not yet. */
export interface EvacuatedExport {
  readonly export: string
  /**
   * `handedOver`: early, and a destination may open; its last writes are not done. `idle`: nothing of this host was open.
   */
  readonly outcome: 'closed' | 'handedOver' | 'idle' | 'notClosed'
  readonly state: ExportState
  readonly generation: number
  readonly beganMs: number | null
  readonly endedMs: number | null
  /** Of what is closed; also by an earlier run. */
  readonly receipt: Receipt | null
  /** Of what is not closed: why. */
  readonly problem: {
    readonly code: RefusalCode
    readonly detail: string
    readonly outstanding: PhaseCounts
  } | null
}

export interface EvacuationReport {
  /** Nothing is left that is neither closed nor handed over nor idle. */
  readonly complete: boolean
  /** And nothing of this daemon can reach a disk any more. */
  readonly quiet: boolean
  /** ISO 8601, UTC. */
  readonly startedAt: string
  readonly elapsedMs: number
  readonly exports: readonly EvacuatedExport[]
}

export interface AdoptOptions {
  /** The image is a copy of the recorded one, and its record was copied along: whoever holds the original has no part in it. */
  readonly copy: boolean
}

export type CloseOutcome =
  { readonly done: true; readonly receipt: Receipt } | { readonly done: false; readonly status: ExportStatus }

/** What `GET /v1/events` streams. `at` is ISO 8601, UTC. */
export type ExportEvent = { readonly at: string; readonly export: string } & (
  | {
      readonly kind: 'transition'
      readonly from: ExportState
      readonly to: ExportState
      readonly reason: string | null
    }
  | { readonly kind: 'drain'; readonly outstanding: PhaseCounts; readonly step: string; readonly elapsedMs: number }
  | { readonly kind: 'receipt'; readonly receipt: Receipt }
  | { readonly kind: 'client'; readonly clientId: number; readonly change: 'adopted' | 'gone'; readonly detail: string }
  | { readonly kind: 'fault'; readonly detail: string }
  /** Writes wait for an earlier generation that is draining: it is over, or they have waited for too long. */
  | {
      readonly kind: 'hold'
      readonly generation: number
      readonly change: 'released' | 'overdue'
      readonly ranges: number
      readonly heldMs: number
    }
  /** A close waits for the home of its record, which does not answer; or does not wait any more. */
  | { readonly kind: 'record'; readonly change: 'waiting' | 'written'; readonly detail: string }
  | { readonly kind: 'added' }
  | { readonly kind: 'removed' }
)

export interface ExportVerbs {
  list(): Promise<readonly ExportStatus[]>
  status(name: string): Promise<ExportStatus>
  requests(
    name: string,
    countMax: number,
  ): Promise<{ readonly requests: readonly RequestInspection[]; readonly truncated: boolean }>
  /** With `adopt`, what is found is accepted first, as by that verb. */
  add(definition: ExportDefinition, adopt?: AdoptOptions | null): Promise<ExportStatus>
  remove(name: string): Promise<void>
  open(name: string, options: OpenOptions): Promise<ExportStatus>
  close(name: string, options: CloseOptions): Promise<CloseOutcome>
  /** Closes every export. The report says what is not closed and why; it can be asked for again. */
  evacuate(options: EvacuationOptions): Promise<EvacuationReport>
  standby(name: string): Promise<ExportStatus>
  /** Drops the holds of a predecessor, on proof: its receipt, or a takeover. */
  clear(name: string, options: { readonly receipt: Receipt | null; readonly takeover: boolean }): Promise<ExportStatus>
  /** Accepts an image as it is found: its hard links, or that it is not the one that its record is of. */
  adopt(name: string, options: AdoptOptions): Promise<ExportStatus>
  fence(name: string): Promise<ExportStatus>
  /** What is under the image, as it was at the last `open` or `standby`; looked at now where nobody did yet. */
  stack(name: string): Promise<StackReport>
  /** The same of any path, now. Answers in time, if only with what it waits for. */
  check(path: string, timeoutMs: number | null): Promise<StackReport>
  /** The image and the record as this daemon sees them, read now. */
  ownership(name: string): Promise<OwnershipReport>
  /** The same, after the record was written anew where it is ours and open: whoever shares its home sees the new one. */
  renew(name: string): Promise<OwnershipReport>
  /** Returns the function that ends the subscription. A listener must not throw. */
  subscribe(listener: (event: ExportEvent) => void): () => void
}
