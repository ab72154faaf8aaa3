/**
 * Everything the control plane may ask of a data worker. Each order is answered by exactly one report with the same
 * `order` number (see reports.ts). Orders reach a worker in the order in which they were sent. Durable steps (records,
 * locks, opening and closing an image) are never orders: they are taken by the main thread.
 */

import type { Range, Hold } from '../interlock/range.ts'
import type { Durability } from '../interlock/receipt.ts'

/** Chosen by the main thread; unique within one worker for as long as the export lives. */
export type ExportId = number
/** Chosen by the main thread; grows by one with each connection of the daemon, so it is also the order of arrival. */
export type ClientId = number

export type ClientsMode = 'exclusive' | 'shared'
/** What the gate does with a newly parsed request. */
export type GateSetting = 'admit' | 'park' | 'refuse'

export interface AttachExport {
  readonly kind: 'attachExport'
  readonly exportId: ExportId
  readonly name: string
  readonly sizeBytes: number
  readonly readOnly: boolean
  readonly durability: Durability
  readonly clients: ClientsMode
  /** One Int32: the generation that may submit writes. The main thread stores 0 to fence; read before each batch. */
  readonly generationCell: SharedArrayBuffer
}

/** Gives the export a descriptor. `generation` is 0 for a read-only one (standby, or a read-only export). */
export interface AttachFile {
  readonly kind: 'attachFile'
  readonly exportId: ExportId
  readonly descriptor: number
  readonly alignmentBytes: number
  readonly generation: number
  /** The size as measured at this opening; it replaces the one of `attachExport`. */
  readonly sizeBytes: number
  /** O_DSYNC does not reach stable storage on this engine and file system: each WRITE needs an fdatasync of its own. */
  readonly syncAfterWrite: boolean
}

/** Answered once the engine holds no reference to the descriptor. Only after a drain; the gate must not admit. */
export interface DetachFile {
  readonly kind: 'detachFile'
  readonly exportId: ExportId
}

/** A connection in transmission phase. The worker owns the descriptor from here on. */
export interface AdoptConnection {
  readonly kind: 'adoptConnection'
  readonly exportId: ExportId
  readonly clientId: ClientId
  readonly descriptor: number
  /** What the peer had sent beyond the negotiation. */
  readonly unread: Uint8Array
  /** For status and logs: "127.0.0.1:4711", or "unix:pid=12". */
  readonly peer: string
  /** Who it is across reconnects: a TCP peer's address without the port; a Unix peer's pid and uid. */
  readonly peerIdentity: string
}

export interface SetGate {
  readonly kind: 'setGate'
  readonly exportId: ExportId
  readonly reads: GateSetting
  readonly writes: GateSetting
  /** Drops what is admitted and not submitted, unanswered, and cuts those connections. */
  readonly abortUnsubmitted: boolean
}

/**
 * Answered when nothing admitted is left: every submitted request has cleared, and those that can be answered are.
 * A later `setGate` that admits again cancels the drain, which is then answered with `cancelled`.
 */
export interface Drain {
  readonly kind: 'drain'
  readonly exportId: ExportId
}

/** fdatasync on the descriptor that did the I/O, even if nothing is dirty. */
export interface Sync {
  readonly kind: 'sync'
  readonly exportId: ExportId
}

export interface HoldRanges {
  readonly kind: 'hold'
  readonly exportId: ExportId
  readonly holds: readonly Hold[]
}

/** Lets go of all holds of a generation. */
export interface ReleaseHolds {
  readonly kind: 'release'
  readonly exportId: ExportId
  readonly generation: number
}

/** Reports every write that is admitted and not cleared, widened; for the early handover. */
export interface ListUncleared {
  readonly kind: 'listUncleared'
  readonly exportId: ExportId
}

/** Cuts the connections of an export: all, or one. Admitted requests run to their end all the same. */
export interface Disconnect {
  readonly kind: 'disconnect'
  readonly exportId: ExportId
  readonly clientId?: ClientId
}

export interface InspectExport {
  readonly kind: 'inspect'
  readonly exportId: ExportId
}

export interface ListRequests {
  readonly kind: 'listRequests'
  readonly exportId: ExportId
  readonly countMax: number
}

/** Forgets the export. Its connections are cut; it must have no file. */
export interface DetachExport {
  readonly kind: 'detachExport'
  readonly exportId: ExportId
}

/** The worker ends all its streams and leaves its loop by itself once this is answered. */
export interface Stop {
  readonly kind: 'stop'
}

export type OrderBody =
  | AttachExport
  | AttachFile
  | DetachFile
  | AdoptConnection
  | SetGate
  | Drain
  | Sync
  | HoldRanges
  | ReleaseHolds
  | ListUncleared
  | Disconnect
  | InspectExport
  | ListRequests
  | DetachExport
  | Stop

export type OrderKind = OrderBody['kind']
export type Order = OrderBody & { readonly order: number }
export type { Range }
