/**
 * The tables that the parts of the data plane share: requests, their I/O, connections, exports and memory. Plain state;
 * each part owns the changes its file describes. One per worker, touched by one thread, so nothing here is locked.
 */

import type { Engine } from '../engine/contract.ts'
import { assert } from '../foundation/assert.ts'
import { RequestTracker } from '../interlock/request-tracker.ts'
import { NBD_CMD_WRITE } from '../nbd/constants.ts'
import type { WorkerMessage } from '../plane-link/reports.ts'
import { BufferArena } from './buffer-arena.ts'
import { bufferBytesFor } from './command-plan.ts'
import type { Connection } from './connection.ts'
import type { MemoryLayout } from '../plane-link/memory-layout.ts'
import { PAGE_BYTES, layOutMemory } from '../plane-link/memory-layout.ts'
import { NO_BUFFER, RequestIo } from './request-io.ts'
import { Ring } from './ring.ts'
import type { ServedExport } from './served-export.ts'
import { TOKEN_INDEX_MAX } from './token.ts'
import { WaitingLine } from './waiting-line.ts'

export interface DataLimits {
  readonly slotsMax: number
  readonly connectionsMax: number
  readonly exportsMax: number
  readonly requestsPerConnectionMax: number
  readonly arenaBytes: number
  readonly inboxBytes: number
  readonly payloadBytesMax: number
  /** A peer that stands still this long while it holds memory that others wait for is cut. */
  readonly stalledPeerMs: number
  /** How long a connection that is being cut may take for its last answers. */
  readonly farewellMs: number
}

export class PlaneState {
  readonly engine: Engine
  readonly limits: DataLimits
  readonly bytes: Uint8Array
  readonly view: DataView
  readonly layout: MemoryLayout
  readonly arena: BufferArena
  readonly tracker: RequestTracker
  readonly io: RequestIo
  readonly connections: (Connection | undefined)[]
  readonly exports: (ServedExport | undefined)[]
  /** Connections with something to parse, in the order of their turn. */
  readonly active: Ring
  readonly slotLine: WaitingLine
  readonly memoryLine: WaitingLine
  /** Connections with answers to send in this turn. */
  readonly sendList: Ring
  readonly say: (message: WorkerMessage) => void
  nowMs = 0
  turnNumber = 0
  /** Something is left to do although no completion will say so: another turn is needed. */
  again = false

  constructor(engine: Engine, limits: DataLimits, bytes: Uint8Array, say: (message: WorkerMessage) => void) {
    this.engine = engine
    this.limits = limits
    this.bytes = bytes
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.layout = layOutMemory(limits)
    assert(Math.max(limits.slotsMax, limits.connectionsMax) - 1 <= TOKEN_INDEX_MAX, 'every row fits a token')
    const largest = bufferBytesFor(NBD_CMD_WRITE, 1, limits.payloadBytesMax, PAGE_BYTES)
    assert(BufferArena.footprint(largest) <= limits.arenaBytes, 'the largest request finds a buffer')
    this.arena = new BufferArena(this.layout.buffersAt, this.layout.buffersBytes)
    this.tracker = new RequestTracker({
      slotsMax: limits.slotsMax,
      clientsMax: limits.connectionsMax,
      exportsMax: limits.exportsMax,
    })
    this.io = new RequestIo(limits.slotsMax)
    this.connections = new Array<Connection | undefined>(limits.connectionsMax).fill(undefined)
    this.exports = new Array<ServedExport | undefined>(limits.exportsMax).fill(undefined)
    this.active = new Ring(limits.connectionsMax)
    this.slotLine = new WaitingLine(limits.connectionsMax)
    this.memoryLine = new WaitingLine(limits.connectionsMax)
    this.sendList = new Ring(limits.connectionsMax)
    this.say = say
  }

  connectionOf(slot: number): Connection {
    return this.connections[this.tracker.client[slot] as number] as Connection
  }

  exportOf(slot: number): ServedExport {
    return this.exports[this.tracker.exportIndex[slot] as number] as ServedExport
  }

  /** The connection gets another look in this turn or the next. */
  activate(connection: Connection): void {
    if (connection.active) return
    connection.active = true
    this.active.push(connection.index)
  }

  /** Gives back the buffer of a request; whoever waits for memory is looked at when the turn ends. */
  releaseBuffer(slot: number): void {
    const buffer = this.io.buffer[slot] as number
    if (buffer === NO_BUFFER) return
    this.arena.release(buffer)
    this.io.buffer[slot] = NO_BUFFER
    this.connectionOf(slot).heldBytes -= this.io.bufferBytes[slot] as number
  }

  /** The request has left: answered, or dropped. */
  finish(slot: number): void {
    this.releaseBuffer(slot)
    const connection = this.connectionOf(slot)
    this.io.reset(slot)
    this.tracker.finish(slot)
    if (connection.state === 'open') this.activate(connection)
  }
}
