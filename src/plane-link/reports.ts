/**
 * Everything a data worker says. A report answers one order, by its number; a notice is said unasked. Durations are
 * milliseconds since the request was parsed, measured in the worker.
 */

import type { Range } from '../interlock/range.ts'
import type { AbortedRequest } from '../interlock/receipt.ts'
import type { ClientId, ExportId, OrderKind } from './orders.ts'

export type RequestPhase = 'parsed' | 'admitted' | 'held' | 'submitted' | 'cleared'

export interface PhaseCounts {
  readonly parsed: number
  readonly admitted: number
  readonly held: number
  readonly submitted: number
  /** Cleared and not yet answered. */
  readonly cleared: number
  readonly bytes: number
  readonly oldestMs: number
}

export interface ClientInspection {
  readonly clientId: ClientId
  readonly peer: string
  /** Milliseconds since it was adopted. */
  readonly sinceMs: number
  readonly outstanding: PhaseCounts
  /** True once it has written: in an exclusive export the newest writer evicts the older one. */
  readonly writer: boolean
}

export interface ExportInspection {
  readonly clients: readonly ClientInspection[]
  readonly outstanding: PhaseCounts
  /** Admitted writes whose connection is gone. */
  readonly orphans: number
  readonly indeterminate: readonly Range[]
  readonly holds: readonly {
    readonly offset: number
    readonly length: number
    readonly generation: number
    readonly waiting: number
  }[]
  /** Since the worker took the export. */
  readonly totals: {
    readonly reads: number
    readonly writes: number
    readonly flushes: number
    readonly trims: number
    readonly bytesRead: number
    readonly bytesWritten: number
    readonly errors: number
  }
}

export interface RequestInspection {
  readonly clientId: ClientId
  readonly cookie: string
  readonly command: string
  readonly offset: number
  readonly length: number
  readonly phase: RequestPhase
  readonly ageMs: number
  readonly orphan: boolean
}

export interface DrainResult {
  readonly cancelled: boolean
  /** What was admitted and uncleared when the gate shut, and has cleared since. */
  readonly requests: number
  readonly writes: number
  readonly bytes: number
  readonly aborted: readonly AbortedRequest[]
  readonly indeterminate: readonly Range[]
}

/** The value of each report, by the kind of the order. `errno` is 0 or positive. */
export interface ReportValues {
  readonly attachExport: null
  readonly attachFile: null
  readonly detachFile: null
  readonly adoptConnection: { readonly adopted: boolean }
  readonly setGate: { readonly aborted: readonly AbortedRequest[] }
  readonly drain: DrainResult
  readonly sync: { readonly errno: number }
  readonly hold: null
  readonly release: null
  readonly listUncleared: { readonly ranges: readonly Range[] }
  readonly disconnect: { readonly clients: number }
  readonly inspect: ExportInspection
  readonly listRequests: { readonly requests: readonly RequestInspection[]; readonly truncated: boolean }
  readonly detachExport: null
  readonly stop: null
}

export type ReportOf<K extends OrderKind> = ReportValues[K]

export interface Report {
  readonly kind: 'report'
  readonly order: number
  readonly value: ReportValues[OrderKind]
}

/** The worker fenced the export by itself: a failed fdatasync, or a failed write in writeback. The gate refuses now. */
export interface ExportFaulted {
  readonly kind: 'exportFaulted'
  readonly exportId: ExportId
  readonly errno: number
  readonly during: 'sync' | 'write' | 'trim' | 'zero'
}

export interface WriteFailed {
  readonly kind: 'writeFailed'
  readonly exportId: ExportId
  readonly errno: number
  readonly range: Range
}

export interface ClientGone {
  readonly kind: 'clientGone'
  readonly exportId: ExportId
  readonly clientId: ClientId
  readonly reason: 'disconnect' | 'lost' | 'protocol' | 'evicted' | 'barred' | 'ordered' | 'starved'
  /** One sentence for the log. */
  readonly detail: string
}

/** The worker runs its loop; sent once. */
export interface WorkerReady {
  readonly kind: 'ready'
  readonly engine: 'io_uring' | 'file'
  /** Which kernel features the engine uses, or how many threads. */
  readonly description: string
  /** To be closed by the main thread should the worker end without a last word; -1 where there is none. */
  readonly ringDescriptor: number
}

export type Notice = ExportFaulted | WriteFailed | ClientGone | WorkerReady
export type WorkerMessage = Report | Notice

/** The last word of a worker that dies: it serves nothing any more, and its clients are cut. */
export interface WorkerFailed {
  readonly kind: 'failed'
  readonly message: string
  readonly stack: string
}
