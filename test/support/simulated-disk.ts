/**
 * A disk in memory that behaves as badly as a real one is allowed to. It has a volatile cache: what was written is read
 * back at once, but only a durable write or a sync makes it survive a power cut. A logical block is never torn; a write
 * of several blocks may be. It knows no time and no requests: `SimulatedEngine` decides when a block lands.
 *
 * Fault model of a power cut: every block that is not stable keeps its old bytes or has its newest ones, each block for
 * itself; a block that was overwritten while volatile may also have kept what the cache had evicted in between.
 */

import { assert } from '../../src/foundation/assert.ts'
import type { SeededRandom } from './seeded-random.ts'

const EVICTION_CHANCE = 0.2

export class SimulatedDisk {
  readonly sizeBytes: number
  readonly blockBytes: number
  /** What a read returns. */
  readonly #current: Uint8Array
  /** What certainly survives. */
  readonly #stable: Uint8Array
  readonly #volatileBlocks = new Set<number>()
  readonly #random: SeededRandom

  constructor(sizeBytes: number, blockBytes: number, random: SeededRandom) {
    assert(sizeBytes % blockBytes === 0, 'a disk is whole blocks')
    this.sizeBytes = sizeBytes
    this.blockBytes = blockBytes
    this.#current = new Uint8Array(sizeBytes)
    this.#stable = new Uint8Array(sizeBytes)
    this.#random = random
  }

  /** Fills the disk, durably. */
  format(bytes: Uint8Array): void {
    this.#current.set(bytes)
    this.#stable.set(this.#current)
    this.#volatileBlocks.clear()
  }

  read(position: number, into: Uint8Array): void {
    into.set(this.#current.subarray(position, position + into.length))
  }

  /** A copy of what a read of the whole disk returns. */
  contents(): Uint8Array {
    return this.#current.slice()
  }

  /** One block lands in the cache. */
  land(position: number, bytes: Uint8Array): void {
    assert(position % this.blockBytes === 0 && bytes.length === this.blockBytes, 'whole blocks land')
    const block = position / this.blockBytes
    if (this.#volatileBlocks.has(block) && this.#random.chance(EVICTION_CHANCE)) this.#stabilise(block)
    this.#current.set(bytes, position)
    this.#volatileBlocks.add(block)
  }

  /** The blocks of a range become stable, as they are. */
  stabilise(position: number, lengthBytes: number): void {
    const end = (position + lengthBytes) / this.blockBytes
    for (let block = position / this.blockBytes; block < end; block += 1) {
      if (this.#volatileBlocks.delete(block)) this.#stabilise(block)
    }
  }

  sync(): void {
    for (const block of this.#volatileBlocks) this.#stabilise(block)
    this.#volatileBlocks.clear()
  }

  /** The power goes and comes back. */
  powerCut(): void {
    for (const block of this.#volatileBlocks) if (this.#random.chance(0.5)) this.#stabilise(block)
    this.#volatileBlocks.clear()
    this.#current.set(this.#stable)
  }

  #stabilise(block: number): void {
    const start = block * this.blockBytes
    this.#stable.set(this.#current.subarray(start, start + this.blockBytes), start)
  }
}
