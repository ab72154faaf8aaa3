/**
 * An engine that does everything at once and allocates nothing: a client that sends the same bytes for ever and takes
 * every answer, and a disk that does nothing and is always done. For measuring what the data plane itself costs.
 */

import { CompletionQueue } from '../../src/engine/completion-queue.ts'
import type { Completion, Engine, FileId, PartList, StreamId, Token } from '../../src/engine/contract.ts'

export class TirelessEngine implements Engine {
  readonly kind = 'simulated'
  readonly diskDepth = 64
  /** Bytes of answers taken. */
  sentBytes = 0
  readonly #memory: Uint8Array
  readonly #completions = new CompletionQueue()
  #script: Uint8Array = new Uint8Array(0)
  #at = 0
  #bytesLeft = 0
  #waitingToken = -1
  #waitingAt = 0
  #waitingBytes = 0
  #turn: () => void = () => undefined

  constructor(memory: Uint8Array) {
    this.#memory = memory
  }

  /** Sends the script again and again, so many times, and takes turns until nothing is left to do. */
  play(script: Uint8Array, times: number): void {
    this.#script = script
    this.#at = 0
    this.#bytesLeft = script.length * times
    if (this.#waitingToken >= 0) this.#deliver(this.#waitingToken, this.#waitingAt, this.#waitingBytes)
    this.settle()
  }

  settle(): void {
    do this.#turn()
    while (this.#completions.count > 0)
  }

  run(turn: () => void): void {
    this.#turn = turn
  }

  wake(): void {
    // A turn follows in any case.
  }

  next(into: Completion): boolean {
    return this.#completions.shift(into)
  }

  addStream(): StreamId {
    return 1
  }

  endStream(_id: StreamId, token: Token): void {
    this.#completions.push(token, 0)
  }

  receive(_id: StreamId, token: Token, arenaOffset: number, lengthBytes: number): void {
    this.#deliver(token, arenaOffset, lengthBytes)
  }

  send(_id: StreamId, token: Token, parts: PartList): void {
    let total = 0
    for (let index = 0; index < parts.count; index += 1) total += parts.lengths[index] as number
    this.sentBytes += total
    this.#completions.push(token, total)
  }

  addFile(): FileId {
    return 1
  }

  removeFile(_id: FileId, token: Token): void {
    this.#completions.push(token, 0)
  }

  read(_id: FileId, token: Token, _position: number, _arenaOffset: number, lengthBytes: number): void {
    this.#completions.push(token, lengthBytes)
  }

  write(_id: FileId, token: Token, _position: number, _arenaOffset: number, lengthBytes: number): void {
    this.#completions.push(token, lengthBytes)
  }

  sync(_id: FileId, token: Token): void {
    this.#completions.push(token, 0)
  }

  discard(_id: FileId, token: Token): void {
    this.#completions.push(token, 0)
  }

  zero(_id: FileId, token: Token): void {
    this.#completions.push(token, 0)
  }

  #deliver(token: Token, arenaOffset: number, lengthBytes: number): void {
    const count = Math.min(lengthBytes, this.#bytesLeft, this.#script.length - this.#at)
    this.#waitingToken = count === 0 ? token : -1
    this.#waitingAt = arenaOffset
    this.#waitingBytes = lengthBytes
    if (count === 0) return
    for (let index = 0; index < count; index += 1) {
      this.#memory[arenaOffset + index] = this.#script[this.#at + index] as number
    }
    this.#at = (this.#at + count) % this.#script.length
    this.#bytesLeft -= count
    this.#completions.push(token, count)
  }
}
