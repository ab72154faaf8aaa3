/**
 * Orders of the main thread, one function each. Every order is answered by exactly one report: at once, or, for drain,
 * sync, detachFile and stop, when what they wait for has happened.
 */

import { assert, present, unreachable } from '../foundation/assert.ts'
import { SlotList } from '../interlock/slot-list.ts'
import type { AbortedRequest } from '../interlock/receipt.ts'
import { commandName } from '../nbd/constants.ts'
import type { AttachFile, ExportId, Order, OrderKind, SetGate } from '../plane-link/orders.ts'
import type { ReportOf } from '../plane-link/reports.ts'
import { isWriteCommand } from './command-plan.ts'
import type { Connection } from './connection.ts'
import type { Connections } from './connections.ts'
import type { Executor } from './executor.ts'
import { inspectExport, listRequests } from './inspection.ts'
import type { PlaneState } from './plane-state.ts'
import type { RequestReader } from './request-reader.ts'
import { ServedExport } from './served-export.ts'
import type { Syncs } from './syncs.ts'
import { TokenKind, makeToken } from './token.ts'

const EBADF = 9

export interface OrderParts {
  readonly state: PlaneState
  readonly connections: Connections
  readonly executor: Executor
  readonly reader: RequestReader
  readonly syncs: Syncs
  /** Whether the peer of a socket has gone; asked before what it had parked is admitted. */
  readonly peerGone: (descriptor: number) => boolean
}

export class OrderDesk {
  readonly #parts: OrderParts
  readonly #state: PlaneState
  readonly #byId = new Map<ExportId, ServedExport>()
  readonly #released: SlotList
  #stopOrder = 0
  /** Drains and removals that wait for the end of a turn. */
  #waitingCount = 0

  constructor(parts: OrderParts) {
    this.#parts = parts
    this.#state = parts.state
    this.#released = new SlotList(parts.state.limits.slotsMax)
  }

