/**
 * The streams of the io_uring engine: one row each, in columns made once. A stream ends in this order: the socket is shut
 * down, which completes whatever the kernel still holds of it; those completions are reported as cancelled; then the
 * descriptor is closed, and only then is the end reported. A row is used again after that.
 *
 * Invariant: a row has at most one receive and one send outstanding, and none once it is free.
 */

import { assert } from '../../foundation/assert.ts'
import { closeDescriptor } from '../../posix/descriptor.ts'
import { ERRNO } from '../../posix/errno.ts'
import { mapMemory, unmapMemory } from '../../posix/mapping.ts'
import type { MappedMemory } from '../../posix/mapping.ts'
import { shutdownSocket } from '../../posix/socket.ts'
import type { CompletionQueue } from '../completion-queue.ts'
import type { Completion, PartList, StreamId, Token } from '../contract.ts'
import { SEND_PARTS_MAX } from '../contract.ts'
import { IORING_OP, IOVEC, MSG_NOSIGNAL, MSG_WAITALL, MSGHDR } from './abi.ts'
import { BaseAddress } from './address.ts'
import { COMPLETION } from './completion-kind.ts'
import type { Ring } from './ring.ts'

const NONE = -1
const STATE = { free: 0, open: 1, ending: 2 } as const
/** One message header and its parts, for each row. */
const HEADER_BYTES = 64
const MESSAGE_BYTES = HEADER_BYTES + SEND_PARTS_MAX * IOVEC.BYTES

export class StreamTable {
  readonly #ring: Ring
  readonly #completions: CompletionQueue
  readonly #arena: BaseAddress
  readonly #messages: MappedMemory
  readonly #messageBase: BaseAddress
  readonly #messageWords: Int32Array
  readonly #descriptors: Int32Array
  readonly #states: Uint8Array
  readonly #receiveTokens: Float64Array
  readonly #receiveOffsets: Int32Array
  readonly #receiveLengths: Int32Array
  readonly #sendTokens: Float64Array
  /** Where the single part lies; NONE when the parts are in the row's message. */
  readonly #sendOffsets: Int32Array
  readonly #sendLengths: Int32Array
  readonly #endTokens: Float64Array
  readonly #freeRows: Int32Array
  #freeCount: number
  /** Rows that are ending and have nothing outstanding: their end is reported next. */
  readonly #endedRows: Int32Array
  #endedCount = 0

  constructor(ring: Ring, completions: CompletionQueue, arenaAddress: bigint, streamsMax: number) {
    this.#ring = ring
    this.#completions = completions
    this.#arena = new BaseAddress(arenaAddress)
    this.#messages = mapMemory(streamsMax * MESSAGE_BYTES)
    this.#messageBase = new BaseAddress(this.#messages.address)
    this.#messageWords = new Int32Array(this.#messages.bytes.buffer, 0, this.#messages.lengthBytes / 4)
    this.#descriptors = new Int32Array(streamsMax).fill(NONE)
    this.#states = new Uint8Array(streamsMax)
    this.#receiveTokens = new Float64Array(streamsMax).fill(NONE)
    this.#receiveOffsets = new Int32Array(streamsMax)
    this.#receiveLengths = new Int32Array(streamsMax)
    this.#sendTokens = new Float64Array(streamsMax).fill(NONE)
    this.#sendOffsets = new Int32Array(streamsMax)
    this.#sendLengths = new Int32Array(streamsMax)
    this.#endTokens = new Float64Array(streamsMax).fill(NONE)
    this.#freeRows = Int32Array.from({ length: streamsMax }, (_, index) => streamsMax - 1 - index)
    this.#freeCount = streamsMax
    this.#endedRows = new Int32Array(streamsMax)
  }

