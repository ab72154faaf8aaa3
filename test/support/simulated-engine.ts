/**
 * An engine without a kernel, for property tests of whatever stands above the contract. Everything that a real engine
 * leaves open is decided by a seed: which operation completes next, how much of a transfer is done, how many completions
 * one turn sees, which blocks of a write have already landed. Time is virtual and moves only in `step`.
 *
 * Fault model: operations complete in any order; transfers are short, by whole blocks on the disk and by any number of
 * bytes on a stream; a write that is under way may have landed in part; an operation fails where the test's plan says
 * so, and a failed write may have landed in part; memory in the engine's hands is scribbled over before it is filled.
 * It also asserts the caller's side of the contract: no second receive or send on a stream, no two operations in one
 * piece of memory of which one fills it, nothing outstanding when a file is removed.
 */

import { assert, present, unreachable } from '../../src/foundation/assert.ts'
import type { ArenaMemory, Completion, Engine, FileId, PartList, StreamId, Token } from '../../src/engine/contract.ts'
import { SEND_PARTS_MAX, WRITE_DURABLE } from '../../src/engine/contract.ts'
import { SeededRandom } from './seeded-random.ts'
import { SimulatedDisk } from './simulated-disk.ts'
import { SimulatedStream } from './simulated-stream.ts'
import type { ClientEnd } from './simulated-stream.ts'

export type { ClientEnd } from './simulated-stream.ts'

const EBADF = 9
const EINVAL = 22
const ENOSPC = 28
const ECANCELED = 125
const SCRIBBLE = 0xa5

export type DiskOperationKind = 'read' | 'write' | 'sync' | 'discard' | 'zero'
type OperationKind = DiskOperationKind | 'receive' | 'send' | 'endStream' | 'removeFile'

/** One disk operation, as the test sees it. Times are virtual; `clearedAt` is -1 while it is under way. */
export interface DiskRecord {
  readonly kind: DiskOperationKind
  readonly id: FileId
  readonly position: number
  readonly lengthBytes: number
  readonly flags: number
  readonly submittedAt: number
  clearedAt: number
  result: number
}

export interface SimulatedEngineOptions {
  readonly seed: number
  /** Default 1 MiB. Ignored where `disk` is given. */
  readonly sizeBytes?: number
  readonly blockBytes?: number
  /** A disk that an earlier engine used, to go on after a power cut. */
  readonly disk?: SimulatedDisk
  /** Default: one of `arenaBytes`, which is 1 MiB by default. */
  readonly arena?: ArenaMemory
  readonly arenaBytes?: number
  readonly diskDepth?: number
  /** What a socket holds in each direction before the sender has to wait. */
  readonly socketBufferBytes?: number
  /** Probability that a transfer is short. */
  readonly shortChance?: number
  /** Probability that a turn sees one more completion than it has already. */
  readonly batchChance?: number
  /** 0, or the negative errno with which an operation is to fail; asked when it completes. */
  readonly plan?: (operation: Readonly<DiskRecord>) => number
  /** How long a disk operation takes, in virtual time; by default 1 to 100, at random. */
  readonly latency?: (operation: Readonly<DiskRecord>) => number
}

interface Operation {
  readonly kind: OperationKind
  readonly id: number
  readonly token: Token
  readonly dueAt: number
  readonly parts: readonly { readonly offset: number; readonly length: number }[]
  readonly record: DiskRecord | undefined
}

interface StreamState {
  readonly stream: SimulatedStream
  ending: boolean
}

interface FileState {
  readonly alignmentBytes: number
  readonly readOnly: boolean
  outstanding: number
}

const DISK_KINDS: readonly OperationKind[] = ['read', 'write', 'sync', 'discard', 'zero']