  take(order: Order): void {
    switch (order.kind) {
      case 'attachExport':
        this.#attachExport(order)
        return
      case 'adoptConnection':
        this.#report<'adoptConnection'>(order, {
          adopted: this.#parts.connections.adopt(this.#attached(order.exportId), order),
        })
        return
      case 'stop':
        this.#stop(order)
        return
      default:
        this.#forExport(order, present(this.#byId.get(order.exportId), `export ${order.exportId}`))
    }
  }

  /** At the end of a turn: orders that waited for what has happened now. */
  settle(): void {
    if (this.#waitingCount > 0) this.#settleExports()
    if (this.#stopOrder > 0 && this.#parts.connections.count === 0) {
      const order = this.#stopOrder
      this.#stopOrder = 0
      this.#state.say({ kind: 'report', order, value: null })
    }
  }

  #settleExports(): void {
    const { tracker } = this.#state
    for (const served of this.#byId.values()) {
      if (served.forgetOrder > 0) this.#forget(served)
      if (served.drainOrders.length === 0 || served.syncRunning || tracker.unclearedOfExport(served.index) > 0) continue
      this.#answerDrain(served, false)
    }
  }

  fileRemoved(served: ServedExport): void {
    const order = served.detachOrder
    served.file = -1
    served.generation = 0
    served.detachOrder = 0
    this.#state.say({ kind: 'report', order, value: null })
  }

  #forExport(order: Exclude<Order, { kind: 'attachExport' | 'adoptConnection' | 'stop' }>, served: ServedExport): void {
    const { executor, syncs, connections } = this.#parts
    switch (order.kind) {
      case 'attachFile':
        this.#attachFile(served, order)
        this.#report(order, null)
        return
      case 'detachFile':
        this.#detachFile(served, order)
        return
      case 'setGate':
        this.#report<'setGate'>(order, { aborted: this.#setGate(served, order) })
        return
      case 'drain':
        served.drainOrders.push(order.order)
        this.#waitingCount += 1
        return
      case 'sync':
        if (served.hasFile) syncs.joinOrder(served, order.order)
        else this.#report<'sync'>(order, { errno: EBADF })
        return
      case 'hold':
        served.ledger.hold(order.holds)
        this.#report(order, null)
        return
      case 'release':
        served.ledger.release(order.generation, this.#released)
        executor.letGo(this.#released)
        this.#report(order, null)
        return
      case 'listUncleared':
        this.#report<'listUncleared'>(order, { ranges: served.ledger.ranges() })
        return
      case 'disconnect':
        this.#report<'disconnect'>(order, { clients: this.#disconnect(served, order.clientId) })
        return
      case 'inspect':
        this.#report<'inspect'>(order, inspectExport(this.#state, served, connections.of(served)))
        return
      case 'listRequests':
        this.#report<'listRequests'>(order, listRequests(this.#state, served, order.countMax))
        return
      case 'detachExport':
        this.#detachExport(served, order)
        return
      default:
        unreachable(order)
    }
  }

  #attachExport(order: Extract<Order, { kind: 'attachExport' }>): void {
    const index = this.#state.exports.indexOf(undefined)
    assert(index >= 0, 'the main thread keeps to the number of exports')
    const served = new ServedExport(index, order, this.#state.limits)
    this.#state.exports[index] = served
    this.#byId.set(order.exportId, served)
    this.#report(order, null)
  }

  #attachFile(served: ServedExport, order: AttachFile): void {
    assert(!served.hasFile, 'an export has one file')
    this.#cutMeasuredOtherwise(served, order)
    served.file = this.#state.engine.addFile(order.descriptor, order.alignmentBytes)
    served.alignmentBytes = order.alignmentBytes
    served.generation = order.generation
    served.syncAfterWrite = order.syncAfterWrite
    served.resize(order.sizeBytes)
    served.faulted = false
    served.checkedTurn = -1
    served.synced = 0
    // In writeback a failed write ended its generation: the next one is not to be blamed for it.
    if (served.durability === 'writeback' && order.generation !== 0) {
      served.indeterminate.overwrite(0, Number.MAX_SAFE_INTEGER)
    }
    // Whoever wrote before, here or elsewhere, may have left in a cache what it answered: the first FLUSH flushes.
    served.dirty = served.durability === 'writeback' && order.generation !== 0 ? 1 : 0
  }

  /** A parked request was measured by the former file: by its size, and, once it has a buffer, by its blocks. */
  #cutMeasuredOtherwise(served: ServedExport, order: AttachFile): void {
    const shrank = order.sizeBytes < served.requestLimits.sizeBytes
    const otherBlocks = order.alignmentBytes !== served.alignmentBytes
    if (!shrank && !otherBlocks) return
    for (const connection of this.#parts.connections.of(served)) {
      const measured = connection.slot >= 0 && (shrank || connection.hasBuffer)
      if (connection.state !== 'open' || !measured) continue
      this.#parts.connections.end(connection, 'ordered', 'its request does not fit the image that was opened')
    }
  }

  #detachFile(served: ServedExport, order: Order): void {
    const { tracker, engine } = this.#state
    assert(served.hasFile, 'a file to detach is attached')
    assert(served.gate.isShut, 'a file is detached behind a shut gate')
    assert(tracker.unclearedOfExport(served.index) === 0 && !served.syncRunning, 'a file is detached after a drain')
    served.detachOrder = order.order
    engine.removeFile(served.file, makeToken(TokenKind.fileRemoved, served.index, 0))
  }

  #setGate(served: ServedExport, order: SetGate): AbortedRequest[] {
    served.gate.set(order.reads, order.writes)
    if (!served.gate.isShut) {
      this.#answerDrain(served, true)
    } else {
      this.#countOutstanding(served)
    }
    const aborted = order.abortUnsubmitted ? this.#abort(served) : []
    served.aborted = served.gate.isShut ? aborted : []
    for (const connection of this.#parts.connections.of(served)) this.#lookAgain(connection)
    return aborted
  }

  /** A parked connection goes on, unless its peer went away in the meantime (what it had parked is then dropped). */
  #lookAgain(connection: Connection): void {
    if (connection.state !== 'open') return
    if (connection.parked && !connection.atEnd && this.#parts.peerGone(connection.descriptor)) {
      this.#parts.reader.peerFoundGone(connection)
      return
    }
    this.#state.activate(connection)
  }

  #countOutstanding(served: ServedExport): void {
    const { tracker } = this.#state
    served.shut = { requests: 0, writes: 0, bytes: 0 }
    tracker.slotsOfExport(served.index, (slot) => {
      if (!isUncleared(tracker.phaseName(slot))) return
      served.shut.requests += 1
      served.shut.bytes += tracker.length[slot] as number
      if (isWriteCommand(tracker.command[slot] as number)) served.shut.writes += 1
    })
  }

  #abort(served: ServedExport): AbortedRequest[] {
    const { tracker } = this.#state
    const aborted: AbortedRequest[] = []
    const cut = new Set<Connection>()
    this.#parts.executor.abortUnsubmitted(served, (slot) => {
      const connection = this.#state.connectionOf(slot)
      cut.add(connection)
      aborted.push({
        client: connection.clientId,
        cookie: tracker.cookieText(slot),
        command: commandName(tracker.command[slot] as number),
        offset: tracker.offset[slot] as number,
        length: tracker.length[slot] as number,
      })
      served.shut.requests -= 1
      served.shut.bytes -= tracker.length[slot] as number
      if (isWriteCommand(tracker.command[slot] as number)) served.shut.writes -= 1
    })
    for (const connection of cut) {
      this.#parts.connections.end(connection, 'ordered', 'its unsubmitted requests were aborted by a close')
    }
    return aborted
  }

  #answerDrain(served: ServedExport, cancelled: boolean): void {
    const value: ReportOf<'drain'> = {
      cancelled,
      ...served.shut,
      aborted: served.aborted,
      indeterminate: served.indeterminate.list(),
    }
    this.#waitingCount -= served.drainOrders.length
    for (const order of served.drainOrders.splice(0)) this.#state.say({ kind: 'report', order, value })
  }

  #disconnect(served: ServedExport, clientId: number | undefined): number {
    const { connections } = this.#parts
    const cut = connections.of(served).filter((one) => clientId === undefined || one.clientId === clientId)
    for (const connection of cut) connections.leave(connection, 'ordered', 'disconnected by the control plane')
    return cut.length
  }

  #detachExport(served: ServedExport, order: Order): void {
    assert(!served.hasFile, 'an export is forgotten after its file')
    served.forgetOrder = order.order
    this.#waitingCount += 1
    for (const connection of this.#parts.connections.of(served)) {
      this.#parts.connections.end(connection, 'ordered', 'the export was removed')
    }
  }

  /** The export's row is free once the last of its connections has gone. */
  #forget(served: ServedExport): void {
    if (this.#parts.connections.of(served).length > 0) return
    this.#byId.delete(served.exportId)
    this.#state.exports[served.index] = undefined
    this.#waitingCount -= 1
    this.#state.say({ kind: 'report', order: served.forgetOrder, value: null })
  }

  /** The export, if it still takes connections. */
  #attached(exportId: ExportId): ServedExport | undefined {
    const served = this.#byId.get(exportId)
    return served === undefined || served.forgetOrder > 0 || this.#stopOrder > 0 ? undefined : served
  }

  #stop(order: Order): void {
    assert(this.#stopOrder === 0, 'a worker stops once')
    this.#stopOrder = order.order
    for (const connection of this.#state.connections) {
      if (connection !== undefined) this.#parts.connections.leave(connection, 'ordered', 'the daemon stops')
    }
  }

  #report<K extends OrderKind>(order: Order & { kind: K }, value: ReportOf<K>): void {
    this.#state.say({ kind: 'report', order: order.order, value })
  }
}

function isUncleared(phase: string): boolean {
  return phase === 'admitted' || phase === 'held' || phase === 'submitted'
}
