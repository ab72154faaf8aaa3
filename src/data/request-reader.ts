/**
 * The way in: from received bytes to an admitted request. Each connection is looked at in its turn and gets a bounded
 * share of it. A request passes four doors, and waits at each until it may go on:
 *
 *     header ─▶ gate ─▶ memory ─▶ payload ─▶ admission (gate again, writer succession)
 *
 * 1. Nothing behind a waiting request is read: its connection is parked, and at most one receive stays armed.
 * 2. Memory for the whole request is reserved before any payload is taken out of the inbox, first come first served, so
 *    that many large requests cannot lock each other out.
 * 3. What a peer sent and we had not admitted when it went away without NBD_CMD_DISC is dropped.
 */

import { assert } from '../foundation/assert.ts'
import { Phase } from '../interlock/request-tracker.ts'
import * as nbd from '../nbd/constants.ts'
import { checkRequest, payloadExceeds } from '../nbd/request-check.ts'
import { COOKIE_OFFSET, REQUEST_HEADER_BYTES, createRequestHeader, readRequestHeader } from '../nbd/request-header.ts'
import type { Answers } from './answers.ts'
import { BufferArena } from './buffer-arena.ts'
import { alignDown, bufferBytesFor, isWriteCommand, wideLength } from './command-plan.ts'
import type { Connection, GoneReason } from './connection.ts'
import { Stage } from './connection.ts'
import type { Executor } from './executor.ts'
import type { PlaneState } from './plane-state.ts'
import { TokenKind, makeToken } from './token.ts'
import type { WaitingLine } from './waiting-line.ts'

/** Steps (four to a request) that one connection may take before the next one has its turn. */
const STEPS_PER_TURN = 256
/** From this much missing payload on, it is received straight into its place. */
const DIRECT_RECEIVE_BYTES = 16 * 1024
/** A command that is unknown keeps this number in the tracker, whose column is a byte. */
const UNKNOWN_COMMAND = 255

export interface ConnectionEnds {
  /** Ends a connection now. */
  end(connection: Connection, reason: GoneReason, detail: string): void
  /** Lets a connection leave once everything outstanding is answered. */
  leave(connection: Connection, reason: GoneReason, detail: string): void
  evict(clientId: number, by: Connection): void
}

export class RequestReader {
  readonly #state: PlaneState
  readonly #executor: Executor
  readonly #answers: Answers
  readonly #ends: ConnectionEnds
  readonly #header = createRequestHeader()

  constructor(state: PlaneState, executor: Executor, answers: Answers, ends: ConnectionEnds) {
    this.#state = state
    this.#executor = executor
    this.#answers = answers
    this.#ends = ends
  }

  /** Every connection that has something to parse gets its share. */
  run(): void {
    const { active, connections } = this.#state
    for (let left = active.count; left > 0; left -= 1) {
      const connection = connections[active.shift()]
      if (connection === undefined) continue
      connection.active = false
      if (connection.state === 'open') this.#serve(connection)
    }
    this.#serveLine(this.#state.memoryLine)
    this.#serveLine(this.#state.slotLine)
    if (active.count > 0) this.#state.again = true
  }

  /** A receive has completed with `result` bytes, 0 at the end of the stream, or a negative errno. */
  received(connection: Connection, result: number): void {
    connection.receiving = false
    connection.receivedMs = this.#state.nowMs
    if (connection.state !== 'open') return
    if (result > 0 && connection.receivingDirect) connection.payloadLeft -= result
    else if (result > 0) connection.tail += result
    else connection.atEnd = true
    if (result < 0) this.#ends.end(connection, 'lost', `receive failed with errno ${-result}`)
    else if (result === 0 && !this.#bringsDisconnect(connection)) {
      this.#ends.end(connection, 'lost', 'the peer closed without NBD_CMD_DISC')
    } else this.#state.activate(connection)
  }

