/**
 * The two queues that a thread shares with the kernel: submissions out, completions in. This file knows nothing of what
 * the entries mean. One thread only.
 *
 * An entry is written straight into the shared queue; when that is full it goes to a backlog of ours, which is moved over
 * before the next system call. Order is kept. The kernel never drops a completion: when the completion queue is full it
 * keeps the rest, and says so in a flag, upon which `enter` does not sleep.
 */

import { assert } from '../../foundation/assert.ts'
import { closeDescriptor } from '../../posix/descriptor.ts'
import { ERRNO, SystemCallFailure } from '../../posix/errno.ts'
import { mapDescriptor, unmapMemory } from '../../posix/mapping.ts'
import type { MappedMemory } from '../../posix/mapping.ts'
import {
  CQE,
  IORING_ENTER_GETEVENTS,
  IORING_OFF_SQ_RING,
  IORING_OFF_SQES,
  IORING_SQ_CQ_OVERFLOW,
  PARAMS,
  SQE,
} from './abi.ts'
import { setUpRing } from './setup.ts'
import { ioUringEnter } from './system-calls.ts'

const BACKLOG_ENTRIES = 256

export class Ring {
  readonly descriptor: number
  readonly flagNames: readonly string[]
  readonly features: number
  readonly #mappings: readonly MappedMemory[]
  /** Both rings, as words; the positions of their fields are in words too. */
  readonly #words: Int32Array
  readonly #sqHead: number
  readonly #sqTail: number
  readonly #sqFlags: number
  readonly #sqMask: number
  readonly #cqHead: number
  readonly #cqTail: number
  readonly #cqMask: number
  readonly #cqes: number
  readonly #sqes: Int32Array
  /** Entries written, and entries that the kernel has taken; both wrap at 32 bits. */
  #written = 0
  #taken = 0
  /** Completions read, and completions known to be there. */
  #read = 0
  #known = 0
  #backlog = new Int32Array(BACKLOG_ENTRIES * SQE.WORDS)
  #backlogFrom = 0
  #backlogTo = 0
  /** Of the completion that `nextCompletion` found last. */
  index = 0
  kind = 0
  result = 0
  flags = 0

  /** Throws `IoUringUnavailable`. */
  constructor(submissionEntries: number, completionEntries: number, plain: boolean) {
    const { descriptor, params, flagNames } = setUpRing(submissionEntries, completionEntries, plain)
    const at = (field: number): number => params.getUint32(field, true)
    const sqEntries = at(PARAMS.sq_entries)
    const sqBytes = at(PARAMS.sq_array) + sqEntries * 4
    const cqBytes = at(PARAMS.cq_cqes) + at(PARAMS.cq_entries) * CQE.WORDS * 4
    const [rings, entries] = mapRings(descriptor, Math.max(sqBytes, cqBytes), sqEntries * SQE.WORDS * 4)
    this.descriptor = descriptor
    this.flagNames = flagNames
    this.features = at(PARAMS.features)
    this.#mappings = [rings, entries]
    this.#words = wordsOf(rings)
    this.#sqes = wordsOf(entries)
    this.#sqHead = at(PARAMS.sq_head) / 4
    this.#sqTail = at(PARAMS.sq_tail) / 4
    this.#sqFlags = at(PARAMS.sq_flags) / 4
    this.#sqMask = sqEntries - 1
    this.#cqHead = at(PARAMS.cq_head) / 4
    this.#cqTail = at(PARAMS.cq_tail) / 4
    this.#cqMask = at(PARAMS.cq_entries) - 1
    this.#cqes = at(PARAMS.cq_cqes) / 4
    // The indirection that the kernel offers between the two is not used: entry n is always in place n.
    const array = at(PARAMS.sq_array) / 4
    for (let index = 0; index < sqEntries; index += 1) this.#words[array + index] = index
  }

