/**
 * 64-bit numbers as the two words of a kernel structure. Positions and addresses are below 2^53, so they are exact
 * numbers; the halves are small integers to the JavaScript engine, the whole often is not.
 */

const WORD = 0x1_0000_0000

export const low = (value: number): number => value | 0
export const high = (value: number): number => Math.floor(value / WORD)

/** Where the arena begins, for the address of any offset in it. */
export class BaseAddress {
  readonly #value: number

  constructor(address: bigint) {
    this.#value = Number(address)
  }

  low(offset: number): number {
    return (this.#value + offset) | 0
  }

  high(offset: number): number {
    return Math.floor((this.#value + offset) / WORD)
  }
}