  /** The kernel says that the peer has gone although the end of its stream was not received yet. */
  peerFoundGone(connection: Connection): void {
    if (this.#bringsDisconnect(connection)) this.#state.activate(connection)
    else this.#ends.end(connection, 'lost', 'the peer went away while its request was parked')
  }

  #serve(connection: Connection): void {
    let budget = STEPS_PER_TURN
    while (connection.state === 'open' && this.#advance(connection)) {
      budget -= 1
      if (budget === 0) {
        this.#state.activate(connection)
        return
      }
    }
    this.#arm(connection)
  }

  /** Takes the connection one door further. False when it has to wait for something. */
  #advance(connection: Connection): boolean {
    if (connection.skipLeft > 0 && !this.#skip(connection)) return false
    switch (connection.stage) {
      case Stage.header:
        return this.#begin(connection)
      case Stage.gate:
        return this.#passGate(connection)
      case Stage.memory:
        if (!this.#reserve(connection)) return false
        connection.stage = Stage.payload
        return true
      case Stage.payload:
        if (!this.#takePayload(connection)) return false
        connection.stage = Stage.admission
        return true
      default:
        return this.#admit(connection)
    }
  }

  /** Parses the next header, when it is there whole. */
  #begin(connection: Connection): boolean {
    const { view, tracker, limits, bytes } = this.#state
    if (connection.unparsedBytes < REQUEST_HEADER_BYTES) return false
    if (tracker.outstandingOfClient(connection.index) >= limits.requestsPerConnectionMax) return false
    const header = this.#header
    if (!readRequestHeader(view, connection.head, header)) {
      this.#ends.end(connection, 'protocol', 'a request does not begin with NBD_REQUEST_MAGIC')
      return false
    }
    if (header.command === nbd.NBD_CMD_DISC) {
      this.#ends.leave(connection, 'disconnect', 'NBD_CMD_DISC')
      return false
    }
    const served = this.#state.exports[connection.exportIndex]
    if (served === undefined) return false
    if (payloadExceeds(header, limits.payloadBytesMax)) {
      this.#ends.end(connection, 'protocol', `a write announces ${header.length} bytes of payload`)
      return false
    }
    if (!this.#mayTakeSlot(connection)) {
      this.#wait(connection, this.#state.slotLine)
      return false
    }
    const slot = tracker.begin(
      connection.exportIndex,
      connection.index,
      header.command < UNKNOWN_COMMAND ? header.command : UNKNOWN_COMMAND,
      header.flags,
      header.offset,
      header.length,
      bytes,
      connection.head + COOKIE_OFFSET,
      this.#state.nowMs,
    )
    assert(slot >= 0, 'a slot is free')
    this.#served(connection)
    connection.head += REQUEST_HEADER_BYTES
    const error = checkRequest(header, served.requestLimits)
    const carries = header.command === nbd.NBD_CMD_WRITE ? header.length : 0
    if (error !== 0) {
      served.errors += 1
      this.#refuse(connection, slot, error, carries)
      return true
    }
    connection.slot = slot
    connection.payloadLeft = carries
    connection.stage = Stage.gate
    return true
  }

  /** The first look at the gate: nothing is reserved for what is parked or refused. */
  #passGate(connection: Connection): boolean {
    const { tracker } = this.#state
    const served = this.#state.exportOf(connection.slot)
    const setting = served.gate.decide(tracker.command[connection.slot] as number)
    if (setting === 'park') return false
    if (setting === 'refuse') this.#turnAway(connection, connection.payloadLeft)
    else connection.stage = Stage.memory
    return true
  }

