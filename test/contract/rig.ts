/**
 * What a scenario of the contract may use, whatever the engine: the engine itself, clients, an image, and a record of
 * everything that completed. A scenario is a generator, because an engine may own the thread while it runs: it is resumed
 * inside turns only, and yields the condition that it waits for.
 *
 * The rig itself checks what holds in every scenario: no turn inside a turn, no token that completes twice or unasked.
 */

import { deepEqual, ok } from 'node:assert/strict'
import type { Completion, Engine, FileId, PartList, StreamId, Token } from '../../src/engine/contract.ts'

export type Condition = () => boolean
export type Scenario = (rig: Rig) => Generator<Condition, void>

/** The other end of a stream. All of it is synchronous. */
export interface Client {
  /** Bytes that the socket took; it may take fewer than given, or none. */
  send(bytes: Uint8Array): number
  /** Takes what has arrived since the last call. */
  received(): Uint8Array
  /** Sends no more. */
  finish(): void
  close(): void
  /** The engine's end is closed, and everything before it was received. */
  readonly ended: boolean
}

/** How a rig is built around an engine; the scenarios do not see it. */
export interface Surroundings {
  readonly engine: Engine
  readonly arena: Uint8Array
  /** What positions and lengths on the image are multiples of. */
  readonly blockBytes: number
  connect(): { readonly stream: StreamId; readonly client: Client }
  /** `durable`: writes are durable by themselves. */
  openImage(options: { readonly durable: boolean; readonly readOnly: boolean }): number
  /** Every byte of the image, read by another way than the engine's. */
  imageBytes(): Uint8Array
  /** Rings from another thread, in about that time. */
  wakeLater(delayMs: number): void
  /** Sets the stop word from another thread, then wakes. Only real engines stop. */
  stopLater?(delayMs: number): void
  /** True when the file of that descriptor is wholly closed once the descriptor is. */
  closeImage(descriptor: number): boolean
}

export const IMAGE_BYTES = 4 * 1024 * 1024
export const ARENA_BYTES = 16 * 1024 * 1024

export class Rig {
  readonly #surroundings: Surroundings
  readonly #outstanding = new Set<Token>()
  readonly #results = new Map<Token, number>()
  readonly #completion: Completion = { token: 0, result: 0 }
  readonly #clients: Client[] = []
  #inTurn = false
  #lastToken = 0
  /** Completions that each turn saw. */
  readonly turns: number[] = []
  /** Tokens in the order in which they completed. */
  readonly order: Token[] = []

  constructor(surroundings: Surroundings) {
    this.#surroundings = surroundings
  }

  get engine(): Engine {
    return this.#surroundings.engine
  }

  get arena(): Uint8Array {
    return this.#surroundings.arena
  }

  get blockBytes(): number {
    return this.#surroundings.blockBytes
  }

