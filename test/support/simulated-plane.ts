/**
 * A data plane over the simulated engine, with the main thread's end of it in a test's hand: orders go in, reports and
 * notices come out, clients send bytes. Time stands still unless the test moves it. After every turn everything that
 * the plane keeps count of is counted anew.
 *
 * The one simulated disk is divided: each export has a part of it, which begins at 0 as far as the plane can see.
 */

import type { Completion, Engine, FileId, PartList, StreamId, Token } from '../../src/engine/contract.ts'
import { DataPlane } from '../../src/data/data-plane.ts'
import type { DataLimits } from '../../src/data/plane-state.ts'
import { NO_BUFFER } from '../../src/data/request-io.ts'
import type { ServedExport } from '../../src/data/served-export.ts'
import { assert, present } from '../../src/foundation/assert.ts'
import { Phase } from '../../src/interlock/request-tracker.ts'
import { layOutMemory } from '../../src/plane-link/memory-layout.ts'
import type { AdoptConnection, AttachExport, Order, OrderBody, OrderKind } from '../../src/plane-link/orders.ts'
import type { ClientGone, Notice, ReportOf, WorkerMessage } from '../../src/plane-link/reports.ts'
import { SimulatedEngine } from './simulated-engine.ts'
import type { DiskOperationKind, SimulatedEngineOptions } from './simulated-engine.ts'
import { SimulatedFrontend } from './simulated-frontend.ts'

export const SMALL_LIMITS: DataLimits = {
  slotsMax: 32,
  connectionsMax: 8,
  exportsMax: 4,
  requestsPerConnectionMax: 16,
  arenaBytes: 256 * 1024,
  inboxBytes: 8192,
  payloadBytesMax: 64 * 1024,
  stalledPeerMs: 1000,
  farewellMs: 100,
}

export interface SimulatedPlaneOptions {
  readonly seed: number
  readonly limits?: Partial<DataLimits>
  /** How many exports the disk is divided among, and the bytes of each; by default one of 64 KiB. */
  readonly parts?: number
  readonly partBytes?: number
  readonly engine?: Omit<SimulatedEngineOptions, 'seed' | 'sizeBytes' | 'arenaBytes' | 'arena'>
}

/** An operation that the plane hands to the engine, seen before the engine has it. */
export interface DiskSubmission {
  readonly kind: DiskOperationKind
  readonly part: number
  /** Of the descriptor that it goes to: what `attachFile` said. */
  readonly generation: number
  readonly token: Token
  readonly position: number
  readonly lengthBytes: number
  readonly flags: number
}

export type ClientNotice = ClientGone

export interface AttachFileFields {
  readonly syncAfterWrite?: boolean
  readonly exportId: number
  readonly generation: number
  readonly alignmentBytes?: number
  readonly sizeBytes?: number
  readonly readOnly?: boolean
}

export class SimulatedPlane {
  readonly seed: number
  readonly limits: DataLimits
  readonly partBytes: number
  readonly engine: SimulatedEngine
  readonly plane: DataPlane
  /** Everything said unasked, in order. */
  readonly notices: Notice[] = []
  readonly gone = new Map<number, ClientGone>()
  readonly cells = new Map<number, Int32Array>()
  nowMs = 1
  turns = 0
  clockWanted = false
  onDisk: (submission: DiskSubmission) => void = () => undefined
  onReport: (order: number) => void = () => undefined
  onNotice: (notice: Notice) => void = () => undefined
  onTurn: () => void = () => undefined
  /** What the plane is told of a completion, in place of what the engine says. */
  distort: (token: Token, result: number) => number = (_token, result) => result
  readonly #orders: Order[] = []
  readonly #waiting = new Map<number, OrderKind>()
  readonly #values = new Map<number, unknown>()
  readonly #frontends = new Map<number, SimulatedFrontend>()
  readonly #parts: DividedDisk
  #lastOrder = 0
  #lastClientId = 0

