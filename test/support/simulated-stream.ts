/**
 * A connected socket in memory: the engine's end, and the client's end that a test holds. Bytes keep their order; both
 * directions have a bounded buffer as a socket does, so a client that does not read stops the sender. It decides no
 * timing: `SimulatedEngine` asks what could complete now and chooses.
 */

import { assert } from '../../src/foundation/assert.ts'

export const EPIPE = 32
export const ECONNRESET = 104

/** What a test holds of a connection. */
export interface ClientEnd {
  /** To be given to `addStream`. */
  readonly descriptor: number
  send(bytes: Uint8Array): void
  /** Takes all that has arrived since the last call. */
  received(): Uint8Array
  /** No more will be sent; it still reads. */
  finish(): void
  /** Sends no more and reads no more; what was sent before still arrives. */
  close(): void
  /** The connection breaks; what was sent and not received yet may be lost. */
  reset(): void
  /** A client that does not read leaves bytes in the socket buffer. */
  setReading(reading: boolean): void
  /** True once the engine has closed its end. */
  readonly ended: boolean
}

class ByteQueue {
  lengthBytes = 0
  #chunks: Uint8Array[] = []

  push(bytes: Uint8Array): void {
    if (bytes.length === 0) return
    this.#chunks.push(bytes.slice())
    this.lengthBytes += bytes.length
  }

  /** Takes at most as many bytes as fit. */
  take(into: Uint8Array): number {
    let count = 0
    for (let chunk = this.#chunks[0]; chunk !== undefined && count < into.length; chunk = this.#chunks[0]) {
      const part = chunk.subarray(0, into.length - count)
      into.set(part, count)
      count += part.length
      if (part.length === chunk.length) this.#chunks.shift()
      else this.#chunks[0] = chunk.subarray(part.length)
    }
    this.lengthBytes -= count
    return count
  }

  takeAll(): Uint8Array {
    const all = new Uint8Array(this.lengthBytes)
    this.take(all)
    return all
  }

  clear(): void {
    this.#chunks = []
    this.lengthBytes = 0
  }
}

export class SimulatedStream implements ClientEnd {
  readonly descriptor: number
  ended = false
  readonly #bufferBytesMax: number
  readonly #toEngine = new ByteQueue()
  /** In the socket buffer, and read by the client. */
  readonly #toClient = new ByteQueue()
  readonly #arrived = new ByteQueue()
  #reading = true
  #finished = false
  #closed = false
  #broken = false

  constructor(descriptor: number, bufferBytesMax: number) {
    this.descriptor = descriptor
    this.#bufferBytesMax = bufferBytesMax
  }

  // The client's end.

  send(bytes: Uint8Array): void {
    assert(!this.#finished, 'a client that has finished sends no more')
    if (!this.ended) this.#toEngine.push(bytes)
  }

  received(): Uint8Array {
    return this.#arrived.takeAll()
  }

  finish(): void {
    this.#finished = true
  }

  close(): void {
    this.#finished = true
    this.#closed = true
    this.#toClient.clear()
  }

  reset(): void {
    this.close()
    this.#broken = true
  }

  setReading(reading: boolean): void {
    this.#reading = reading
    this.#deliver()
  }

  // The engine's end.

  get receivable(): boolean {
    return this.#toEngine.lengthBytes > 0 || this.#finished
  }

  get receivableBytes(): number {
    return this.#toEngine.lengthBytes
  }

  get sendable(): boolean {
    return this.#closed || this.#toClient.lengthBytes < this.#bufferBytesMax
  }

  get sendableBytes(): number {
    return this.#bufferBytesMax - this.#toClient.lengthBytes
  }

  /** Loses what a broken connection had not delivered. */
  loseUnread(): void {
    if (this.#broken) this.#toEngine.clear()
  }

  /** Bytes taken, 0 at the end, or a negative errno. */
  takeReceived(into: Uint8Array): number {
    if (this.#toEngine.lengthBytes > 0) return this.#toEngine.take(into)
    assert(this.#finished, 'something can be received')
    return this.#broken ? -ECONNRESET : 0
  }

  /** What a send into this connection would fail with, or 0. */
  get sendError(): number {
    if (this.#broken) return -ECONNRESET
    return this.#closed ? -EPIPE : 0
  }

  acceptSent(bytes: Uint8Array): void {
    this.#toClient.push(bytes)
    this.#deliver()
  }

  end(): void {
    this.ended = true
    this.#toEngine.clear()
  }

  #deliver(): void {
    if (this.#reading) this.#arrived.push(this.#toClient.takeAll())
  }
}
