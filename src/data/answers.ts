/**
 * The way out: answers are queued per connection in the order of their completion, gathered into one send, and carried
 * on where the kernel took only a part. The data of a read is sent from the buffer it was read into.
 *
 * Invariant: a slot is in the queue of its connection from its answer until its last byte was taken by the kernel, or
 * until the connection is gone; its buffer lives as long. A connection that does not read keeps only what is its own.
 */

import type { PartList } from '../engine/contract.ts'
import { SEND_PARTS_MAX } from '../engine/contract.ts'
import { NBD_CMD_READ } from '../nbd/constants.ts'
import { writeSimpleReply } from '../nbd/reply.ts'
import type { Connection } from './connection.ts'
import { REPLY_HEADER_BYTES } from '../plane-link/memory-layout.ts'
import type { PlaneState } from './plane-state.ts'
import { TokenKind, makeToken } from './token.ts'

export class Answers {
  readonly #state: PlaneState
  readonly #parts: { count: number; offsets: Int32Array; lengths: Int32Array } & PartList

  constructor(state: PlaneState) {
    this.#state = state
    this.#parts = {
      count: 0,
      offsets: new Int32Array(SEND_PARTS_MAX),
      lengths: new Int32Array(SEND_PARTS_MAX),
    }
  }

  /** Answers a request, or drops its answer when the connection is on its way out. `error` is an NBD error number. */
  answer(slot: number, error: number): void {
    const { tracker, io } = this.#state
    const connection = this.#state.connectionOf(slot)
    io.error[slot] = error
    if (error !== 0 || tracker.command[slot] !== NBD_CMD_READ) this.#state.releaseBuffer(slot)
    if (connection.state === 'ending' || connection.state === 'gone') {
      this.#state.finish(slot)
      return
    }
    writeSimpleReply(
      this.#state.view,
      this.#state.bytes,
      this.#headerAt(connection, connection.repliesMade),
      error,
      tracker.cookies,
      slot * 8,
    )
    connection.repliesMade += 1
    connection.replies.push(slot)
    this.want(connection)
  }

  /** The connection has something to send. */
  want(connection: Connection): void {
    if (connection.inSendList) return
    connection.inSendList = true
    this.#state.sendList.push(connection.index)
  }

  /** At the end of a turn: one send for each connection that has answers and none on its way. */
  flush(): void {
    const { sendList, connections } = this.#state
    while (sendList.count > 0) {
      const connection = connections[sendList.shift()]
      if (connection === undefined) continue
      connection.inSendList = false
      if (connection.sending || connection.replies.count === 0) continue
      if (connection.state === 'open' || connection.state === 'leaving') this.#send(connection)
    }
  }

  /** The kernel took `sentBytes` of what is queued. */
  sent(connection: Connection, sentBytes: number): void {
    let left = sentBytes
    while (left > 0) {
      const slot = connection.replies.at(0)
      const rest = this.#replyBytes(slot) - connection.sentOfFirst
      if (left < rest) {
        connection.sentOfFirst += left
        break
      }
      left -= rest
      connection.sentOfFirst = 0
      connection.replies.shift()
      this.#state.finish(slot)
    }
    if (connection.replies.count > 0) this.want(connection)
  }

  /** The connection is gone: its queued answers are, too. Only when no send is outstanding. */
  drop(connection: Connection): void {
    connection.sentOfFirst = 0
    while (connection.replies.count > 0) this.#state.finish(connection.replies.shift())
  }

  #send(connection: Connection): void {
    const { io, engine } = this.#state
    const parts = this.#parts
    parts.count = 0
    let skip = connection.sentOfFirst
    const first = connection.repliesMade - connection.replies.count
    for (let index = 0; index < connection.replies.count && parts.count < SEND_PARTS_MAX - 1; index += 1) {
      const slot = connection.replies.at(index)
      if (skip < REPLY_HEADER_BYTES) {
        this.#part(this.#headerAt(connection, first + index) + skip, REPLY_HEADER_BYTES - skip)
        skip = 0
      } else {
        skip -= REPLY_HEADER_BYTES
      }
      const dataBytes = this.#replyBytes(slot) - REPLY_HEADER_BYTES
      if (dataBytes > 0) {
        this.#part((io.payloadAt[slot] as number) + skip, dataBytes - skip)
        skip = 0
      }
    }
    connection.sending = true
    connection.sentMs = this.#state.nowMs
    engine.send(connection.stream, makeToken(TokenKind.send, connection.index, connection.clientId), parts)
  }

  /** Adjoining parts become one. */
  #part(offset: number, length: number): void {
    const parts = this.#parts
    const last = parts.count - 1
    if (last >= 0 && (parts.offsets[last] as number) + (parts.lengths[last] as number) === offset) {
      parts.lengths[last] = (parts.lengths[last] as number) + length
      return
    }
    parts.offsets[parts.count] = offset
    parts.lengths[parts.count] = length
    parts.count += 1
  }

  #replyBytes(slot: number): number {
    const { tracker, io } = this.#state
    const carriesData = tracker.command[slot] === NBD_CMD_READ && io.error[slot] === 0
    return REPLY_HEADER_BYTES + (carriesData ? (tracker.length[slot] as number) : 0)
  }

  #headerAt(connection: Connection, reply: number): number {
    return connection.headersAt + (reply % this.#state.limits.requestsPerConnectionMax) * REPLY_HEADER_BYTES
  }
}
