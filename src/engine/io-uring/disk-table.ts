/**
 * The disk half of the io_uring engine: files, and the operations on them, one row each in columns that grow by doubling
 * and are then reused. At most `depth` operations are in the kernel at once; the rest wait here in order, because more
 * than a device takes would be handed to kernel threads one by one.
 */

import { assert } from '../../foundation/assert.ts'
import { ERRNO } from '../../posix/errno.ts'
import { FALLOCATE } from '../../posix/file.ts'
import type { CompletionQueue } from '../completion-queue.ts'
import type { Completion, FileId, Token } from '../contract.ts'
import { WRITE_DURABLE, ZERO_MAY_PUNCH } from '../contract.ts'
import { IORING_FSYNC_DATASYNC, IORING_OP, IOSQE_FIXED_FILE, RWF_DSYNC } from './abi.ts'
import { BaseAddress, high, low } from './address.ts'
import { COMPLETION } from './completion-kind.ts'
import type { Registration } from './registration.ts'
import type { Ring } from './ring.ts'

const NONE = -1
const INITIAL_ROWS = 512
/** Where the flags of an entry begin in its first word; the operation is below them. */
const FLAGS_SHIFT = 8

export class DiskTable {
  readonly depth: number
  readonly #ring: Ring
  readonly #registration: Registration
  readonly #completions: CompletionQueue
  readonly #arena: BaseAddress
  // By file.
  readonly #descriptors: Int32Array
  readonly #registered: Uint8Array
  readonly #outstanding: Int32Array
  readonly #removeTokens: Float64Array
  // By operation.
  #files = new Int32Array(INITIAL_ROWS)
  #tokens = new Float64Array(INITIAL_ROWS)
  #operations = new Uint8Array(INITIAL_ROWS)
  #positions = new Float64Array(INITIAL_ROWS)
  #arenaOffsets = new Int32Array(INITIAL_ROWS)
  #lengths = new Float64Array(INITIAL_ROWS)
  #operationFlags = new Int32Array(INITIAL_ROWS)
  /** The next row in whichever list a row is in: free, or waiting. */
  #next = new Int32Array(INITIAL_ROWS)
  #free = NONE
  #waitingHead = NONE
  #waitingTail = NONE
  #inKernel = 0

  constructor(
    ring: Ring,
    registration: Registration,
    completions: CompletionQueue,
    arenaAddress: bigint,
    filesMax: number,
    depth: number,
  ) {
    this.depth = depth
    this.#ring = ring
    this.#registration = registration
    this.#completions = completions
    this.#arena = new BaseAddress(arenaAddress)
    this.#descriptors = new Int32Array(filesMax).fill(NONE)
    this.#registered = new Uint8Array(filesMax)
    this.#outstanding = new Int32Array(filesMax)
    this.#removeTokens = new Float64Array(filesMax).fill(NONE)
    this.#linkFree(0, INITIAL_ROWS)
  }

  addFile(descriptor: number): FileId {
    const file = this.#descriptors.indexOf(NONE)
    assert(file !== NONE, `no more than ${this.#descriptors.length} files are added`)
    this.#descriptors[file] = descriptor
    this.#registered[file] = this.#registration.addFile(file, descriptor) ? 1 : 0
    return file
  }

