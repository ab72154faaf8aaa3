/**
 * Reads big-endian integers and byte strings from a piece of memory, front to back. Running out is not an exception but
 * `undefined`, because what is read here was sent by somebody else. A read that fails moves nothing.
 */

export class ByteReader {
  readonly #bytes: Uint8Array
  readonly #view: DataView
  #at = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  get remainingBytes(): number {
    return this.#bytes.length - this.#at
  }

  uint16(): number | undefined {
    const at = this.#take(2)
    return at === undefined ? undefined : this.#view.getUint16(at)
  }

  uint32(): number | undefined {
    const at = this.#take(4)
    return at === undefined ? undefined : this.#view.getUint32(at)
  }

  uint64(): bigint | undefined {
    const at = this.#take(8)
    return at === undefined ? undefined : this.#view.getBigUint64(at)
  }

  /** A view of the next bytes, not a copy. */
  bytes(lengthBytes: number): Uint8Array | undefined {
    const at = this.#take(lengthBytes)
    return at === undefined ? undefined : this.#bytes.subarray(at, at + lengthBytes)
  }

  #take(lengthBytes: number): number | undefined {
    if (lengthBytes > this.remainingBytes) return undefined
    const at = this.#at
    this.#at += lengthBytes
    return at
  }
}
