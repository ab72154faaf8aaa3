/**
 * The engine that runs on one io_uring: sockets and disk on the same ring, memory shared with the kernel, one system call
 * for each turn. `run` owns its thread until the stop word is set; while there is nothing to do the thread sleeps in the
 * kernel, and an eventfd under permanent poll wakes it.
 *
 * It must be made, run and disposed on one thread. Nothing is allocated for a request.
 */

import { assert } from '../../foundation/assert.ts'
import { CompletionQueue } from '../completion-queue.ts'
import type { Completion, FileId, PartList, StreamId, Token } from '../contract.ts'
import type { EngineOptions, OwnedEngine } from '../resources.ts'
import { IORING_CQE_F_MORE, IORING_OP, IORING_POLL_ADD_MULTI, POLLIN } from './abi.ts'
import { COMPLETION } from './completion-kind.ts'
import { DiskTable } from './disk-table.ts'
import { Registration } from './registration.ts'
import { Ring } from './ring.ts'
import { StreamTable } from './stream-table.ts'

const SUBMISSION_ENTRIES = 256
const COMPLETION_ENTRIES_MIN = 1024
/** More than any device takes at once; what is beyond would only wait elsewhere. */
const DISK_DEPTH_MAX = 512

export class IoUringEngine implements OwnedEngine {
  readonly kind = 'io_uring'
  readonly diskDepth: number
  readonly #ring: Ring
  readonly #registration: Registration
  readonly #streams: StreamTable
  readonly #disk: DiskTable
  /** What completes without the kernel. */
  readonly #local = new CompletionQueue()
  readonly #stopWord: Int32Array
  readonly #doorbellDescriptor: number
  #woken = true
  #inTurn = false
  #disposed = false

  /** Throws `IoUringUnavailable`. */
  constructor(options: EngineOptions) {
    const { arena, streamsMax, filesMax } = options
    this.diskDepth = Math.max(1, Math.min(options.operationsMax, DISK_DEPTH_MAX))
    const completionEntries = Math.max(COMPLETION_ENTRIES_MIN, 2 * streamsMax + this.diskDepth)
    const plain = options.plainRing ?? false
    const registeredFilesMax = plain ? 0 : filesMax
    this.#ring = new Ring(SUBMISSION_ENTRIES, completionEntries, plain)
    this.#registration = new Registration(this.#ring, registeredFilesMax, arena.address, options.registeredBytes)
    this.#streams = new StreamTable(this.#ring, this.#local, arena.address, streamsMax)
    this.#disk = new DiskTable(this.#ring, this.#registration, this.#local, arena.address, filesMax, this.diskDepth)
    this.#stopWord = options.stopWord
    this.#doorbellDescriptor = options.doorbellDescriptor
    this.#watchDoorbell()
  }

  get ringDescriptor(): number {
    return this.#ring.descriptor
  }

  get description(): string {
    const features = [...this.#ring.flagNames]
    if (this.#registration.filesRegistered) features.push('registered files')
    if (this.#registration.buffersRegistered) features.push('registered buffers')
    return features.length === 0 ? 'plain' : features.join(', ')
  }

  run(turn: () => void): void {
    assert(!this.#inTurn, 'run is not called inside a turn')
    while (this.#running()) {
      this.#woken = false
      this.#inTurn = true
      turn()
      this.#inTurn = false
      if (this.#running()) this.#submitAndSleep()
    }
  }

  wake(): void {
    this.#woken = true
  }

  next(into: Completion): boolean {
    assert(this.#inTurn, 'completions are taken inside a turn')
    if (this.#local.shift(into)) return true
    while (this.#ring.nextCompletion()) if (this.#accept(into)) return true
    return this.#streams.takeEnded(into)
  }

  addStream(descriptor: number): StreamId {
    return this.#streams.add(descriptor)
  }

  endStream(id: StreamId, token: Token): void {
    this.#streams.end(id, token)
  }

  receive(id: StreamId, token: Token, arenaOffset: number, lengthBytes: number): void {
    this.#streams.receive(id, token, arenaOffset, lengthBytes)
  }

  send(id: StreamId, token: Token, parts: PartList): void {
    this.#streams.send(id, token, parts)
  }

  addFile(descriptor: number, alignmentBytes: number): FileId {
    assert(alignmentBytes > 0, 'a file has an alignment')
    return this.#disk.addFile(descriptor)
  }

  removeFile(id: FileId, token: Token): void {
    this.#disk.removeFile(id, token)
  }

  read(id: FileId, token: Token, position: number, arenaOffset: number, lengthBytes: number): void {
    this.#disk.read(id, token, position, arenaOffset, lengthBytes)
  }

  write(id: FileId, token: Token, position: number, arenaOffset: number, lengthBytes: number, flags: number): void {
    this.#disk.write(id, token, position, arenaOffset, lengthBytes, flags)
  }

  sync(id: FileId, token: Token): void {
    this.#disk.sync(id, token)
  }

  discard(id: FileId, token: Token, position: number, lengthBytes: number): void {
    this.#disk.discard(id, token, position, lengthBytes)
  }

  zero(id: FileId, token: Token, position: number, lengthBytes: number, flags: number): void {
    this.#disk.zero(id, token, position, lengthBytes, flags)
  }

  dispose(): void {
    if (this.#disposed) return
    this.#disposed = true
    this.#streams.closeAll()
    this.#ring.dispose()
    this.#streams.dispose()
    this.#registration.dispose()
  }

  #running(): boolean {
    return !this.#disposed && Atomics.load(this.#stopWord, 0) === 0
  }

  #submitAndSleep(): void {
    this.#ring.enter(!this.#woken && this.#local.count === 0 && this.#streams.endedCount === 0)
  }

  /** True when the kernel's completion is one for the caller. */
  #accept(into: Completion): boolean {
    const { index, result } = this.#ring
    switch (this.#ring.kind) {
      case COMPLETION.disk:
        return this.#disk.completed(index, result, into)
      case COMPLETION.receive:
        return this.#streams.received(index, result, into)
      case COMPLETION.send:
        return this.#streams.sent(index, result, into)
      case COMPLETION.fileReleased:
        this.#disk.fileReleased(index, into)
        return true
      case COMPLETION.doorbell:
        if ((this.#ring.flags & IORING_CQE_F_MORE) === 0) this.#watchDoorbell()
        return false
      default:
        assert(this.#ring.kind === COMPLETION.cancel, `completion ${this.#ring.kind} is of a known kind`)
        return false
    }
  }

  /** One poll that completes with each ring; the counter is never read, so nothing has to be armed again. */
  #watchDoorbell(): void {
    const operation = IORING_OP.POLL_ADD
    const multiple = IORING_POLL_ADD_MULTI
    this.#ring.push(operation, this.#doorbellDescriptor, 0, 0, 0, 0, multiple, POLLIN, 0, COMPLETION.doorbell, 0)
  }
}