  /** Refuses the request that is being received. */
  #turnAway(connection: Connection, payloadLeft: number): void {
    const slot = connection.slot
    connection.slot = -1
    connection.payloadLeft = 0
    connection.stage = Stage.header
    this.#refuse(connection, slot, nbd.NBD_ESHUTDOWN, payloadLeft)
  }

  /** The error is answered once the payload behind the refused request has been consumed. */
  #refuse(connection: Connection, slot: number, error: number, payloadLeft: number): void {
    this.#state.io.error[slot] = error
    connection.skipLeft = payloadLeft
    connection.receivedMs = this.#state.nowMs
    if (payloadLeft > 0) connection.skipSlot = slot
    else this.#answers.answer(slot, error)
  }

  #skip(connection: Connection): boolean {
    const taken = Math.min(connection.skipLeft, connection.unparsedBytes)
    connection.head += taken
    connection.skipLeft -= taken
    if (connection.skipLeft > 0) return false
    const slot = connection.skipSlot
    connection.skipSlot = -1
    this.#answers.answer(slot, this.#state.io.error[slot] as number)
    return true
  }

  /** Reserves all the memory that the request needs. */
  #reserve(connection: Connection): boolean {
    const { tracker, io, arena, memoryLine, limits } = this.#state
    const slot = connection.slot
    const served = this.#state.exportOf(slot)
    const command = tracker.command[slot] as number
    const offset = tracker.offset[slot] as number
    const length = tracker.length[slot] as number
    const alignment = served.alignmentBytes
    if (command === nbd.NBD_CMD_READ || isWriteCommand(command)) {
      tracker.widen(slot, alignDown(offset, alignment), wideLength(offset, length, alignment))
    }
    const needed = bufferBytesFor(command, offset, length, alignment)
    if (needed === 0) return true
    const footprint = BufferArena.footprint(needed)
    if (connection.heldBytes > 0 && connection.heldBytes + footprint > limits.arenaBytes / 4) return false
    const mayTake = memoryLine.count === 0 || memoryLine.first === connection.index
    const buffer = mayTake ? arena.allocate(needed) : -1
    if (buffer < 0) {
      this.#wait(connection, memoryLine)
      return false
    }
    this.#served(connection)
    connection.receivedMs = this.#state.nowMs
    io.buffer[slot] = buffer
    io.bufferBytes[slot] = footprint
    connection.heldBytes += footprint
    io.payloadAt[slot] = buffer + (command === nbd.NBD_CMD_WRITE_ZEROES ? 0 : offset - alignDown(offset, alignment))
    return true
  }

  /** Moves what the inbox has of the payload to its place. True when the payload is complete. */
  #takePayload(connection: Connection): boolean {
    if (connection.payloadLeft === 0) return true
    if (connection.receiving && connection.receivingDirect) return false
    const { bytes } = this.#state
    const taken = Math.min(connection.payloadLeft, connection.unparsedBytes)
    bytes.copyWithin(this.#payloadEnd(connection), connection.head, connection.head + taken)
    connection.head += taken
    connection.payloadLeft -= taken
    return connection.payloadLeft === 0
  }

  /** Where the next byte of payload belongs. */
  #payloadEnd(connection: Connection): number {
    const { io, tracker } = this.#state
    const received = (tracker.length[connection.slot] as number) - connection.payloadLeft
    return (io.payloadAt[connection.slot] as number) + received
  }

  /** The last door. The gate may have been shut while the payload was on its way. */
  #admit(connection: Connection): boolean {
    const { tracker } = this.#state
    const slot = connection.slot
    const served = this.#state.exportOf(slot)
    const command = tracker.command[slot] as number
    const setting = served.gate.decide(command)
    if (setting === 'park') return false
    if (setting === 'refuse') {
      this.#turnAway(connection, 0)
      return true
    }
    if (isWriteCommand(command)) {
      const decision = served.succession.admitWrite(connection.clientId)
      if (decision === 'barred') {
        this.#ends.end(connection, 'barred', 'a newer client writes to this export')
        return false
      }
      if (decision === 'evict-older') this.#ends.evict(served.succession.evicted, connection)
      connection.writer = true
    }
    connection.slot = -1
    connection.stage = Stage.header
    this.#executor.admit(slot)
    return true
  }

  /** Arms the one receive of a connection, where there is room for what comes. */
  #arm(connection: Connection): void {
    if (connection.state !== 'open' || connection.receiving || connection.atEnd) return
    if (connection.head === connection.tail) {
      connection.head = connection.inboxAt
      connection.tail = connection.inboxAt
    }
    const direct =
      connection.stage === Stage.payload &&
      connection.payloadLeft >= DIRECT_RECEIVE_BYTES &&
      connection.head === connection.tail
    if (!direct) this.#makeRoom(connection)
    if (connection.backlog.length > 0) {
      this.#takeBacklog(connection)
      return
    }
    const at = direct ? this.#payloadEnd(connection) : connection.tail
    const room = direct ? connection.payloadLeft : connection.inboxAt + this.#state.layout.inboxBytes - connection.tail
    if (room === 0) return
    connection.receiving = true
    connection.receivingDirect = direct
    const token = makeToken(TokenKind.receive, connection.index, connection.clientId)
    this.#state.engine.receive(connection.stream, token, at, room)
  }

  /** What was read before the adoption comes before anything that is received. */
  #takeBacklog(connection: Connection): void {
    const { bytes, layout } = this.#state
    const room = connection.inboxAt + layout.inboxBytes - connection.tail
    const taken = connection.backlog.subarray(0, room)
    if (taken.length === 0) return
    bytes.set(taken, connection.tail)
    connection.tail += taken.length
    connection.backlog = connection.backlog.subarray(taken.length)
    this.#state.activate(connection)
  }

  /** Moves a small remainder to the inbox's beginning, so that a whole header always finds room. */
  #makeRoom(connection: Connection): void {
    const { bytes, layout } = this.#state
    const end = connection.inboxAt + layout.inboxBytes
    if (connection.head === connection.inboxAt || end - connection.tail >= layout.inboxBytes / 2) return
    bytes.copyWithin(connection.inboxAt, connection.head, connection.tail)
    connection.tail = connection.inboxAt + connection.unparsedBytes
    connection.head = connection.inboxAt
  }

  /** The last slots are kept for those who wait, in their order. */
  #mayTakeSlot(connection: Connection): boolean {
    const { slotLine, tracker } = this.#state
    if (connection.line === undefined) return tracker.freeCount > slotLine.count
    return tracker.freeCount > 0 && slotLine.first === connection.index
  }

  #wait(connection: Connection, line: WaitingLine): void {
    if (connection.line !== undefined) return
    connection.line = line
    line.join(connection.index, this.#state.nowMs)
  }

  /** It has what it waited for, if it did. */
  #served(connection: Connection): void {
    connection.line?.leave(connection.index, this.#state.nowMs)
    connection.line = undefined
  }

  /** Serves those who wait until the first of them has to go on waiting. */
  #serveLine(line: WaitingLine): void {
    let tried = -1
    while (line.count > 0) {
      const { first } = line
      const connection = this.#state.connections[first]
      if (connection?.state !== 'open') {
        line.forget(first)
        continue
      }
      if (first === tried) return
      tried = first
      this.#serve(connection)
    }
  }

  /** At the end of the stream: is there an NBD_CMD_DISC among what was received and not yet parsed? */
  #bringsDisconnect(connection: Connection): boolean {
    const { view } = this.#state
    let at = connection.head + connection.skipLeft + connection.payloadLeft
    while (at + REQUEST_HEADER_BYTES <= connection.tail) {
      if (!readRequestHeader(view, at, this.#header)) return false
      if (this.#header.command === nbd.NBD_CMD_DISC) return true
      at += REQUEST_HEADER_BYTES
      if (this.#header.command === nbd.NBD_CMD_WRITE) at += this.#header.length
    }
    return false
  }

  /** Drops the request that is being received. Only when no receive into its buffer is outstanding. */
  dropUnadmitted(connection: Connection): void {
    for (const slot of [connection.slot, connection.skipSlot]) {
      if (slot >= 0 && this.#state.tracker.phase[slot] === Phase.PARSED) this.#state.finish(slot)
    }
    connection.slot = -1
    connection.skipSlot = -1
    connection.skipLeft = 0
    connection.payloadLeft = 0
    connection.stage = Stage.header
  }
}
