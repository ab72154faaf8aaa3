/**
 * Life and death of connections. A connection that ends takes nothing with it: what it had not got admitted is dropped,
 * what was admitted runs on as orphans, and its row is used again only when the engine has let go of the stream and its
 * last request is finished.
 */

import type { StreamId } from '../engine/contract.ts'
import { assert, present } from '../foundation/assert.ts'
import type { AdoptConnection } from '../plane-link/orders.ts'
import type { Answers } from './answers.ts'
import type { GoneReason } from './connection.ts'
import { Connection, Stage } from './connection.ts'
import type { PlaneState } from './plane-state.ts'
import type { ConnectionEnds, RequestReader } from './request-reader.ts'
import type { ServedExport } from './served-export.ts'
import { TokenKind, makeToken } from './token.ts'
import type { WaitingLine } from './waiting-line.ts'

/** Of a connection whose export had gone before it came. */
const NO_EXPORT = -1

export class Connections implements ConnectionEnds {
  readonly #state: PlaneState
  readonly #answers: Answers
  readonly #freeRows: number[] = []
  /** Of each export by its index, in the order of arrival, until the row of the connection is free. */
  readonly #byExport: Connection[][] = []
  /** Turned away for want of a row, until the engine has let go of their streams. */
  readonly #strays: (AdoptConnection | undefined)[] = []
  /** Leaving, ending, or gone with orphans still running. */
  readonly #departing: Connection[] = []
  #reader: RequestReader | undefined

  constructor(state: PlaneState, answers: Answers) {
    this.#state = state
    this.#answers = answers
    for (let row = state.limits.connectionsMax - 1; row >= 0; row -= 1) this.#freeRows.push(row)
  }

  /** The reader and the connections know each other: one brings requests in, the other drops them. */
  attachReader(reader: RequestReader): void {
    this.#reader = reader
  }

  get count(): number {
    const strays = this.#strays.filter((stray) => stray !== undefined).length
    return this.#state.limits.connectionsMax - this.#freeRows.length + strays
  }

  get departingCount(): number {
    return this.#departing.length
  }

  /** Takes a connection over. False when it was turned away; the descriptor is the engine's either way. */
  adopt(served: ServedExport | undefined, order: AdoptConnection): boolean {
    const { engine, layout, limits } = this.#state
    const stream = engine.addStream(order.descriptor)
    const row = this.#freeRows.pop()
    if (row === undefined) {
      this.#turnAway(stream, order)
      return false
    }
    const connection = new Connection(
      {
        index: row,
        clientId: order.clientId,
        exportIndex: served?.index ?? NO_EXPORT,
        exportId: order.exportId,
        descriptor: order.descriptor,
        peer: order.peer,
        peerIdentity: order.peerIdentity,
        adoptedMs: this.#state.nowMs,
        inboxAt: layout.inboxesAt + row * layout.inboxBytes,
        headersAt: layout.headersAt + row * layout.headersBytes,
      },
      limits.requestsPerConnectionMax,
    )
    connection.stream = stream
    this.#state.connections[row] = connection
    if (served !== undefined) (this.#byExport[served.index] ??= []).push(connection)
    if (served === undefined) {
      this.end(connection, 'ordered', 'its export, or its worker, is gone')
      return false
    }
    const arrival = served.succession.arrive(order.clientId, order.peerIdentity)
    if (arrival !== 'welcome') {
      this.end(connection, 'barred', arrival === 'barred' ? 'a newer client writes to this export' : '')
      return false
    }
    connection.arrived = true
    connection.backlog = order.unread
    this.#state.activate(connection)
    return true
  }

  leave(connection: Connection, reason: GoneReason, detail: string): void {
    // Whoever leaves by itself takes its time, until somebody wants it gone.
    if (connection.state === 'leaving' && connection.cutAtMs === 0 && reason !== 'disconnect') this.#limit(connection)
    if (connection.state !== 'open') return
    connection.state = 'leaving'
    connection.goneReason = reason
    connection.goneDetail = detail
    if (reason !== 'disconnect') this.#limit(connection)
    this.#departing.push(connection)
    this.#dropUnadmitted(connection)
  }

  end(connection: Connection, reason: GoneReason, detail: string): void {
    if (connection.state === 'ending' || connection.state === 'gone') return
    if (connection.state === 'open') {
      connection.goneReason = reason
      connection.goneDetail = detail
      this.#departing.push(connection)
    }
    connection.state = 'ending'
    if (connection.arrived) {
      connection.arrived = false
      this.#state.exports[connection.exportIndex]?.succession.leave(connection.clientId)
    }
    this.#state.tracker.orphanClient(connection.index)
    this.#state.engine.endStream(
      connection.stream,
      makeToken(TokenKind.streamEnded, connection.index, connection.clientId),
    )
    this.#dropUnadmitted(connection)
    if (!connection.sending) this.#answers.drop(connection)
  }

  evict(clientId: number, by: Connection): void {
    for (const connection of this.#state.connections) {
      if (connection?.clientId !== clientId) continue
      this.end(connection, 'evicted', `client ${by.clientId} (${by.peer}) writes now`)
    }
  }