export class SimulatedEngine implements Engine {
  readonly kind = 'simulated'
  readonly diskDepth: number
  readonly seed: number
  readonly arena: ArenaMemory
  readonly disk: SimulatedDisk
  /** Every disk operation ever given to this engine, in the order of submission. */
  readonly history: DiskRecord[] = []
  /** Virtual. */
  now = 0
  readonly #options: SimulatedEngineOptions
  readonly #random: SeededRandom
  readonly #streams = new Map<StreamId, StreamState>()
  readonly #files = new Map<FileId, FileState>()
  readonly #unadopted = new Map<number, SimulatedStream>()
  /** The descriptors of `openDisk`, and whether each may only be read. */
  readonly #openDisks = new Map<number, boolean>()
  #operations: Operation[] = []
  #completions: { token: Token; result: number }[] = []
  #turn: (() => void) | undefined
  #inTurn = false
  #woken = false
  #frozen = false
  #dead = false
  #nextDescriptor = 1000
  #nextId = 0

  constructor(options: SimulatedEngineOptions) {
    this.#options = options
    this.seed = options.seed
    this.diskDepth = options.diskDepth ?? 32
    this.#random = new SeededRandom(options.seed)
    const arenaBytes = options.arenaBytes ?? 1 << 20
    this.arena = options.arena ?? { address: 0n, lengthBytes: arenaBytes, bytes: new Uint8Array(arenaBytes) }
    this.disk = options.disk ?? new SimulatedDisk(options.sizeBytes ?? 1 << 20, options.blockBytes ?? 512, this.#random)
  }

  // What only a test does.

  /** A connection; its descriptor is for `addStream`. */
  connect(): ClientEnd {
    const stream = new SimulatedStream(this.#takeDescriptor(), this.#options.socketBufferBytes ?? 65536)
    this.#unadopted.set(stream.descriptor, stream)
    return stream
  }

  /** A descriptor of the disk, for `addFile`. */
  openDisk(options: { readonly readOnly?: boolean } = {}): number {
    const descriptor = this.#takeDescriptor()
    this.#openDisks.set(descriptor, options.readOnly ?? false)
    return descriptor
  }

  /** While frozen, no disk operation completes or lands. */
  setDiskFrozen(frozen: boolean): void {
    this.#frozen = frozen
  }

  /** Something completes, or the engine was woken; then a turn runs. False when there is nothing to do. */
  step(): boolean {
    assert(!this.#inTurn, 'a turn does not step the engine')
    if (this.#dead || this.#turn === undefined) return false
    let moved = this.#woken
    this.#woken = false
    this.#landSomething()
    while (this.#completeOne()) {
      moved = true
      if (!this.#random.chance(this.#options.batchChance ?? 0.3)) break
    }
    if (!moved) return false
    this.#inTurn = true
    this.#turn()
    this.#inTurn = false
    if (this.#completions.length > 0) this.#woken = true
    return true
  }

  /** Steps until nothing is left to do. */
  settle(stepsMax = 100_000): void {
    for (let steps = 0; this.step(); steps += 1) {
      assert(steps < stepsMax, `the engine settles within ${stepsMax} steps (seed ${this.seed})`)
    }
  }

  /** The machine loses power: nothing completes any more, and what was under way has landed anyhow or not at all. */
  powerCut(): void {
    for (const operation of this.#operations) if (operation.kind === 'write') this.#landInPart(operation)
    this.#operations = []
    this.#dead = true
    this.disk.powerCut()
  }

  // The contract.

  run(turn: () => void): void {
    assert(this.#turn === undefined, 'an engine runs once')
    this.#turn = turn
    this.#woken = true
  }

  wake(): void {
    this.#woken = true
  }

  next(into: Completion): boolean {
    assert(this.#inTurn, 'completions are taken inside a turn')
    const completion = this.#completions.shift()
    if (completion === undefined) return false
    into.token = completion.token
    into.result = completion.result
    return true
  }

  addStream(descriptor: number): StreamId {
    const stream = present(this.#unadopted.get(descriptor), `an unadopted connection ${descriptor}`)
    this.#unadopted.delete(descriptor)
    const id = (this.#nextId += 1)
    this.#streams.set(id, { stream, ending: false })
    return id
  }

  endStream(id: StreamId, token: Token): void {
    const state = this.#streamOf(id)
    assert(!state.ending, 'a stream ends once')
    state.ending = true
    this.#begin('endStream', id, token, [])
  }

  receive(id: StreamId, token: Token, arenaOffset: number, lengthBytes: number): void {
    assert(lengthBytes > 0, 'a receive has room')
    this.#streamOf(id)
    assert(!this.#outstanding('receive', id), 'one receive at a time')
    this.#begin('receive', id, token, [{ offset: arenaOffset, length: lengthBytes }])
  }

  send(id: StreamId, token: Token, parts: PartList): void {
    assert(parts.count > 0 && parts.count <= SEND_PARTS_MAX, 'a send has 1 to SEND_PARTS_MAX parts')
    this.#streamOf(id)
    assert(!this.#outstanding('send', id), 'one send at a time')
    const copied: { offset: number; length: number }[] = []
    for (let index = 0; index < parts.count; index += 1) {
      copied.push({
        offset: present(parts.offsets[index], 'an offset'),
        length: present(parts.lengths[index], 'a length'),
      })
    }
    this.#begin('send', id, token, copied)
  }

  addFile(descriptor: number, alignmentBytes: number): FileId {
    const readOnly = present(this.#openDisks.get(descriptor), `descriptor ${descriptor} of openDisk`)
    const id = (this.#nextId += 1)
    this.#files.set(id, { alignmentBytes, readOnly, outstanding: 0 })
    return id
  }

  removeFile(id: FileId, token: Token): void {
    assert(this.#fileOf(id).outstanding === 0, 'nothing is outstanding when a file is removed')
    this.#begin('removeFile', id, token, [])
  }

  read(id: FileId, token: Token, position: number, arenaOffset: number, lengthBytes: number): void {
    this.#beginDisk('read', id, token, position, arenaOffset, lengthBytes, 0)
  }

  write(id: FileId, token: Token, position: number, arenaOffset: number, lengthBytes: number, flags: number): void {
    this.#beginDisk('write', id, token, position, arenaOffset, lengthBytes, flags)
  }

  sync(id: FileId, token: Token): void {
    this.#beginDisk('sync', id, token, 0, 0, 0, 0)
  }

  discard(id: FileId, token: Token, position: number, lengthBytes: number): void {
    this.#beginDisk('discard', id, token, position, 0, lengthBytes, 0)
  }

  zero(id: FileId, token: Token, position: number, lengthBytes: number, flags: number): void {
    this.#beginDisk('zero', id, token, position, 0, lengthBytes, flags)
  }

  // Submission.

  #beginDisk(
    kind: DiskOperationKind,
    id: FileId,
    token: Token,
    position: number,
    arenaOffset: number,
    lengthBytes: number,
    flags: number,
  ): void {
    this.#fileOf(id).outstanding += 1
    const record: DiskRecord = {
      kind,
      id,
      position,
      lengthBytes,
      flags,
      submittedAt: this.now,
      clearedAt: -1,
      result: 0,
    }
    this.history.push(record)
    const transfers = kind === 'read' || kind === 'write'
    this.#begin(kind, id, token, transfers ? [{ offset: arenaOffset, length: lengthBytes }] : [], record)
  }

  #begin(
    kind: OperationKind,
    id: number,
    token: Token,
    parts: readonly { readonly offset: number; readonly length: number }[],
    record?: DiskRecord,
  ): void {
    assert(Number.isSafeInteger(token) && token >= 0, 'a token is a non-negative safe integer')
    const fills = kind === 'read' || kind === 'receive'
    for (const part of parts) {
      assert(part.offset >= 0 && part.offset + part.length <= this.arena.lengthBytes, 'a part lies in the arena')
      this.#assertMemoryFree(part.offset, part.length, fills)
      if (fills) this.arena.bytes.fill(SCRIBBLE, part.offset, part.offset + part.length)
    }
    const latency = (record && this.#options.latency?.(record)) ?? this.#random.between(1, 100)
    this.#operations.push({ kind, id, token, dueAt: this.now + latency, parts, record })
  }

  #assertMemoryFree(offset: number, length: number, fills: boolean): void {
    for (const other of this.#operations) {
      if (!fills && other.kind !== 'read' && other.kind !== 'receive') continue
      for (const part of other.parts) {
        const apart = offset + length <= part.offset || part.offset + part.length <= offset
        assert(apart, `memory at ${offset} is in the hands of a ${other.kind} (seed ${this.seed})`)
      }
    }
  }

  // Completion.

  #completeOne(): boolean {
    const candidates = this.#candidates()
    if (candidates.length === 0) return false
    const soonest = Math.min(...candidates.map((operation) => operation.dueAt))
    this.now = Math.max(this.now + 1, soonest)
    const due = candidates.filter((operation) => operation.dueAt <= this.now)
    const operation = this.#random.pick(due)
    this.#operations.splice(this.#operations.indexOf(operation), 1)
    const result = this.#perform(operation)
    if (operation.record !== undefined) {
      operation.record.clearedAt = this.now
      operation.record.result = result
      this.#fileOf(operation.id).outstanding -= 1
    }
    this.#completions.push({ token: operation.token, result })
    return true
  }

  #candidates(): Operation[] {
    let inKernel = 0
    return this.#operations.filter((operation) => {
      if (DISK_KINDS.includes(operation.kind)) {
        inKernel += 1
        return !this.#frozen && inKernel <= this.diskDepth
      }
      if (operation.kind === 'removeFile') return true
      const { stream, ending } = this.#streamOf(operation.id)
      const others = this.#outstanding('receive', operation.id) || this.#outstanding('send', operation.id)
      if (operation.kind === 'endStream') return !others
      return ending || (operation.kind === 'receive' ? stream.receivable : stream.sendable)
    })
  }

  #perform(operation: Operation): number {
    switch (operation.kind) {
      case 'receive':
        return this.#performReceive(operation)
      case 'send':
        return this.#performSend(operation)
      case 'endStream':
        this.#streamOf(operation.id).stream.end()
        this.#streams.delete(operation.id)
        return 0
      case 'removeFile':
        this.#files.delete(operation.id)
        return 0
      case 'read':
      case 'write':
      case 'sync':
      case 'discard':
      case 'zero':
        return this.#performDisk(operation, present(operation.record, 'the record of a disk operation'))
      default:
        return unreachable(operation.kind)
    }
  }

  #performReceive(operation: Operation): number {
    const { stream, ending } = this.#streamOf(operation.id)
    if (ending) return -ECANCELED
    const part = present(operation.parts[0], 'the memory of a receive')
    if (this.#random.chance(0.5)) stream.loseUnread()
    const count = this.#shorten(Math.min(part.length, Math.max(1, stream.receivableBytes)), 1)
    return stream.takeReceived(this.arena.bytes.subarray(part.offset, part.offset + count))
  }

  #performSend(operation: Operation): number {
    const { stream, ending } = this.#streamOf(operation.id)
    if (ending) return -ECANCELED
    if (stream.sendError !== 0) return stream.sendError
    const total = operation.parts.reduce((sum, part) => sum + part.length, 0)
    const count = this.#shorten(Math.min(total, stream.sendableBytes), 1)
    let left = count
    for (const part of operation.parts) {
      const length = Math.min(left, part.length)
      stream.acceptSent(this.arena.bytes.subarray(part.offset, part.offset + length))
      left -= length
    }
    return count
  }

  #performDisk(operation: Operation, record: DiskRecord): number {
    const planned = this.#options.plan?.(record) ?? 0
    if (planned !== 0) {
      if (record.kind === 'write') this.#landInPart(operation)
      return planned
    }
    if (record.kind === 'sync') {
      this.disk.sync()
      return 0
    }
    const { alignmentBytes, readOnly } = this.#fileOf(operation.id)
    if (readOnly && record.kind !== 'read') return -EBADF
    const offset = operation.parts[0]?.offset ?? 0
    if (record.position % alignmentBytes !== 0 || record.lengthBytes % alignmentBytes !== 0) return -EINVAL
    if (offset % alignmentBytes !== 0) return -EINVAL
    const room = Math.max(0, Math.min(record.lengthBytes, this.disk.sizeBytes - record.position))
    if (room === 0) return record.kind === 'read' ? 0 : -ENOSPC
    if (record.kind === 'discard' || record.kind === 'zero') {
      this.#land(record.position, new Uint8Array(room))
      return 0
    }
    const count = this.#shorten(room, Math.max(alignmentBytes, this.disk.blockBytes))
    const memory = this.arena.bytes.subarray(offset, offset + count)
    if (record.kind === 'read') {
      this.disk.read(record.position, memory)
      return count
    }
    this.#land(record.position, memory)
    if ((record.flags & WRITE_DURABLE) !== 0) this.disk.stabilise(record.position, count)
    return count
  }

  #land(position: number, bytes: Uint8Array): void {
    const { blockBytes } = this.disk
    for (let at = 0; at < bytes.length; at += blockBytes) {
      this.disk.land(position + at, bytes.subarray(at, at + blockBytes))
    }
  }

  /** Any of a write's blocks land, each for itself. */
  #landInPart(operation: Operation): void {
    const { position } = present(operation.record, 'the record of a write')
    const part = present(operation.parts[0], 'the memory of a write')
    const { blockBytes, sizeBytes } = this.disk
    if (position % blockBytes !== 0 || part.length % blockBytes !== 0) return
    for (let at = 0; at < part.length && position + at < sizeBytes; at += blockBytes) {
      if (!this.#random.chance(0.5)) continue
      this.disk.land(position + at, this.arena.bytes.subarray(part.offset + at, part.offset + at + blockBytes))
    }
  }

  #landSomething(): void {
    if (this.#frozen || !this.#random.chance(0.2)) return
    const writes = this.#operations.slice(0, this.diskDepth).filter((operation) => operation.kind === 'write')
    if (writes.length > 0) this.#landInPart(this.#random.pick(writes))
  }

  #shorten(lengthBytes: number, unitBytes: number): number {
    if (lengthBytes <= unitBytes || !this.#random.chance(this.#options.shortChance ?? 0.1)) return lengthBytes
    return this.#random.between(1, Math.floor(lengthBytes / unitBytes)) * unitBytes
  }

  #outstanding(kind: OperationKind, id: number): boolean {
    return this.#operations.some((operation) => operation.kind === kind && operation.id === id)
  }

  #streamOf(id: StreamId): StreamState {
    return present(this.#streams.get(id), `stream ${id}`)
  }

  #fileOf(id: FileId): FileState {
    return present(this.#files.get(id), `file ${id}`)
  }

  #takeDescriptor(): number {
    this.#nextDescriptor += 1
    return this.#nextDescriptor
  }
}

/** Pairs of writes (discards and zeroes count) that overlap and were under way at the same time; there must be none. */
export function overlappingWrites(history: readonly DiskRecord[]): [DiskRecord, DiskRecord][] {
  const pairs: [DiskRecord, DiskRecord][] = []
  const writes = history.filter((record) => record.kind !== 'read' && record.kind !== 'sync')
  for (const [index, later] of writes.entries()) {
    for (const earlier of writes.slice(0, index)) {
      const cleared = earlier.clearedAt !== -1 && earlier.clearedAt <= later.submittedAt
      if (cleared || earlier.id !== later.id) continue
      const apart =
        earlier.position + earlier.lengthBytes <= later.position ||
        later.position + later.lengthBytes <= earlier.position
      if (!apart) pairs.push([earlier, later])
    }
  }
  return pairs
}
