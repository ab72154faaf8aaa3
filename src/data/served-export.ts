/**
 * What a worker knows of an export: its gate, the order of its writes, what is dirty, and who waits for a sync. The
 * lifecycle, the record and the descriptor's life belong to the main thread; this is only what I/O needs.
 */

import { Gate } from '../interlock/gate.ts'
import { IndeterminateRanges } from '../interlock/indeterminate.ts'
import { RangeLedger } from '../interlock/range-ledger.ts'
import type { AbortedRequest } from '../interlock/receipt.ts'
import { WriterSuccession } from '../interlock/writer-succession.ts'
import type { RequestLimits } from '../nbd/request-check.ts'
import { requestLimits, servedAbilities } from '../nbd/transmission-flags.ts'
import type { AttachExport } from '../plane-link/orders.ts'
import { NO_SLOT } from './request-io.ts'

const INDETERMINATE_RANGES_MAX = 1024

/** What was outstanding when the gate shut: the receipt's numbers. */
export interface ShutCounts {
  requests: number
  writes: number
  bytes: number
}

export class ServedExport {
  readonly #payloadBytesMax: number
  readonly index: number
  readonly exportId: number
  readonly name: string
  requestLimits: RequestLimits
  readonly readOnly: boolean
  readonly durability: 'sync' | 'writeback'
  readonly clients: 'exclusive' | 'shared'
  readonly generationCell: Int32Array

  readonly gate = new Gate({ reads: 'park', writes: 'park' })
  readonly ledger: RangeLedger
  readonly succession: WriterSuccession
  readonly indeterminate = new IndeterminateRanges(INDETERMINATE_RANGES_MAX)

  file = -1
  alignmentBytes = 1
  /** Of the attached descriptor; 0 when it is read-only or absent. */
  generation = 0
  /** A WRITE in `sync` is followed by an fdatasync before its answer, as TRIM and WRITE_ZEROES always are. */
  syncAfterWrite = false
  /** This generation can never be reported closed. */
  faulted = false
  /** The turn in which the shared generation was last compared, and what came of it. */
  checkedTurn = -1
  mayWrite = false

  /** Operations that the engine has; and the requests that wait for room there (`ready-queue.ts`). */
  operations = 0
  readyFirst = NO_SLOT
  readyLast = NO_SLOT
  hasTurn = false

  /** Writes completed since the file was attached that no sync has covered yet are those beyond `synced`. */
  dirty = 0
  synced = 0
  syncing = 0
  syncRunning = false
  /** Slots; and orders of the main thread by their numbers. */
  syncWaitingFirst = NO_SLOT
  syncWaitingLast = NO_SLOT
  syncCoveredFirst = NO_SLOT
  syncOrdersWaiting: number[] = []
  syncOrdersCovered: number[] = []

  /** Order numbers; 0 is none. */
  readonly drainOrders: number[] = []
  detachOrder = 0
  forgetOrder = 0
  shut: ShutCounts = { requests: 0, writes: 0, bytes: 0 }
  aborted: AbortedRequest[] = []

  reads = 0
  writes = 0
  flushes = 0
  trims = 0
  bytesRead = 0
  bytesWritten = 0
  errors = 0

  constructor(
    index: number,
    order: AttachExport,
    limits: { readonly slotsMax: number; readonly payloadBytesMax: number },
  ) {
    this.#payloadBytesMax = limits.payloadBytesMax
    this.index = index
    this.exportId = order.exportId
    this.name = order.name
    this.requestLimits = this.#limitsOf(order.readOnly, order.sizeBytes)
    this.readOnly = order.readOnly
    this.durability = order.durability
    this.clients = order.clients
    this.generationCell = new Int32Array(order.generationCell)
    this.ledger = new RangeLedger(limits.slotsMax)
    this.succession = new WriterSuccession(order.clients)
  }

  get hasFile(): boolean {
    return this.file >= 0
  }

  get isDirty(): boolean {
    return this.dirty !== this.synced
  }

  /** Whether what changes the image may be handed to the engine: compared once in each turn, before the first of it. */
  mayWriteIn(turnNumber: number): boolean {
    if (this.checkedTurn !== turnNumber) {
      this.checkedTurn = turnNumber
      this.mayWrite = this.generation !== 0 && Atomics.load(this.generationCell, 0) === this.generation
    }
    return this.mayWrite && !this.faulted
  }

  resize(sizeBytes: number): void {
    this.requestLimits = this.#limitsOf(this.readOnly, sizeBytes)
  }

  #limitsOf(readOnly: boolean, sizeBytes: number): RequestLimits {
    return requestLimits(servedAbilities(readOnly, false), sizeBytes, this.#payloadBytesMax)
  }
}