  constructor(options: SimulatedPlaneOptions) {
    this.seed = options.seed
    this.limits = { ...SMALL_LIMITS, ...options.limits }
    this.partBytes = options.partBytes ?? 64 * 1024
    const { totalBytes } = layOutMemory(this.limits)
    this.engine = new SimulatedEngine({
      ...options.engine,
      seed: options.seed,
      sizeBytes: this.partBytes * (options.parts ?? 1),
      arenaBytes: totalBytes,
    })
    this.#parts = new DividedDisk(
      this.engine,
      this.partBytes,
      (submission) => {
        this.onDisk(submission)
      },
      (token, result) => this.distort(token, result),
    )
    this.plane = new DataPlane({
      engine: this.#parts,
      limits: this.limits,
      bytes: this.engine.arena.bytes,
      say: (message) => {
        this.#heard(message)
      },
      nextOrder: () => this.#orders.shift(),
      peerGone: (descriptor) => present(this.#frontends.get(descriptor), 'a connected frontend').hasFinished,
      now: () => this.nowMs,
      wantClock: (wanted) => {
        this.clockWanted = wanted
      },
    })
    this.engine.run(() => {
      this.plane.turn()
      this.turns += 1
      this.invariants()
      this.onTurn()
    })
  }

  // Time and turns.

  step(): boolean {
    return this.engine.step()
  }

