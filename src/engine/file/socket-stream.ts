/**
 * One stream of the file engine: a socket under node:net. Bytes are read into a staging buffer of its own and copied
 * from there to wherever the next receive wants them; while bytes are staged, nothing is read, so a client that sends
 * faster than it is served is stopped by its own socket buffer.
 *
 * Invariant: node reads into the staging buffer only while it is empty.
 */

import { Socket } from 'node:net'
import type { OnReadOpts, SocketConstructorOpts } from 'node:net'
import { assert } from '../../foundation/assert.ts'
import { ERRNO } from '../../posix/errno.ts'
import { shutdownSocket } from '../../posix/socket.ts'
import type { CompletionQueue } from '../completion-queue.ts'
import type { PartList, StreamId, Token } from '../contract.ts'

const STAGING_BYTES = 64 * 1024
/** Several parts that are together no longer than this are copied into one write; it is cheaper than a gathered one. */
const GATHER_COPY_BYTES = 16 * 1024
const NONE = -1

/** What a stream needs of its engine. */
export interface StreamHost {
  readonly memory: Buffer
  readonly completions: CompletionQueue
  /** Something was added to `completions`. */
  scheduleTurn(): void
  /** The stream is closed; its number means nothing any more. */
  forgetStream(id: StreamId): void
}

export class SocketStream {
  readonly #host: StreamHost
  readonly #id: StreamId
  readonly #descriptor: number
  readonly #socket: Socket
  readonly #staging = Buffer.allocUnsafeSlow(STAGING_BYTES)
  #stagedFrom = 0
  #stagedTo = 0
  #gathered: Buffer | undefined
  #receiveToken: Token = NONE
  #receiveAt = 0
  #receiveBytes = 0
  #sendToken: Token = NONE
  #sendBytes = 0
  #endToken: Token = NONE
  /** The peer sends no more. */
  #finished = false
  /** Negative once the connection has failed. */
  #failure = 0
  #closed = false
  readonly #onSent = (error?: Error | null): void => this.#sent(error)

