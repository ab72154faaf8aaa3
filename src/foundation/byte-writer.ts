/**
 * Writes big-endian integers and byte strings one after the other into memory that grows. For messages that are built
 * now and then; it allocates, so it has no place where every request passes.
 */

import { assert } from './assert.ts'

export class ByteWriter {
  #bytes: Uint8Array
  #view: DataView
  #length = 0

  constructor(capacityBytes = 256) {
    assert(capacityBytes > 0, 'a writer begins with some room')
    this.#bytes = new Uint8Array(capacityBytes)
    this.#view = new DataView(this.#bytes.buffer)
  }

  get lengthBytes(): number {
    return this.#length
  }

  uint16(value: number): this {
    const at = this.#advance(2)
    this.#view.setUint16(at, value)
    return this
  }

  uint32(value: number): this {
    const at = this.#advance(4)
    this.#view.setUint32(at, value)
    return this
  }

  uint64(value: bigint): this {
    const at = this.#advance(8)
    this.#view.setBigUint64(at, value)
    return this
  }

  bytes(value: Uint8Array): this {
    const at = this.#advance(value.length)
    this.#bytes.set(value, at)
    return this
  }

  zeroes(lengthBytes: number): this {
    this.#advance(lengthBytes)
    return this
  }

  /** A copy of all that was written since the last call; the writer is empty afterwards. */
  take(): Uint8Array {
    const taken = this.#bytes.slice(0, this.#length)
    this.#bytes.fill(0, 0, this.#length)
    this.#length = 0
    return taken
  }

  /**
   * Makes room behind what is written; returns where it begins. Room is always zeroes. It may replace memory and view,
   * so it is called before either is looked at.
   */
  #advance(lengthBytes: number): number {
    const at = this.#length
    const needed = at + lengthBytes
    if (needed > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(needed, this.#bytes.length * 2))
      grown.set(this.#bytes.subarray(0, at))
      this.#bytes = grown
      this.#view = new DataView(grown.buffer)
    }
    this.#length = needed
    return at
  }
}