  /** Adds one entry. All are 32-bit words; `kind` and `index` come back with its completion. */
  push(
    first: number,
    descriptor: number,
    offsetLow: number,
    offsetHigh: number,
    addressLow: number,
    addressHigh: number,
    length: number,
    operationFlags: number,
    bufferIndex: number,
    kind: number,
    index: number,
  ): void {
    let words = this.#sqes
    let at = 0
    if (this.#backlogTo === this.#backlogFrom && ((this.#written - this.#taken) | 0) <= this.#sqMask) {
      at = (this.#written & this.#sqMask) * SQE.WORDS
      this.#written = (this.#written + 1) | 0
    } else {
      at = this.#backlogPlace()
      words = this.#backlog
    }
    words[at + SQE.first] = first
    words[at + SQE.fd] = descriptor
    words[at + SQE.off] = offsetLow
    words[at + SQE.off + 1] = offsetHigh
    words[at + SQE.addr] = addressLow
    words[at + SQE.addr + 1] = addressHigh
    words[at + SQE.len] = length
    words[at + SQE.op_flags] = operationFlags
    words[at + SQE.user_data] = index
    words[at + SQE.user_data + 1] = kind
    words[at + SQE.buf_index] = bufferIndex
    words[at + SQE.buf_index + 1] = 0
    words[at + SQE.buf_index + 2] = 0
    words[at + SQE.buf_index + 3] = 0
    words[at + SQE.buf_index + 4] = 0
    words[at + SQE.buf_index + 5] = 0
  }

  /** Reads one completion into `kind`, `index`, `result` and `flags`. False when there is none. */
  nextCompletion(): boolean {
    if (this.#read === this.#known) {
      this.#known = Atomics.load(this.#words, this.#cqTail)
      if (this.#read === this.#known) return false
    }
    const at = this.#cqes + (this.#read & this.#cqMask) * CQE.WORDS
    this.#read = (this.#read + 1) | 0
    this.index = this.#words[at + CQE.user_data] ?? 0
    this.kind = this.#words[at + CQE.user_data + 1] ?? 0
    this.result = this.#words[at + CQE.res] ?? 0
    this.flags = this.#words[at + CQE.flags] ?? 0
    return true
  }

  /** One system call: hands over what was pushed, and sleeps for a completion if it may and there is none yet. */
  enter(maySleep: boolean): void {
    this.#moveBacklog()
    Atomics.store(this.#words, this.#cqHead, this.#read)
    Atomics.store(this.#words, this.#sqTail, this.#written)
    const submit = (this.#written - this.#taken) | 0
    const pending = this.#backlogTo > this.#backlogFrom || this.#read !== Atomics.load(this.#words, this.#cqTail)
    const overflowing = (Atomics.load(this.#words, this.#sqFlags) & IORING_SQ_CQ_OVERFLOW) !== 0
    const completeMin = maySleep && !pending && !overflowing ? 1 : 0
    const result = ioUringEnter(this.descriptor, submit, completeMin, IORING_ENTER_GETEVENTS)
    // What was not taken for want of memory, or because completions must be read first, is offered again next time.
    const passing = result === -ERRNO.EINTR || result === -ERRNO.EAGAIN || result === -ERRNO.EBUSY
    if (result < 0 && !passing) throw new SystemCallFailure('io_uring_enter', -result)
    this.#taken = Atomics.load(this.#words, this.#sqHead)
  }

  /** Closes the ring; the kernel cancels what can be cancelled by itself. Nothing of it may be used afterwards. */
  dispose(): void {
    closeDescriptor(this.descriptor)
    for (const mapping of this.#mappings) unmapMemory(mapping)
  }

  #backlogPlace(): number {
    if (this.#backlogTo === this.#backlog.length) {
      const waiting = this.#backlogTo - this.#backlogFrom
      const tooSmall = waiting > this.#backlog.length / 2
      const larger = tooSmall ? new Int32Array(this.#backlog.length * 2) : this.#backlog
      larger.set(this.#backlog.subarray(this.#backlogFrom, this.#backlogTo))
      this.#backlog = larger
      this.#backlogFrom = 0
      this.#backlogTo = waiting
    }
    const at = this.#backlogTo
    this.#backlogTo += SQE.WORDS
    return at
  }

  #moveBacklog(): void {
    while (this.#backlogFrom < this.#backlogTo && ((this.#written - this.#taken) | 0) <= this.#sqMask) {
      const at = (this.#written & this.#sqMask) * SQE.WORDS
      this.#sqes.set(this.#backlog.subarray(this.#backlogFrom, this.#backlogFrom + SQE.WORDS), at)
      this.#backlogFrom += SQE.WORDS
      this.#written = (this.#written + 1) | 0
    }
    if (this.#backlogFrom === this.#backlogTo) {
      this.#backlogFrom = 0
      this.#backlogTo = 0
    }
  }
}

function mapRings(descriptor: number, ringsBytes: number, entriesBytes: number): [MappedMemory, MappedMemory] {
  try {
    return [
      mapDescriptor(descriptor, ringsBytes, IORING_OFF_SQ_RING),
      mapDescriptor(descriptor, entriesBytes, IORING_OFF_SQES),
    ]
  } catch (error) {
    closeDescriptor(descriptor)
    throw error
  }
}

function wordsOf(memory: MappedMemory): Int32Array {
  assert(memory.bytes.byteOffset === 0 && memory.lengthBytes % 4 === 0, 'a mapping is whole words')
  return new Int32Array(memory.bytes.buffer, 0, memory.lengthBytes / 4)
}