  constructor(host: StreamHost, id: StreamId, descriptor: number) {
    this.#host = host
    this.#id = id
    this.#descriptor = descriptor
    const options: SocketConstructorOpts & { readonly onread: OnReadOpts } = {
      fd: descriptor,
      readable: true,
      writable: true,
      allowHalfOpen: true,
      onread: { buffer: this.#staging, callback: (count) => this.#read(count) },
    }
    this.#socket = new Socket(options)
    this.#socket.on('end', () => this.#ended(0))
    this.#socket.on('error', (error) => this.#ended(errnoOf(error)))
    this.#socket.on('close', () => this.#gone())
  }

  receive(token: Token, arenaOffset: number, lengthBytes: number): void {
    assert(this.#receiveToken === NONE, 'one receive at a time')
    assert(lengthBytes > 0, 'a receive has room')
    this.#receiveToken = token
    this.#receiveAt = arenaOffset
    this.#receiveBytes = lengthBytes
    if (this.#endToken !== NONE) {
      this.#completeReceive(-ERRNO.ECANCELED)
      return
    }
    if (this.#stagedTo > this.#stagedFrom) {
      this.#deliver()
      return
    }
    if (this.#finished || this.#closed) {
      this.#completeReceive(this.#failure)
      return
    }
    this.#socket.resume()
  }

  send(token: Token, parts: PartList): void {
    assert(this.#sendToken === NONE, 'one send at a time')
    this.#sendToken = token
    this.#sendBytes = 0
    for (let index = 0; index < parts.count; index += 1) this.#sendBytes += parts.lengths[index] ?? 0
    if (this.#endToken !== NONE) {
      this.#completeSend(-ERRNO.ECANCELED)
      return
    }
    if (this.#failure !== 0 || this.#closed) {
      this.#completeSend(this.#failure === 0 ? -ERRNO.EPIPE : this.#failure)
      return
    }
    if (parts.count > 1 && this.#sendBytes <= GATHER_COPY_BYTES) this.#writeGathered(parts)
    else this.#writeParts(parts)
  }

  end(token: Token): void {
    assert(this.#endToken === NONE, 'a stream ends once')
    this.#endToken = token
    if (this.#closed) {
      this.#gone()
      return
    }
    // After a reset node has closed it already, and the number may be another socket by now.
    if (!this.#socket.destroyed) shutdownSocket(this.#descriptor)
    this.#socket.destroy()
  }

  /** Closes the socket without a word to anybody. */
  dispose(): void {
    this.#socket.removeAllListeners('close')
    this.#socket.destroy()
  }

  // Reading.

  #read(count: number): boolean {
    assert(this.#stagedTo === this.#stagedFrom, 'node reads only into an empty staging buffer')
    this.#stagedFrom = 0
    this.#stagedTo = count
    if (this.#receiveToken !== NONE && this.#endToken === NONE) this.#deliver()
    return this.#stagedTo === this.#stagedFrom
  }

  #deliver(): void {
    const count = Math.min(this.#receiveBytes, this.#stagedTo - this.#stagedFrom)
    this.#staging.copy(this.#host.memory, this.#receiveAt, this.#stagedFrom, this.#stagedFrom + count)
    this.#stagedFrom += count
    this.#completeReceive(count)
  }

  #ended(result: number): void {
    this.#finished = true
    if (result < 0) this.#failure = result
    if (this.#receiveToken !== NONE && this.#endToken === NONE) this.#completeReceive(this.#failure)
  }

  // Writing.

  #writeGathered(parts: PartList): void {
    const gathered = (this.#gathered ??= Buffer.allocUnsafeSlow(GATHER_COPY_BYTES))
    let at = 0
    for (let index = 0; index < parts.count; index += 1) {
      const offset = parts.offsets[index] ?? 0
      at += this.#host.memory.copy(gathered, at, offset, offset + (parts.lengths[index] ?? 0))
    }
    this.#socket.write(gathered.subarray(0, at), this.#onSent)
  }

  #writeParts(parts: PartList): void {
    const last = parts.count - 1
    if (last > 0) this.#socket.cork()
    for (let index = 0; index <= last; index += 1) {
      const offset = parts.offsets[index] ?? 0
      const part = this.#host.memory.subarray(offset, offset + (parts.lengths[index] ?? 0))
      if (index < last) this.#socket.write(part)
      else this.#socket.write(part, this.#onSent)
    }
    if (last > 0) this.#socket.uncork()
  }

  #sent(error?: Error | null): void {
    // A stream that ends answers for its send when the socket is closed, once.
    if (this.#endToken !== NONE || this.#sendToken === NONE) return
    this.#completeSend(error === null || error === undefined ? this.#sendBytes : errnoOf(error))
  }

  // Ending.

  #gone(): void {
    this.#closed = true
    if (this.#endToken === NONE) return
    if (this.#receiveToken !== NONE) this.#completeReceive(-ERRNO.ECANCELED)
    if (this.#sendToken !== NONE) this.#completeSend(-ERRNO.ECANCELED)
    this.#host.forgetStream(this.#id)
    this.#host.completions.push(this.#endToken, 0)
    this.#host.scheduleTurn()
  }

  #completeReceive(result: number): void {
    const token = this.#receiveToken
    this.#receiveToken = NONE
    this.#host.completions.push(token, result)
    this.#host.scheduleTurn()
  }

  #completeSend(result: number): void {
    const token = this.#sendToken
    this.#sendToken = NONE
    this.#host.completions.push(token, result)
    this.#host.scheduleTurn()
  }
}

/** Node's system errors carry the negative errno; what is torn down by us carries none. */
function errnoOf(error: Error): number {
  const { errno } = error as NodeJS.ErrnoException
  return errno ?? -ERRNO.EPIPE
}
