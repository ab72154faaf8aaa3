/**
 * The disk half of the file engine: node:fs on the arena. At most `depth` operations are in libuv's pool at once, so
 * that some of its threads stay free for everybody else; the rest wait here in order. Discards and zeroes go to a thread
 * of their own by message, because node has no fallocate.
 *
 * A slot is one operation; it comes with its callback, made once, so an operation allocates nothing here. Slots grow by
 * doubling.
 */

import { fdatasync, read, write } from 'node:fs'
import type { MessagePort } from 'node:worker_threads'
import { assert } from '../../foundation/assert.ts'
import type { BlockingReply, BlockingRequest } from '../../blocking/blocking-port.ts'
import { ERRNO } from '../../posix/errno.ts'
import { FALLOCATE } from '../../posix/file.ts'
import type { CompletionQueue } from '../completion-queue.ts'
import type { Token } from '../contract.ts'
import { WRITE_DURABLE, ZERO_MAY_PUNCH } from '../contract.ts'

const OPERATION = { read: 0, write: 1, sync: 2, discard: 3, zero: 4 } as const
type Operation = (typeof OPERATION)[keyof typeof OPERATION]

const INITIAL_SLOTS = 256

type DiskCallback = (error: NodeJS.ErrnoException | null, count?: number) => void

/** A file as the engine knows it. */
export interface DiskFile {
  readonly descriptor: number
  /** Opened with O_DSYNC: every write is durable by itself. */
  readonly writesDurably: boolean
  outstanding: number
}

class Slot {
  operation: Operation = OPERATION.read
  file: DiskFile | undefined
  token: Token = 0
  position = 0
  arenaOffset = 0
  lengthBytes = 0
  flags = 0
  /** Bytes that a durable write has written, while its sync is under way. */
  written = -1
  /** The slot behind this one in whichever list it is in. */
  next: Slot | undefined
  readonly index: number
  readonly done: DiskCallback

  constructor(index: number, finished: (slot: Slot, result: number) => void) {
    this.index = index
    this.done = (error, count) => finished(this, error === null ? (count ?? 0) : (error.errno ?? -ERRNO.EIO))
  }
}