  add(descriptor: number): StreamId {
    assert(this.#freeCount > 0, `no more than ${this.#freeRows.length} streams are added`)
    this.#freeCount -= 1
    const row = this.#freeRows[this.#freeCount] ?? NONE
    this.#descriptors[row] = descriptor
    this.#states[row] = STATE.open
    return row
  }

  receive(row: StreamId, token: Token, arenaOffset: number, lengthBytes: number): void {
    const state = this.#states[row]
    assert(state !== undefined && state !== STATE.free, `stream ${row} is open`)
    assert(this.#receiveTokens[row] === NONE, 'one receive at a time')
    assert(lengthBytes > 0, 'a receive has room')
    if (state === STATE.ending) {
      this.#completions.push(token, -ERRNO.ECANCELED)
      return
    }
    this.#receiveTokens[row] = token
    this.#receiveOffsets[row] = arenaOffset
    this.#receiveLengths[row] = lengthBytes
    this.#pushReceive(row)
  }

  send(row: StreamId, token: Token, parts: PartList): void {
    const state = this.#states[row]
    assert(state !== undefined && state !== STATE.free, `stream ${row} is open`)
    assert(this.#sendTokens[row] === NONE, 'one send at a time')
    assert(parts.count > 0 && parts.count <= SEND_PARTS_MAX, 'a send has 1 to SEND_PARTS_MAX parts')
    if (state === STATE.ending) {
      this.#completions.push(token, -ERRNO.ECANCELED)
      return
    }
    this.#sendTokens[row] = token
    if (parts.count === 1) {
      this.#sendOffsets[row] = parts.offsets[0] ?? 0
      this.#sendLengths[row] = parts.lengths[0] ?? 0
    } else {
      this.#sendOffsets[row] = NONE
      this.#writeMessage(row, parts)
    }
    this.#pushSend(row)
  }

  end(row: StreamId, token: Token): void {
    assert(this.#states[row] === STATE.open, `stream ${row} is open and ends once`)
    this.#states[row] = STATE.ending
    this.#endTokens[row] = token
    shutdownSocket(this.#descriptors[row] ?? NONE)
    if (this.#receiveTokens[row] !== NONE) this.#pushCancel(row, COMPLETION.receive)
    if (this.#sendTokens[row] !== NONE) this.#pushCancel(row, COMPLETION.send)
    this.#noteEnded(row)
  }

  /** A receive has completed. False when it was only interrupted, and goes on. */
  received(row: number, result: number, into: Completion): boolean {
    const ending = this.#states[row] === STATE.ending
    if (!ending && isPassing(result)) {
      this.#pushReceive(row)
      return false
    }
    into.token = this.#receiveTokens[row] ?? NONE
    into.result = ending ? -ERRNO.ECANCELED : result
    assert(into.token !== NONE, 'a receive completes once')
    this.#receiveTokens[row] = NONE
    if (ending) this.#noteEnded(row)
    return true
  }

  /** Likewise of a send. */
  sent(row: number, result: number, into: Completion): boolean {
    const ending = this.#states[row] === STATE.ending
    if (!ending && isPassing(result)) {
      this.#pushSend(row)
      return false
    }
    into.token = this.#sendTokens[row] ?? NONE
    into.result = ending ? -ERRNO.ECANCELED : result
    assert(into.token !== NONE, 'a send completes once')
    this.#sendTokens[row] = NONE
    if (ending) this.#noteEnded(row)
    return true
  }

  /** Streams whose end can be reported now. */
  get endedCount(): number {
    return this.#endedCount
  }

  /** Closes one stream that has nothing outstanding any more, and reports its end. */
  takeEnded(into: Completion): boolean {
    if (this.#endedCount === 0) return false
    this.#endedCount -= 1
    const row = this.#endedRows[this.#endedCount] ?? NONE
    closeDescriptor(this.#descriptors[row] ?? NONE)
    into.token = this.#endTokens[row] ?? NONE
    into.result = 0
    this.#endTokens[row] = NONE
    this.#descriptors[row] = NONE
    this.#states[row] = STATE.free
    this.#freeRows[this.#freeCount] = row
    this.#freeCount += 1
    return true
  }

  /** Closes every socket that is still open. */
  closeAll(): void {
    for (const descriptor of this.#descriptors) {
      if (descriptor === NONE) continue
      // An armed receive keeps the socket open until the ring is gone; the peer should not have to wait for that.
      shutdownSocket(descriptor)
      closeDescriptor(descriptor)
    }
    this.#descriptors.fill(NONE)
  }

  /** After the ring is closed. */
  dispose(): void {
    unmapMemory(this.#messages)
  }

  #noteEnded(row: number): void {
    if (this.#receiveTokens[row] !== NONE || this.#sendTokens[row] !== NONE) return
    this.#endedRows[this.#endedCount] = row
    this.#endedCount += 1
  }

  #pushReceive(row: number): void {
    const offset = this.#receiveOffsets[row] ?? 0
    const descriptor = this.#descriptors[row] ?? NONE
    const length = this.#receiveLengths[row] ?? 0
    const low = this.#arena.low(offset)
    const high = this.#arena.high(offset)
    this.#ring.push(IORING_OP.RECV, descriptor, 0, 0, low, high, length, 0, 0, COMPLETION.receive, row)
  }

  #pushSend(row: number): void {
    const descriptor = this.#descriptors[row] ?? NONE
    const offset = this.#sendOffsets[row] ?? NONE
    const flags = MSG_NOSIGNAL | MSG_WAITALL
    if (offset === NONE) {
      const at = row * MESSAGE_BYTES
      const low = this.#messageBase.low(at)
      const high = this.#messageBase.high(at)
      this.#ring.push(IORING_OP.SENDMSG, descriptor, 0, 0, low, high, 1, flags, 0, COMPLETION.send, row)
    } else {
      const length = this.#sendLengths[row] ?? 0
      const low = this.#arena.low(offset)
      const high = this.#arena.high(offset)
      this.#ring.push(IORING_OP.SEND, descriptor, 0, 0, low, high, length, flags, 0, COMPLETION.send, row)
    }
  }

  #pushCancel(row: number, kind: number): void {
    this.#ring.push(IORING_OP.ASYNC_CANCEL, -1, 0, 0, row, kind, 0, 0, 0, COMPLETION.cancel, row)
  }

  #writeMessage(row: number, parts: PartList): void {
    const words = this.#messageWords
    const header = (row * MESSAGE_BYTES) / 4
    const list = header + HEADER_BYTES / 4
    const listAddress = row * MESSAGE_BYTES + HEADER_BYTES
    words[header + MSGHDR.iov / 4] = this.#messageBase.low(listAddress)
    words[header + MSGHDR.iov / 4 + 1] = this.#messageBase.high(listAddress)
    words[header + MSGHDR.iovlen / 4] = parts.count
    for (let index = 0; index < parts.count; index += 1) {
      const at = list + (index * IOVEC.BYTES) / 4
      const offset = parts.offsets[index] ?? 0
      words[at] = this.#arena.low(offset)
      words[at + 1] = this.#arena.high(offset)
      words[at + 2] = parts.lengths[index] ?? 0
      words[at + 3] = 0
    }
  }
}

/** The operation did not happen, through nobody's fault. */
function isPassing(result: number): boolean {
  return result === -ERRNO.EINTR || result === -ERRNO.EAGAIN
}
