/**
 * What the kernel is told once instead of with each operation: open files, so that it need not take a reference each
 * time, and the arena's disk buffers, so that it need not pin their pages each time. Both are optional; what cannot be
 * registered (locked memory is limited, the kernel is old) works plainly.
 *
 * Buffers are registered piece by piece, when a piece is first used, because registering makes memory resident. A file is
 * registered with a tag: the kernel completes the tag once nothing refers to the file any more, so that its removal can
 * be answered truthfully.
 */

import { release } from 'node:os'
import { assert } from '../../foundation/assert.ts'
import { mapMemory, unmapMemory } from '../../posix/mapping.ts'
import type { MappedMemory } from '../../posix/mapping.ts'
import { IORING_FEAT, IORING_REGISTER, IOVEC, RSRC_REGISTER, RSRC_UPDATE2 } from './abi.ts'
import { COMPLETION } from './completion-kind.ts'
import type { Ring } from './ring.ts'
import { ioUringRegister } from './system-calls.ts'

/** A buddy allocator's blocks of up to this size never straddle two pieces. */
const PIECE_BYTES = 4 * 1024 * 1024

/**
 * Before Linux 6.13 registered resources were let go in the order of their use, all of them together: one request that
 * hangs on a dead disk would keep every other file of the ring registered, and its locks held.
 */
const SEPARATE_RELEASE = [6, 13] as const

const PIECE = { unused: 0, registered: 1, refused: 2 } as const

export class Registration {
  readonly filesRegistered: boolean
  #buffersRegistered: boolean
  readonly #ring: Ring
  readonly #arenaAddress: bigint
  readonly #registeredBytes: number
  readonly #pieces: Uint8Array
  /** What the structures of a registration point to. */
  readonly #memory: MappedMemory
  readonly #view: DataView
  readonly #structure = new Uint8Array(RSRC_UPDATE2.BYTES)
  readonly #structureView = new DataView(this.#structure.buffer)

  constructor(ring: Ring, filesMax: number, arenaAddress: bigint, registeredBytes: number) {
    const pieces = Math.ceil(registeredBytes / PIECE_BYTES)
    this.#ring = ring
    this.#arenaAddress = arenaAddress
    this.#registeredBytes = registeredBytes
    this.#pieces = new Uint8Array(pieces)
    this.#memory = mapMemory(Math.max(filesMax * 4, pieces * IOVEC.BYTES, 64))
    this.#view = new DataView(this.#memory.bytes.buffer)
    const tagged = (ring.features & IORING_FEAT.RSRC_TAGS) !== 0
    this.filesRegistered = tagged && filesMax > 0 && releasesSeparately(release()) && this.#registerNoFiles(filesMax)
    this.#buffersRegistered = tagged && pieces > 0 && this.#registerNoBuffers(pieces)
  }

  /** False once the kernel has refused to register memory. */
  get buffersRegistered(): boolean {
    return this.#buffersRegistered
  }

  /** True when the file may be named by its row from here on. */
  addFile(row: number, descriptor: number): boolean {
    return this.filesRegistered && this.#updateFile(row, descriptor, true) === 1
  }

  /** The completion `fileReleased` follows, once nothing refers to the file any more. */
  removeFile(row: number): void {
    const result = this.#updateFile(row, -1, false)
    assert(result === 1, `a registered file can be unregistered: ${result}`)
  }

  /** The registered buffer in which this memory lies, or -1. */
  bufferOf(arenaOffset: number, lengthBytes: number): number {
    if (!this.#buffersRegistered || arenaOffset + lengthBytes > this.#registeredBytes) return -1
    const piece = Math.floor(arenaOffset / PIECE_BYTES)
    if (arenaOffset + lengthBytes > (piece + 1) * PIECE_BYTES) return -1
    const state = this.#pieces[piece]
    if (state === PIECE.registered) return piece
    return state === PIECE.unused && this.#registerPiece(piece) ? piece : -1
  }

  dispose(): void {
    unmapMemory(this.#memory)
  }

  #registerNoFiles(filesMax: number): boolean {
    this.#memory.bytes.fill(0xff, 0, filesMax * 4)
    return this.#register(IORING_REGISTER.FILES2, filesMax)
  }

  #registerNoBuffers(pieces: number): boolean {
    this.#memory.bytes.fill(0, 0, pieces * IOVEC.BYTES)
    return this.#register(IORING_REGISTER.BUFFERS2, pieces)
  }

  #register(operation: number, count: number): boolean {
    this.#structure.fill(0)
    this.#structureView.setUint32(RSRC_REGISTER.nr, count, true)
    this.#structureView.setBigUint64(RSRC_REGISTER.data, this.#memory.address, true)
    return ioUringRegister(this.#ring.descriptor, operation, this.#structure, RSRC_REGISTER.BYTES) === 0
  }

  #updateFile(row: number, descriptor: number, tagged: boolean): number {
    this.#view.setInt32(0, descriptor, true)
    this.#view.setInt32(16, row, true)
    this.#view.setInt32(20, tagged ? COMPLETION.fileReleased : 0, true)
    if (!tagged) this.#view.setInt32(16, 0, true)
    return this.#update(IORING_REGISTER.FILES_UPDATE2, row, 16n)
  }

  #registerPiece(piece: number): boolean {
    const from = piece * PIECE_BYTES
    const lengthBytes = Math.min(PIECE_BYTES, this.#registeredBytes - from)
    this.#view.setBigUint64(IOVEC.base, this.#arenaAddress + BigInt(from), true)
    this.#view.setBigUint64(IOVEC.len, BigInt(lengthBytes), true)
    const registered = this.#update(IORING_REGISTER.BUFFERS_UPDATE, piece, 0n) === 1
    this.#pieces[piece] = registered ? PIECE.registered : PIECE.refused
    if (!registered) this.#refuseTheRest()
    return registered
  }

  /** Locked memory has run out: asking again for each other piece would only cost time. */
  #refuseTheRest(): void {
    for (let piece = 0; piece < this.#pieces.length; piece += 1) {
      if (this.#pieces[piece] === PIECE.unused) this.#pieces[piece] = PIECE.refused
    }
    this.#buffersRegistered = this.#pieces.includes(PIECE.registered)
  }

  /** The number of entries updated, or -errno. Tags lie that far into the memory; 0: there are none. */
  #update(operation: number, row: number, tagsAt: bigint): number {
    this.#structure.fill(0)
    this.#structureView.setUint32(RSRC_UPDATE2.offset, row, true)
    this.#structureView.setBigUint64(RSRC_UPDATE2.data, this.#memory.address, true)
    if (tagsAt > 0n) this.#structureView.setBigUint64(RSRC_UPDATE2.tags, this.#memory.address + tagsAt, true)
    this.#structureView.setUint32(RSRC_UPDATE2.nr, 1, true)
    return ioUringRegister(this.#ring.descriptor, operation, this.#structure, RSRC_UPDATE2.BYTES)
  }
}

/** Whether a kernel of that release lets go of each registered file by itself. */
export function releasesSeparately(kernelRelease: string): boolean {
  const [major = 0, minor = 0] = kernelRelease.split('.', 2).map((part) => Number.parseInt(part, 10))
  return major > SEPARATE_RELEASE[0] || (major === SEPARATE_RELEASE[0] && minor >= SEPARATE_RELEASE[1])
}