  /** Drives the scenario: to be called by the engine as its turn. True once the scenario is over. */
  turn(scenario: Generator<Condition, void>, waiting: { condition: Condition }): boolean {
    ok(!this.#inTurn, 'no turn runs inside a turn')
    this.#inTurn = true
    this.#takeCompletions()
    let done = false
    while (!done && waiting.condition()) {
      const step = scenario.next()
      if (step.done === true) done = true
      else waiting.condition = step.value
      ok(this.#inTurn, 'the turn goes on')
    }
    this.#inTurn = false
    return done
  }

  #takeCompletions(): void {
    let count = 0
    while (this.engine.next(this.#completion)) {
      const { token, result } = this.#completion
      ok(this.#outstanding.delete(token), `token ${token} completes once, and only when asked for`)
      ok(Number.isInteger(result), 'a result is a whole number')
      this.#results.set(token, result)
      this.order.push(token)
      count += 1
    }
    this.turns.push(count)
  }

  // What scenarios use.

  token(): Token {
    this.#lastToken += 1
    this.#outstanding.add(this.#lastToken)
    return this.#lastToken
  }

  get outstandingCount(): number {
    return this.#outstanding.size
  }

  completed(token: Token): boolean {
    return this.#results.has(token)
  }

  result(token: Token): number {
    const result = this.#results.get(token)
    ok(result !== undefined, `token ${token} has completed`)
    return result
  }

  /** Waits until all of these have completed. */
  *all(...tokens: readonly Token[]): Generator<Condition, number[]> {
    yield () => tokens.every((token) => this.completed(token))
    return tokens.map((token) => this.result(token))
  }

  /** Waits for this one, and gives its result. */
  *one(token: Token): Generator<Condition, number> {
    yield () => this.completed(token)
    return this.result(token)
  }

  /** Waits for another turn, in which nothing need have completed. */
  *anotherTurn(): Generator<Condition, void> {
    const before = this.turns.length
    this.engine.wake()
    yield () => this.turns.length > before
  }

  /** Lets the engine sleep in between, and be woken by another thread. */
  *sleep(delayMs: number): Generator<Condition, void> {
    const before = this.turns.length
    this.#surroundings.wakeLater(delayMs)
    yield () => this.turns.length > before
  }

  wakeLater(delayMs: number): void {
    this.#surroundings.wakeLater(delayMs)
  }

  stopLater(delayMs: number): void {
    ok(this.#surroundings.stopLater !== undefined, 'this engine can be stopped')
    this.#surroundings.stopLater(delayMs)
  }

  connect(): { readonly stream: StreamId; readonly client: Client } {
    const connection = this.#surroundings.connect()
    this.#clients.push(connection.client)
    return connection
  }

  openImage(options = { durable: true, readOnly: false }): { readonly file: FileId; readonly descriptor: number } {
    const descriptor = this.#surroundings.openImage(options)
    return { descriptor, file: this.engine.addFile(descriptor, this.blockBytes) }
  }

  imageBytes(): Uint8Array {
    return this.#surroundings.imageBytes()
  }

  closeImage(descriptor: number): boolean {
    return this.#surroundings.closeImage(descriptor)
  }

  receive(stream: StreamId, arenaOffset: number, lengthBytes: number): Token {
    const token = this.token()
    this.engine.receive(stream, token, arenaOffset, lengthBytes)
    return token
  }

  send(stream: StreamId, ...parts: readonly (readonly [offset: number, length: number])[]): Token {
    const token = this.token()
    this.engine.send(stream, token, partList(parts))
    return token
  }

  endStream(stream: StreamId): Token {
    const token = this.token()
    this.engine.endStream(stream, token)
    return token
  }

  /** Ends a stream and waits for it; the file likewise below. */
  *finish(stream: StreamId): Generator<Condition, void> {
    deepEqual(yield* this.one(this.endStream(stream)), 0, 'the end of a stream completes with 0')
  }

  *remove(file: FileId, descriptor: number): Generator<Condition, void> {
    const token = this.token()
    this.engine.removeFile(file, token)
    deepEqual(yield* this.one(token), 0, 'the removal of a file completes with 0')
    ok(this.closeImage(descriptor), 'the engine holds no reference to a file that it was made to remove')
  }

  write(file: FileId, position: number, arenaOffset: number, lengthBytes: number, flags = 0): Token {
    const token = this.token()
    this.engine.write(file, token, position, arenaOffset, lengthBytes, flags)
    return token
  }

  read(file: FileId, position: number, arenaOffset: number, lengthBytes: number): Token {
    const token = this.token()
    this.engine.read(file, token, position, arenaOffset, lengthBytes)
    return token
  }

  /** Writes all of it, however short the transfers are; reads likewise below. */
  *writeAll(file: FileId, position: number, arenaOffset: number, lengthBytes: number): Generator<Condition, void> {
    let done = 0
    while (done < lengthBytes) {
      const count = yield* this.one(this.write(file, position + done, arenaOffset + done, lengthBytes - done))
      ok(count > 0 && count % this.blockBytes === 0, `a write makes progress by whole blocks, not ${count}`)
      done += count
    }
  }

  *readAll(file: FileId, position: number, arenaOffset: number, lengthBytes: number): Generator<Condition, void> {
    let done = 0
    while (done < lengthBytes) {
      const count = yield* this.one(this.read(file, position + done, arenaOffset + done, lengthBytes - done))
      ok(count > 0 && count % this.blockBytes === 0, `a read makes progress by whole blocks, not ${count}`)
      done += count
    }
  }

  *receiveAll(stream: StreamId, arenaOffset: number, lengthBytes: number): Generator<Condition, void> {
    let done = 0
    while (done < lengthBytes) {
      const count = yield* this.one(this.receive(stream, arenaOffset + done, lengthBytes - done))
      ok(count > 0 && count <= lengthBytes - done, `a receive makes progress, not ${count}`)
      done += count
    }
  }

  /** Closes what the scenario left of its clients. */
  dispose(): void {
    for (const client of this.#clients) client.close()
  }
}

/** Bytes that differ from place to place and from seed to seed. */
export function pattern(seed: number, lengthBytes: number): Uint8Array {
  const bytes = new Uint8Array(lengthBytes)
  for (let index = 0; index < lengthBytes; index += 1)
    bytes[index] = (index * 31 + (index >> 8) * 7 + seed * 101) & 0xff
  return bytes
}

export function equalBytes(actual: Uint8Array, expected: Uint8Array, what: string): void {
  ok(Buffer.compare(actual, expected) === 0, `${what}: ${actual.length} bytes are not the ${expected.length} expected`)
}

function partList(parts: readonly (readonly [offset: number, length: number])[]): PartList {
  return {
    count: parts.length,
    offsets: Int32Array.from(parts, ([offset]) => offset),
    lengths: Int32Array.from(parts, ([, length]) => length),
  }
}