  /** Until nothing is left to do without the clock or anybody's help; clients that read have what was sent to them. */
  settle(): void {
    this.engine.settle()
    for (const frontend of this.#frontends.values()) frontend.poll()
    this.engine.settle()
  }

  /** Moves the clock and lets what depends on it happen. */
  pass(milliseconds: number): void {
    this.nowMs += milliseconds
    this.engine.wake()
    this.settle()
  }

  // Orders.

  /** Sends an order; its number. */
  post(body: OrderBody): number {
    this.#lastOrder += 1
    this.#waiting.set(this.#lastOrder, body.kind)
    this.#orders.push({ ...body, order: this.#lastOrder })
    this.engine.wake()
    return this.#lastOrder
  }

  hasReported(order: number): boolean {
    return this.#values.has(order)
  }

  value<K extends OrderKind>(order: number, _kind: K): ReportOf<K> {
    assert(this.#values.has(order), `order ${order} was reported`)
    return this.#values.get(order) as ReportOf<K>
  }

  /** Sends an order and settles: the value of its report. */
  order<B extends OrderBody>(body: B): ReportOf<B['kind']> {
    const order = this.post(body)
    this.settle()
    assert(this.#values.has(order), `order ${order} (${body.kind}) waits for nobody's help`)
    return this.#values.get(order) as ReportOf<B['kind']>
  }

  get ordersWaiting(): OrderKind[] {
    return [...this.#waiting.values()]
  }

  attachExport(fields: Partial<AttachExport> & { readonly exportId: number }): Int32Array {
    const cell = new SharedArrayBuffer(4)
    this.cells.set(fields.exportId, new Int32Array(cell))
    this.order({
      kind: 'attachExport',
      name: `export-${fields.exportId}`,
      sizeBytes: this.partBytes,
      readOnly: false,
      durability: 'sync',
      clients: 'exclusive',
      generationCell: cell,
      ...fields,
    })
    return present(this.cells.get(fields.exportId), 'the cell')
  }

  /** The order that gives an export its part of the disk: export 1 has the first. */
  attachFileOrder(fields: AttachFileFields): OrderBody {
    const { exportId, generation } = fields
    const descriptor = this.engine.openDisk({ readOnly: fields.readOnly ?? generation === 0 })
    this.#parts.assign(descriptor, exportId - 1, generation)
    return {
      kind: 'attachFile',
      exportId,
      descriptor,
      alignmentBytes: fields.alignmentBytes ?? 512,
      generation,
      sizeBytes: fields.sizeBytes ?? this.partBytes,
      syncAfterWrite: fields.syncAfterWrite ?? false,
    }
  }

  setCell(exportId: number, generation: number): void {
    Atomics.store(present(this.cells.get(exportId), 'the cell of an export'), 0, generation)
  }

  gate(exportId: number, reads: 'admit' | 'park' | 'refuse', writes = reads, abortUnsubmitted = false): void {
    this.order({ kind: 'setGate', exportId, reads, writes, abortUnsubmitted })
  }

  /** Attached, with a file of generation 1, and admitting. */
  openExport(
    exportId = 1,
    fields: Partial<AttachExport> & { readonly alignmentBytes?: number } = {},
    generation = 1,
  ): ServedExport {
    const { alignmentBytes, ...rest } = fields
    this.attachExport({ ...rest, exportId })
    this.order(this.attachFileOrder({ exportId, generation, alignmentBytes: alignmentBytes ?? 512 }))
    this.setCell(exportId, generation)
    this.gate(exportId, 'admit')
    return this.served(exportId)
  }

  // Clients.

  /** A frontend in transmission phase. `unread` is what it had sent beyond the negotiation. */
  connect(exportId = 1, fields: Partial<Pick<AdoptConnection, 'peerIdentity' | 'unread'>> = {}): SimulatedFrontend {
    const { frontend, adoption } = this.connectLater(exportId, fields)
    this.order(adoption)
    return frontend
  }

  /** The same, with the order still to be sent. */
  connectLater(
    exportId: number,
    fields: Partial<Pick<AdoptConnection, 'peerIdentity' | 'unread'>> = {},
  ): { readonly frontend: SimulatedFrontend; readonly adoption: AdoptConnection } {
    this.#lastClientId += 1
    const clientId = this.#lastClientId
    const end = this.engine.connect()
    const frontend = new SimulatedFrontend(end, clientId)
    this.#frontends.set(end.descriptor, frontend)
    const adoption: AdoptConnection = {
      kind: 'adoptConnection',
      exportId,
      clientId,
      descriptor: end.descriptor,
      unread: fields.unread ?? new Uint8Array(0),
      peer: `simulated-${clientId}`,
      peerIdentity: fields.peerIdentity ?? `identity-${clientId}`,
    }
    return { frontend, adoption }
  }

  // What the plane keeps.

  served(exportId: number): ServedExport {
    return present(
      this.plane.state.exports.find((served) => served?.exportId === exportId),
      `export ${exportId}`,
    )
  }

  /** What a part of the disk holds now, the operations under way included. */
  disk(position: number, lengthBytes: number, exportId = 1): Uint8Array {
    const bytes = new Uint8Array(lengthBytes)
    this.engine.disk.read((exportId - 1) * this.partBytes + position, bytes)
    return bytes
  }

  /** Throws unless every count is that of a fresh count. */
  invariants(): void {
    const { state } = this.plane
    state.tracker.invariants()
    state.arena.invariants()
    for (const served of state.exports) {
      served?.ledger.invariants()
      served?.succession.invariants()
      served?.indeterminate.invariants()
    }
    this.#countMemory()
    for (const connection of state.connections) {
      if (connection === undefined) continue
      const { inboxAt, head, tail } = connection
      assert(inboxAt <= head && head <= tail, 'what is parsed lies before what is not')
      assert(tail <= inboxAt + state.layout.inboxBytes, 'an inbox keeps to its place')
    }
  }

  /** Throws if anything is left behind once everybody has gone. */
  assertNothingLeft(): void {
    const { state } = this.plane
    assert(state.tracker.freeCount === state.tracker.slotsMax, 'every request slot is free')
    assert(state.arena.usedBytes === 0, 'every buffer is free')
    assert(
      state.connections.every((connection) => connection === undefined),
      'every connection row is free',
    )
    assert(
      state.active.count + state.slotLine.count + state.memoryLine.count + state.sendList.count === 0,
      'nobody waits in a queue',
    )
    for (const frontend of this.#frontends.values()) {
      assert(frontend.ended, `the stream of client ${frontend.clientId} was closed`)
      assert(this.gone.has(frontend.clientId), `client ${frontend.clientId} was reported gone`)
    }
    assert(this.#waiting.size === 0, `no order is left unanswered: ${this.ordersWaiting.join(', ')}`)
    assert(!this.plane.state.again, 'no further turn is wanted')
  }

  #countMemory(): void {
    const { arena, io, tracker, connections } = this.plane.state
    let used = 0
    const held = new Map<number, number>()
    for (let slot = 0; slot < tracker.slotsMax; slot += 1) {
      if (tracker.phase[slot] === Phase.FREE || io.buffer[slot] === NO_BUFFER) continue
      const footprint = io.bufferBytes[slot] ?? 0
      const row = tracker.client[slot] ?? -1
      used += footprint
      held.set(row, (held.get(row) ?? 0) + footprint)
    }
    assert(used === arena.usedBytes, 'every buffer in use belongs to a request')
    for (const connection of connections) {
      if (connection === undefined) continue
      assert(connection.heldBytes === (held.get(connection.index) ?? 0), 'a connection knows what its requests hold')
    }
  }

  #heard(message: WorkerMessage): void {
    if (message.kind === 'report') {
      assert(this.#waiting.delete(message.order), `order ${message.order} is answered once`)
      this.#values.set(message.order, message.value)
      this.onReport(message.order)
      return
    }
    this.notices.push(message)
    if (message.kind === 'clientGone') {
      assert(!this.gone.has(message.clientId), `client ${message.clientId} goes once`)
      this.gone.set(message.clientId, message)
    }
    this.onNotice(message)
  }
}

interface Part {
  readonly part: number
  readonly generation: number
}

/** Shifts every position by where its file's part of the disk begins, and shows what is submitted. */
class DividedDisk implements Engine {
  readonly kind = 'simulated'
  readonly diskDepth: number
  readonly #engine: SimulatedEngine
  readonly #partBytes: number
  readonly #show: (submission: DiskSubmission) => void
  readonly #distort: (token: Token, result: number) => number
  readonly #assigned = new Map<number, Part>()
  readonly #files = new Map<FileId, Part>()

  constructor(
    engine: SimulatedEngine,
    partBytes: number,
    show: (submission: DiskSubmission) => void,
    distort: (token: Token, result: number) => number,
  ) {
    this.#engine = engine
    this.#distort = distort
    this.#partBytes = partBytes
    this.#show = show
    this.diskDepth = engine.diskDepth
  }

  assign(descriptor: number, part: number, generation: number): void {
    this.#assigned.set(descriptor, { part, generation })
  }

  run(turn: () => void): void {
    this.#engine.run(turn)
  }

  wake(): void {
    this.#engine.wake()
  }

  next(into: Completion): boolean {
    if (!this.#engine.next(into)) return false
    into.result = this.#distort(into.token, into.result)
    return true
  }

  addStream(descriptor: number): StreamId {
    return this.#engine.addStream(descriptor)
  }

  endStream(id: StreamId, token: Token): void {
    this.#engine.endStream(id, token)
  }

  receive(id: StreamId, token: Token, arenaOffset: number, lengthBytes: number): void {
    this.#engine.receive(id, token, arenaOffset, lengthBytes)
  }

  send(id: StreamId, token: Token, parts: PartList): void {
    this.#engine.send(id, token, parts)
  }

  addFile(descriptor: number, alignmentBytes: number): FileId {
    const id = this.#engine.addFile(descriptor, alignmentBytes)
    this.#files.set(id, present(this.#assigned.get(descriptor), 'the part of a descriptor'))
    return id
  }

  removeFile(id: FileId, token: Token): void {
    this.#files.delete(id)
    this.#engine.removeFile(id, token)
  }

  read(id: FileId, token: Token, position: number, arenaOffset: number, lengthBytes: number): void {
    this.#engine.read(id, token, this.#at('read', id, token, position, lengthBytes, 0), arenaOffset, lengthBytes)
  }

  write(id: FileId, token: Token, position: number, arenaOffset: number, lengthBytes: number, flags: number): void {
    const at = this.#at('write', id, token, position, lengthBytes, flags)
    this.#engine.write(id, token, at, arenaOffset, lengthBytes, flags)
  }

  sync(id: FileId, token: Token): void {
    this.#at('sync', id, token, 0, 0, 0)
    this.#engine.sync(id, token)
  }

  discard(id: FileId, token: Token, position: number, lengthBytes: number): void {
    this.#engine.discard(id, token, this.#at('discard', id, token, position, lengthBytes, 0), lengthBytes)
  }

  zero(id: FileId, token: Token, position: number, lengthBytes: number, flags: number): void {
    this.#engine.zero(id, token, this.#at('zero', id, token, position, lengthBytes, flags), lengthBytes, flags)
  }

  #at(kind: DiskOperationKind, id: FileId, token: Token, position: number, lengthBytes: number, flags: number): number {
    const { part, generation } = present(this.#files.get(id), `file ${id}`)
    assert(position >= 0 && position + lengthBytes <= this.#partBytes, 'an operation keeps to its part of the disk')
    this.#show({ kind, part, generation, token, position, lengthBytes, flags })
    return part * this.#partBytes + position
  }
}