  /** Each connection of the export, in the order of arrival. A copy: whoever walks it may end them. */
  of(served: ServedExport): Connection[] {
    return [...(this.#byExport[served.index] ?? [])]
  }

  /** A send has completed. */
  sent(connection: Connection, result: number): void {
    connection.sending = false
    connection.sentMs = this.#state.nowMs
    if (connection.state === 'ending' || connection.state === 'gone') this.#answers.drop(connection)
    else if (result < 0) this.end(connection, 'lost', `send failed with errno ${-result}`)
    else this.#answers.sent(connection, result)
  }

  /** A receive has completed on a connection that is not open any more. */
  receiveEnded(connection: Connection): void {
    connection.receiving = false
    this.#dropUnadmitted(connection)
  }

  streamEnded(connection: Connection): void {
    assert(!connection.receiving && !connection.sending, 'a stream ends after its transfers')
    connection.state = 'gone'
    this.#state.say({
      kind: 'clientGone',
      exportId: connection.exportId,
      clientId: connection.clientId,
      reason: connection.goneReason,
      detail: connection.goneDetail,
    })
  }

  strayEnded(index: number): void {
    const { exportId, clientId } = present(this.#strays[index], 'a connection that was turned away')
    this.#strays[index] = undefined
    const detail = 'requests of connections that are gone are still in the disk and leave no room'
    this.#state.say({ kind: 'clientGone', exportId, clientId, reason: 'ordered', detail })
  }

  /** At the end of a turn: who may leave leaves, who is done is forgotten. */
  sweep(): void {
    if (this.#departing.length === 0) return
    const { tracker, nowMs } = this.#state
    for (let index = this.#departing.length - 1; index >= 0; index -= 1) {
      const connection = present(this.#departing[index], 'a departing connection')
      if (connection.state === 'leaving') {
        const answered = tracker.outstandingOfClient(connection.index) === 0
        const late = connection.cutAtMs > 0 && nowMs >= connection.cutAtMs
        if (answered || late) this.end(connection, connection.goneReason, connection.goneDetail)
      }
      if (connection.state !== 'gone' || tracker.outstandingOfClient(connection.index) > 0) continue
      this.#departing.splice(index, 1)
      this.#forget(connection)
    }
  }

  /**
   * When others have waited too long for memory or a request slot: cuts the peer that keeps the most of it and stands
   * still. Whose request our own gate has parked is cut only for its memory, and only if there is nobody else.
   */
  cutStalled(): void {
    const { slotLine, memoryLine, nowMs, limits, tracker } = this.#state
    const since = nowMs - limits.stalledPeerMs
    if (slotLine.count > 0 && slotLine.sinceMs <= since) {
      const slots = ({ index }: Connection): number => tracker.outstandingOfClient(index)
      const worst = this.#mostOf((connection) => connection.stalledSinceMs <= since, slots)
      if (worst !== undefined) this.#cut(worst, slotLine, `${slots(worst)} requests`)
    }
    if (memoryLine.count > 0 && memoryLine.sinceMs <= since) {
      const memory = ({ heldBytes }: Connection): number => heldBytes
      const worst =
        this.#mostOf((connection) => connection.stalledSinceMs <= since, memory) ??
        this.#mostOf(({ stage }) => stage === Stage.admission, memory)
      if (worst !== undefined) this.#cut(worst, memoryLine, `${worst.heldBytes} bytes of buffers`)
    }
  }

  /** Something here depends on time: the main thread is asked to wake this worker now and then. */
  get needsClock(): boolean {
    const { slotLine, memoryLine } = this.#state
    return slotLine.count + memoryLine.count > 0 || this.#departing.some((connection) => connection.cutAtMs > 0)
  }

  #cut(worst: Connection, line: WaitingLine, kept: string): void {
    line.sinceMs = this.#state.nowMs
    this.end(worst, 'starved', `${kept} stood still while others waited`)
  }

  #limit(connection: Connection): void {
    connection.cutAtMs = this.#state.nowMs + this.#state.limits.farewellMs
  }

  /** Of those that are selected, the one that keeps the most, if it keeps anything. */
  #mostOf(selected: (one: Connection) => boolean, keeps: (one: Connection) => number): Connection | undefined {
    let worst: Connection | undefined
    for (const connection of this.#state.connections) {
      if (connection === undefined || connection.state === 'gone' || connection.state === 'ending') continue
      if (selected(connection) && keeps(connection) > (worst === undefined ? 0 : keeps(worst))) worst = connection
    }
    return worst
  }

  /** The main thread counts those that live; rows are also kept by orphans, for as long as the disk takes. */
  #turnAway(stream: StreamId, order: AdoptConnection): void {
    const free = this.#strays.indexOf(undefined)
    const index = free < 0 ? this.#strays.length : free
    this.#strays[index] = order
    this.#state.engine.endStream(stream, makeToken(TokenKind.strayEnded, index, 0))
  }

  #dropUnadmitted(connection: Connection): void {
    if (connection.receiving && connection.receivingDirect) return
    this.#reader?.dropUnadmitted(connection)
  }

  #forget(connection: Connection): void {
    const others = (row: number): boolean => row !== connection.index
    this.#state.active.filter(others)
    connection.line?.forget(connection.index)
    this.#state.sendList.filter(others)
    this.#state.connections[connection.index] = undefined
    const siblings = this.#byExport[connection.exportIndex]
    siblings?.splice(siblings.indexOf(connection), 1)
    this.#freeRows.push(connection.index)
  }
}