  removeFile(file: FileId, token: Token): void {
    this.#assertOpen(file)
    assert(this.#outstanding[file] === 0, 'nothing is outstanding when a file is removed')
    if (this.#registered[file] === 1) {
      this.#removeTokens[file] = token
      this.#registration.removeFile(file)
    } else {
      this.#descriptors[file] = NONE
      this.#completions.push(token, 0)
    }
  }

  /** The kernel holds no reference to a registered file any more. */
  fileReleased(file: FileId, into: Completion): void {
    into.token = this.#removeTokens[file] ?? NONE
    into.result = 0
    assert(into.token !== NONE, 'only a removed file is released')
    this.#removeTokens[file] = NONE
    this.#descriptors[file] = NONE
    this.#registered[file] = 0
  }

  read(file: FileId, token: Token, position: number, arenaOffset: number, lengthBytes: number): void {
    this.#begin(file, token, IORING_OP.READ, position, arenaOffset, lengthBytes, 0)
  }

  write(file: FileId, token: Token, position: number, arenaOffset: number, lengthBytes: number, flags: number): void {
    const durable = (flags & WRITE_DURABLE) === 0 ? 0 : RWF_DSYNC
    this.#begin(file, token, IORING_OP.WRITE, position, arenaOffset, lengthBytes, durable)
  }

  sync(file: FileId, token: Token): void {
    this.#begin(file, token, IORING_OP.FSYNC, 0, 0, 0, IORING_FSYNC_DATASYNC)
  }

  discard(file: FileId, token: Token, position: number, lengthBytes: number): void {
    const mode = FALLOCATE.keepSize | FALLOCATE.punchHole
    this.#begin(file, token, IORING_OP.FALLOCATE, position, 0, lengthBytes, mode)
  }

  zero(file: FileId, token: Token, position: number, lengthBytes: number, flags: number): void {
    const how = (flags & ZERO_MAY_PUNCH) === 0 ? FALLOCATE.zeroRange : FALLOCATE.punchHole
    this.#begin(file, token, IORING_OP.FALLOCATE, position, 0, lengthBytes, FALLOCATE.keepSize | how)
  }

  /** An operation has completed. False when it was only interrupted, and goes on. */
  completed(row: number, result: number, into: Completion): boolean {
    if (result === -ERRNO.EINTR || result === -ERRNO.EAGAIN) {
      this.#push(row)
      return false
    }
    const file = this.#files[row] ?? NONE
    assert(file !== NONE, 'an operation completes once')
    into.token = this.#tokens[row] ?? NONE
    into.result = result
    this.#files[row] = NONE
    this.#next[row] = this.#free
    this.#free = row
    this.#outstanding[file] = (this.#outstanding[file] ?? 0) - 1
    this.#inKernel -= 1
    this.#startWaiting()
    return true
  }

  #begin(
    file: FileId,
    token: Token,
    operation: number,
    position: number,
    arenaOffset: number,
    lengthBytes: number,
    operationFlags: number,
  ): void {
    this.#assertOpen(file)
    if (this.#free === NONE) this.#grow()
    const row = this.#free
    this.#free = this.#next[row] ?? NONE
    this.#files[row] = file
    this.#tokens[row] = token
    this.#operations[row] = operation
    this.#positions[row] = position
    this.#arenaOffsets[row] = arenaOffset
    this.#lengths[row] = lengthBytes
    this.#operationFlags[row] = operationFlags
    this.#outstanding[file] = (this.#outstanding[file] ?? 0) + 1
    if (this.#inKernel < this.depth) {
      this.#inKernel += 1
      this.#push(row)
    } else {
      this.#wait(row)
    }
  }

  #push(row: number): void {
    const file = this.#files[row] ?? NONE
    const registered = this.#registered[file] === 1
    const descriptor = registered ? file : (this.#descriptors[file] ?? NONE)
    const flags = registered ? IOSQE_FIXED_FILE << FLAGS_SHIFT : 0
    const operation = this.#operations[row] ?? 0
    const position = this.#positions[row] ?? 0
    const length = this.#lengths[row] ?? 0
    const operationFlags = this.#operationFlags[row] ?? 0
    if (operation === IORING_OP.READ || operation === IORING_OP.WRITE) {
      const arenaOffset = this.#arenaOffsets[row] ?? 0
      const buffer = this.#registration.bufferOf(arenaOffset, length)
      const fixed = operation === IORING_OP.READ ? IORING_OP.READ_FIXED : IORING_OP.WRITE_FIXED
      this.#ring.push(
        flags | (buffer < 0 ? operation : fixed),
        descriptor,
        low(position),
        high(position),
        this.#arena.low(arenaOffset),
        this.#arena.high(arenaOffset),
        length,
        operationFlags,
        buffer < 0 ? 0 : buffer,
        COMPLETION.disk,
        row,
      )
      return
    }
    // fallocate's length is where others have their address, and its mode where they have their length.
    const allocates = operation === IORING_OP.FALLOCATE
    this.#ring.push(
      flags | operation,
      descriptor,
      low(position),
      high(position),
      allocates ? low(length) : 0,
      allocates ? high(length) : 0,
      allocates ? operationFlags : 0,
      allocates ? 0 : operationFlags,
      0,
      COMPLETION.disk,
      row,
    )
  }

  #wait(row: number): void {
    this.#next[row] = NONE
    if (this.#waitingTail === NONE) this.#waitingHead = row
    else this.#next[this.#waitingTail] = row
    this.#waitingTail = row
  }

  #startWaiting(): void {
    const row = this.#waitingHead
    if (row === NONE || this.#inKernel >= this.depth) return
    this.#waitingHead = this.#next[row] ?? NONE
    if (this.#waitingHead === NONE) this.#waitingTail = NONE
    this.#inKernel += 1
    this.#push(row)
  }

  #grow(): void {
    const rows = this.#files.length
    const larger = <T extends Int32Array | Float64Array | Uint8Array>(column: T, bigger: T): T => {
      bigger.set(column)
      return bigger
    }
    this.#files = larger(this.#files, new Int32Array(rows * 2))
    this.#tokens = larger(this.#tokens, new Float64Array(rows * 2))
    this.#operations = larger(this.#operations, new Uint8Array(rows * 2))
    this.#positions = larger(this.#positions, new Float64Array(rows * 2))
    this.#arenaOffsets = larger(this.#arenaOffsets, new Int32Array(rows * 2))
    this.#lengths = larger(this.#lengths, new Float64Array(rows * 2))
    this.#operationFlags = larger(this.#operationFlags, new Int32Array(rows * 2))
    this.#next = larger(this.#next, new Int32Array(rows * 2))
    this.#linkFree(rows, rows * 2)
  }

  #linkFree(from: number, to: number): void {
    for (let row = to - 1; row >= from; row -= 1) {
      this.#files[row] = NONE
      this.#next[row] = this.#free
      this.#free = row
    }
  }

  #assertOpen(file: FileId): void {
    const descriptor = this.#descriptors[file]
    assert(descriptor !== undefined && descriptor !== NONE, `file ${file} is open`)
    assert(this.#removeTokens[file] === NONE, `file ${file} is not being removed`)
  }
}
