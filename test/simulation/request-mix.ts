/**
 * What clients of the simulation ask for: requests that overlap a lot, aligned or not, small and now and then large, and
 * among them some that deserve an error whatever happens. Everything follows from the seed of the run.
 */

import { SeededRandom } from '../support/seeded-random.ts'
import { COMMAND, ERROR, FLAG } from '../support/simulated-frontend.ts'

/** One request, and the NBD error it deserves; 0 for a good one. */
export interface RequestMixture {
  readonly fields: {
    readonly command: number
    readonly flags: number
    readonly offset: number
    /** -1: that of the payload. */
    readonly length: number
    readonly payload: Uint8Array | undefined
  }
  readonly deserved: number
}

/** Payloads are taken from here: two are hardly ever alike. */
export const NOISE = noise(256 * 1024)

export class RequestMix {
  readonly #random: SeededRandom
  readonly #partBytes: number

  constructor(random: SeededRandom, partBytes: number) {
    this.#random = random
    this.#partBytes = partBytes
  }

  next(readOnly: boolean): RequestMixture {
    const random = this.#random
    if (random.chance(0.08)) return this.#bad(readOnly)
    const command = random.pick([0, 0, 1, 1, 1, 1, 3, 4, 5, 6, 6])
    let flags: number = random.chance(0.2) ? FLAG.FUA : 0
    if (command === COMMAND.FLUSH) {
      return { fields: { command, flags: 0, offset: 0, payload: undefined, length: 0 }, deserved: 0 }
    }
    const { offset, length } = this.#someRange()
    if (command === COMMAND.WRITE_ZEROES) {
      if (random.chance(0.4)) flags |= FLAG.NO_HOLE
      if (random.chance(0.3)) flags |= FLAG.FAST_ZERO
    }
    const payload = command === COMMAND.WRITE ? this.#payload(length) : undefined
    const isWrite = command === COMMAND.WRITE || command === COMMAND.TRIM || command === COMMAND.WRITE_ZEROES
    return { fields: { command, flags, offset, length, payload }, deserved: readOnly && isWrite ? ERROR.EPERM : 0 }
  }

  #bad(readOnly: boolean): RequestMixture {
    const random = this.#random
    const beyond = this.#partBytes - random.between(0, 600)
    switch (random.between(1, 6)) {
      case 1: {
        const payload = this.#payload(random.between(601, 20_000))
        const fields = { command: COMMAND.WRITE, flags: 0, offset: beyond, payload, length: -1 }
        return { fields, deserved: readOnly ? ERROR.EPERM : ERROR.ENOSPC }
      }
      case 2: {
        const payload = this.#payload(random.between(1, 3000))
        const fields = { command: COMMAND.WRITE, flags: 0x80, offset: 0, payload, length: -1 }
        return { fields, deserved: ERROR.EINVAL }
      }
      case 3: {
        const fields = { command: COMMAND.READ, flags: 0, offset: beyond, length: 700, payload: undefined }
        return { fields, deserved: ERROR.EINVAL }
      }
      case 4: {
        const command = random.pick([7, 8, 99, 255, 256, 65535])
        return { fields: { command, flags: 0, offset: 0, length: 512, payload: undefined }, deserved: ERROR.EINVAL }
      }
      case 5: {
        const fields = { command: COMMAND.WRITE, flags: 0, offset: 512, length: 0, payload: undefined }
        return { fields, deserved: readOnly ? ERROR.EPERM : ERROR.EINVAL }
      }
      default: {
        const fields = { command: COMMAND.TRIM, flags: FLAG.NO_HOLE, offset: 0, length: 512, payload: undefined }
        return { fields, deserved: ERROR.EINVAL }
      }
    }
  }

  /** Most of them small and in few places, so that they overlap; aligned, unaligned, and now and then large. */
  #someRange(): { readonly offset: number; readonly length: number } {
    const random = this.#random
    if (random.chance(0.1)) {
      const offset = random.between(0, this.#partBytes - 1)
      return { offset, length: random.between(1, this.#partBytes - offset) }
    }
    const unit = random.pick([1, 512, 512, 4096])
    const places = Math.floor(8192 / unit)
    const offset = random.between(0, places - 1) * unit
    return { offset, length: random.between(1, Math.min(4, places)) * (unit === 1 ? random.between(1, 1500) : unit) }
  }

  #payload(length: number): Uint8Array {
    const from = this.#random.between(0, NOISE.length - length)
    return NOISE.subarray(from, from + length)
  }
}

function noise(lengthBytes: number): Uint8Array {
  const random = new SeededRandom(0)
  return Uint8Array.from({ length: lengthBytes }, () => random.between(0, 255))
}
