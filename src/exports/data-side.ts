/**
 * An export's end in the data plane: the orders that concern it, and whether it is attached there at all. It knows no
 * lifecycle. When its worker dies it is detached by that, and attached anew to the next one.
 */

import type { Hold, Range } from '../interlock/range.ts'
import type { AbortedRequest } from '../interlock/receipt.ts'
import type { GateSettings } from '../interlock/gate.ts'
import { assert, present } from '../foundation/assert.ts'
import type { DataWorker } from '../plane-link/data-worker.ts'
import type { OrderBody } from '../plane-link/orders.ts'
import type { DrainResult, ExportInspection, ReportOf } from '../plane-link/reports.ts'
import { needsSyncAfterWrite } from './durable-write.ts'
import type { Placement } from './export-context.ts'
import type { OpenImage } from './image.ts'
import type { ExportDefinition } from './verbs.ts'

export interface AdoptedConnection {
  readonly clientId: number
  readonly descriptor: number
  readonly unread: Uint8Array
  readonly peer: string
  readonly peerIdentity: string
}

export class DataSide {
  readonly #exportId: number
  readonly #definition: ExportDefinition
  /** The generation that may submit writes; 0 is none. The worker reads it before each batch. */
  readonly #generationCell = new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT)
  #placement: Placement | null = null
  #file: OpenImage | null = null
  /** What the worker is asked to give up. */
  #detaching: OpenImage | null = null

  constructor(exportId: number, definition: ExportDefinition) {
    this.#exportId = exportId
    this.#definition = definition
  }

  get placement(): Placement | null {
    return this.#placement
  }

  /** The image that the worker does I/O on. */
  get file(): OpenImage | null {
    return this.#file
  }

  isOn(worker: DataWorker): boolean {
    return this.#placement?.worker === worker
  }

  async attach(placement: Placement, sizeBytes: number): Promise<void> {
    assert(this.#placement === null, 'an export lives on one worker')
    this.#placement = placement
    const { name, readOnly, durability, clients } = this.#definition
    await this.#order({
      kind: 'attachExport',
      exportId: this.#exportId,
      name,
      sizeBytes,
      readOnly,
      durability,
      clients,
      generationCell: this.#generationCell,
    })
  }

  async attachFile(image: OpenImage, generation: number): Promise<void> {
    const placement = present(this.#placement, 'the worker of an export')
    assert(this.#file === null, 'an export has one file')
    this.#file = image
    await this.#order({
      kind: 'attachFile',
      exportId: this.#exportId,
      descriptor: image.descriptor.number,
      alignmentBytes: image.facts.alignmentBytes,
      generation,
      sizeBytes: image.facts.sizeBytes,
      syncAfterWrite: needsSyncAfterWrite(placement.engine.kind, image.facts.fileSystem),
    })
  }

  /** Once it settles the descriptor is nobody's but the caller's. Null when there is none, or somebody is at it already. */
  async detachFile(): Promise<OpenImage | null> {
    const file = this.#file
    if (file === null) return null
    this.#file = null
    this.#detaching = file
    await this.#order({ kind: 'detachFile', exportId: this.#exportId })
    this.#detaching = null
    return file
  }

  /** Lets writes of this generation be submitted, or, with 0, none. Takes effect before the worker's next batch. */
  allowGeneration(generation: number): void {
    Atomics.store(new Int32Array(this.#generationCell), 0, generation)
  }

  async setGate(settings: GateSettings, abortUnsubmitted = false): Promise<readonly AbortedRequest[]> {
    const { reads, writes } = settings
    const report = await this.#order({ kind: 'setGate', exportId: this.#exportId, reads, writes, abortUnsubmitted })
    return report.aborted
  }

  drain(): Promise<DrainResult> {
    return this.#order({ kind: 'drain', exportId: this.#exportId })
  }

  async sync(): Promise<number> {
    return (await this.#order({ kind: 'sync', exportId: this.#exportId })).errno
  }

  async hold(holds: readonly Hold[]): Promise<void> {
    await this.#order({ kind: 'hold', exportId: this.#exportId, holds })
  }

  async release(generation: number): Promise<void> {
    await this.#order({ kind: 'release', exportId: this.#exportId, generation })
  }

  async uncleared(): Promise<readonly Range[]> {
    return (await this.#order({ kind: 'listUncleared', exportId: this.#exportId })).ranges
  }

  async adopt(connection: AdoptedConnection): Promise<boolean> {
    const report = await this.#order({ kind: 'adoptConnection', exportId: this.#exportId, ...connection })
    return report.adopted
  }

  async disconnect(): Promise<void> {
    await this.#order({ kind: 'disconnect', exportId: this.#exportId })
  }

  inspect(): Promise<ExportInspection> {
    return this.#order({ kind: 'inspect', exportId: this.#exportId })
  }

  requests(countMax: number): Promise<ReportOf<'listRequests'>> {
    return this.#order({ kind: 'listRequests', exportId: this.#exportId, countMax })
  }

  /** Cuts the clients and forgets the export. Its file was detached before. */
  async detach(): Promise<void> {
    if (this.#placement === null) return
    await this.#order({ kind: 'detachExport', exportId: this.#exportId })
    this.#placement = null
  }

  /** The worker is dead: what it had is the caller's to close, once the worker has released it. */
  lose(): OpenImage | null {
    const file = this.#file ?? this.#detaching
    this.#file = null
    this.#detaching = null
    this.#placement = null
    return file
  }

  #order<B extends OrderBody>(body: B): Promise<ReportOf<B['kind']>> {
    assert(this.#placement !== null, 'the export is attached to a worker')
    return this.#placement.worker.order(body)
  }
}
