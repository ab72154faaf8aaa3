/**
 * The engine that runs wherever node runs: sockets under node:net, disk under node:fs, both on the arena. It needs a
 * thread of libuv's pool for each disk operation under way, and copies what it receives once.
 *
 * One turn follows each batch of completions: whatever completes while the event loop polls is taken by the turn in the
 * check phase of the same round. Nothing here keeps the event loop alive but open sockets and operations under way.
 */

import { Buffer } from 'node:buffer'
import { assert, present } from '../../foundation/assert.ts'
import { descriptorFlags } from '../../posix/descriptor.ts'
import { OPEN } from '../../posix/file.ts'
import { CompletionQueue } from '../completion-queue.ts'
import type { Completion, FileId, PartList, StreamId, Token } from '../contract.ts'
import { SEND_PARTS_MAX } from '../contract.ts'
import type { EngineOptions, OwnedEngine } from '../resources.ts'
import { DiskQueue } from './disk-queue.ts'
import type { DiskFile } from './disk-queue.ts'
import { SocketStream } from './socket-stream.ts'
import type { StreamHost } from './socket-stream.ts'

/** Threads of the pool that are left to names, logs and whatever else the process does. */
const RESERVED_THREADS = 4

export class FileEngine implements OwnedEngine, StreamHost {
  readonly kind = 'file'
  readonly diskDepth: number
  readonly ringDescriptor = -1
  readonly description: string
  readonly memory: Buffer
  readonly completions = new CompletionQueue()
  readonly #stopWord: Int32Array
  readonly #streams = new Map<StreamId, SocketStream>()
  readonly #files = new Map<FileId, DiskFile>()
  readonly #disk: DiskQueue
  #nextStreamId = 0
  #nextFileId = 0
  #turn: (() => void) | undefined
  #scheduled = false
  #inTurn = false
  #disposed = false
  readonly #takeTurn = (): void => this.#runTurn()

  constructor(options: EngineOptions) {
    const { arena } = options
    this.diskDepth = Math.max(1, options.threadPoolSize - RESERVED_THREADS)
    this.description = `${options.threadPoolSize} pool threads, ${this.diskDepth} of them for the disk`
    this.memory = Buffer.from(arena.bytes.buffer as ArrayBuffer, arena.bytes.byteOffset, arena.bytes.byteLength)
    this.#stopWord = options.stopWord
    this.#disk = new DiskQueue(
      this.memory,
      this.diskDepth,
      this.completions,
      () => this.scheduleTurn(),
      options.blockingPort,
    )
  }

  run(turn: () => void): void {
    assert(this.#turn === undefined, 'an engine runs once')
    this.#turn = turn
    this.scheduleTurn()
  }

  wake(): void {
    this.scheduleTurn()
  }

  next(into: Completion): boolean {
    assert(this.#inTurn, 'completions are taken inside a turn')
    return this.completions.shift(into)
  }

  addStream(descriptor: number): StreamId {
    const id = (this.#nextStreamId += 1)
    this.#streams.set(id, new SocketStream(this, id, descriptor))
    return id
  }

  endStream(id: StreamId, token: Token): void {
    this.#streamOf(id).end(token)
  }

  receive(id: StreamId, token: Token, arenaOffset: number, lengthBytes: number): void {
    this.#streamOf(id).receive(token, arenaOffset, lengthBytes)
  }

  send(id: StreamId, token: Token, parts: PartList): void {
    assert(parts.count > 0 && parts.count <= SEND_PARTS_MAX, 'a send has 1 to SEND_PARTS_MAX parts')
    this.#streamOf(id).send(token, parts)
  }

  addFile(descriptor: number, alignmentBytes: number): FileId {
    assert(alignmentBytes > 0, 'a file has an alignment')
    const flags = descriptorFlags(descriptor)
    assert(flags >= 0, `descriptor ${descriptor} is open`)
    const id = (this.#nextFileId += 1)
    this.#files.set(id, { descriptor, writesDurably: (flags & OPEN.dataSync) !== 0, outstanding: 0 })
    return id
  }

  removeFile(id: FileId, token: Token): void {
    assert(this.#fileOf(id).outstanding === 0, 'nothing is outstanding when a file is removed')
    this.#files.delete(id)
    this.completions.push(token, 0)
    this.scheduleTurn()
  }

  read(id: FileId, token: Token, position: number, arenaOffset: number, lengthBytes: number): void {
    this.#disk.read(this.#fileOf(id), token, position, arenaOffset, lengthBytes)
  }

  write(id: FileId, token: Token, position: number, arenaOffset: number, lengthBytes: number, flags: number): void {
    this.#disk.write(this.#fileOf(id), token, position, arenaOffset, lengthBytes, flags)
  }

  sync(id: FileId, token: Token): void {
    this.#disk.sync(this.#fileOf(id), token)
  }

  discard(id: FileId, token: Token, position: number, lengthBytes: number): void {
    this.#disk.discard(this.#fileOf(id), token, position, lengthBytes)
  }

  zero(id: FileId, token: Token, position: number, lengthBytes: number, flags: number): void {
    this.#disk.zero(this.#fileOf(id), token, position, lengthBytes, flags)
  }

  dispose(): void {
    if (this.#disposed) return
    this.#disposed = true
    for (const stream of this.#streams.values()) stream.dispose()
    this.#streams.clear()
    this.#disk.dispose()
  }

  forgetStream(id: StreamId): void {
    this.#streams.delete(id)
  }

  scheduleTurn(): void {
    if (this.#scheduled || this.#disposed || this.#turn === undefined) return
    this.#scheduled = true
    setImmediate(this.#takeTurn)
  }

  #runTurn(): void {
    this.#scheduled = false
    if (this.#disposed || this.#turn === undefined) return
    if (Atomics.load(this.#stopWord, 0) !== 0) {
      this.dispose()
      return
    }
    this.#inTurn = true
    this.#turn()
    this.#inTurn = false
    if (Atomics.load(this.#stopWord, 0) !== 0) this.dispose()
    else if (this.completions.count > 0) this.scheduleTurn()
  }

  #streamOf(id: StreamId): SocketStream {
    return present(this.#streams.get(id), `stream ${id}`)
  }

  #fileOf(id: FileId): DiskFile {
    return present(this.#files.get(id), `file ${id}`)
  }
}