export class DiskQueue {
  readonly #memory: Uint8Array
  readonly #depth: number
  readonly #completions: CompletionQueue
  readonly #scheduleTurn: () => void
  readonly #blockingPort: MessagePort | undefined
  readonly #slots: Slot[] = []
  #free: Slot | undefined
  #waitingHead: Slot | undefined
  #waitingTail: Slot | undefined
  #inPool = 0
  #lineIsClosed = false
  readonly #finish = (slot: Slot, result: number): void => this.#finished(slot, result)
  readonly #onReply = (reply: BlockingReply): void => {
    this.#answered(reply)
  }
  readonly #onClose = (): void => {
    this.#lineClosed()
  }

  constructor(
    memory: Uint8Array,
    depth: number,
    completions: CompletionQueue,
    scheduleTurn: () => void,
    blockingPort: MessagePort | undefined,
  ) {
    this.#memory = memory
    this.#depth = depth
    this.#completions = completions
    this.#scheduleTurn = scheduleTurn
    this.#blockingPort = blockingPort
    blockingPort?.on('message', this.#onReply)
    blockingPort?.on('close', this.#onClose)
    blockingPort?.unref()
    this.#grow(INITIAL_SLOTS)
  }

  read(file: DiskFile, token: Token, position: number, arenaOffset: number, lengthBytes: number): void {
    this.#begin(OPERATION.read, file, token, position, arenaOffset, lengthBytes, 0)
  }

  write(file: DiskFile, token: Token, position: number, arenaOffset: number, lengthBytes: number, flags: number): void {
    this.#begin(OPERATION.write, file, token, position, arenaOffset, lengthBytes, flags)
  }

  sync(file: DiskFile, token: Token): void {
    this.#begin(OPERATION.sync, file, token, 0, 0, 0, 0)
  }

  discard(file: DiskFile, token: Token, position: number, lengthBytes: number): void {
    this.#begin(OPERATION.discard, file, token, position, 0, lengthBytes, 0)
  }

  zero(file: DiskFile, token: Token, position: number, lengthBytes: number, flags: number): void {
    this.#begin(OPERATION.zero, file, token, position, 0, lengthBytes, flags)
  }

  dispose(): void {
    this.#blockingPort?.off('message', this.#onReply)
    this.#blockingPort?.off('close', this.#onClose)
  }

  #begin(
    operation: Operation,
    file: DiskFile,
    token: Token,
    position: number,
    arenaOffset: number,
    lengthBytes: number,
    flags: number,
  ): void {
    if (this.#free === undefined) this.#grow(this.#slots.length)
    const slot = this.#free
    assert(slot !== undefined, 'there is a free slot after growing')
    this.#free = slot.next
    slot.next = undefined
    slot.operation = operation
    slot.file = file
    slot.token = token
    slot.position = position
    slot.arenaOffset = arenaOffset
    slot.lengthBytes = lengthBytes
    slot.flags = flags
    slot.written = -1
    file.outstanding += 1
    if (operation === OPERATION.discard || operation === OPERATION.zero) this.#allocate(slot, file)
    else if (this.#inPool < this.#depth) this.#start(slot, file)
    else this.#queue(slot)
  }

  #queue(slot: Slot): void {
    if (this.#waitingTail === undefined) this.#waitingHead = slot
    else this.#waitingTail.next = slot
    this.#waitingTail = slot
  }

  #start(slot: Slot, file: DiskFile): void {
    this.#inPool += 1
    if (slot.operation === OPERATION.read) {
      read(file.descriptor, this.#memory, slot.arenaOffset, slot.lengthBytes, slot.position, slot.done)
    } else if (slot.operation === OPERATION.write) {
      write(file.descriptor, this.#memory, slot.arenaOffset, slot.lengthBytes, slot.position, slot.done)
    } else {
      fdatasync(file.descriptor, slot.done)
    }
  }

  #finished(slot: Slot, result: number): void {
    const file = slot.file
    assert(file !== undefined, 'a slot that finishes has a file')
    const wrote = slot.operation === OPERATION.write && slot.written < 0 && result > 0
    if (wrote && (slot.flags & WRITE_DURABLE) !== 0 && !file.writesDurably) {
      slot.written = result
      fdatasync(file.descriptor, slot.done)
      return
    }
    this.#inPool -= 1
    this.#complete(slot, file, slot.written < 0 || result < 0 ? result : slot.written)
    const waiting = this.#waitingHead
    if (waiting === undefined) return
    this.#waitingHead = waiting.next
    if (this.#waitingHead === undefined) this.#waitingTail = undefined
    waiting.next = undefined
    assert(waiting.file !== undefined, 'a slot that waits has a file')
    this.#start(waiting, waiting.file)
  }

  #allocate(slot: Slot, file: DiskFile): void {
    if (this.#blockingPort === undefined) {
      this.#complete(slot, file, -ERRNO.EOPNOTSUPP)
      return
    }
    if (this.#lineIsClosed) {
      this.#complete(slot, file, -ERRNO.EIO)
      return
    }
    const punch = slot.operation === OPERATION.discard || (slot.flags & ZERO_MAY_PUNCH) !== 0
    const mode = FALLOCATE.keepSize | (punch ? FALLOCATE.punchHole : FALLOCATE.zeroRange)
    const { descriptor } = file
    const { position: offset, lengthBytes } = slot
    const order: BlockingRequest = {
      id: slot.index,
      call: { kind: 'fallocate', descriptor, mode, offset, lengthBytes },
    }
    this.#blockingPort.postMessage(order)
  }

  #answered(reply: BlockingReply): void {
    const slot = this.#slots[reply.id]
    assert(slot?.file !== undefined, 'an answer belongs to an operation under way')
    assert(typeof reply.result === 'number', 'fallocate answers a number')
    this.#complete(slot, slot.file, reply.result)
  }

  /** The thread is gone; what became of its calls is unknown. */
  #lineClosed(): void {
    this.#lineIsClosed = true
    for (const slot of this.#slots) {
      const allocates = slot.operation === OPERATION.discard || slot.operation === OPERATION.zero
      if (allocates && slot.file !== undefined) this.#complete(slot, slot.file, -ERRNO.EIO)
    }
  }

  #complete(slot: Slot, file: DiskFile, result: number): void {
    file.outstanding -= 1
    slot.file = undefined
    slot.next = this.#free
    this.#free = slot
    this.#completions.push(slot.token, result)
    this.#scheduleTurn()
  }

  #grow(count: number): void {
    for (let made = 0; made < count; made += 1) {
      const slot = new Slot(this.#slots.length, this.#finish)
      this.#slots.push(slot)
      slot.next = this.#free
      this.#free = slot
    }
  }
}
