/**
 * A guest that remembers: it keeps a number of writes in flight, each of a number of its own to a block that has none,
 * sends again on the next connection what the last one did not answer, and reads everything back in the end. A block may
 * hold the number that was answered last or one that was sent after it; anything else is a lost or a resurrected write.
 */

import { blockNumber, NBD_ERRORS, numberedBlock } from './nbd-frontend.ts'
import type { NbdFrontend } from './nbd-frontend.ts'

const BLOCK_BYTES = 4_096
/** Coprime to the number of blocks, so that every block has its turn. */
const STRIDE = 37

interface Block {
  /** The newest number that was answered; 0 as long as there is none. */
  answered: number
  /** Sent and not answered. */
  pending: number | null
}

export interface LostWrite {
  readonly block: number
  /** What it must hold: one of these. */
  readonly expected: readonly number[]
  /** Undefined: not one number throughout. */
  readonly found: number | undefined
}

export class VerifyingWriter {
  readonly #blocks: Block[]
  #frontend: NbdFrontend
  #numbers = 0
  #turn = 0
  #pendingCount = 0
  #changed: () => void = () => undefined
  /** Writes that were answered, over all connections. */
  answeredCount = 0
  /** The longest that one write took, sending it again included. */
  longestMs = 0
  readonly #sinceMs = new Map<number, number>()

  constructor(frontend: NbdFrontend, blocksCount: number) {
    this.#frontend = frontend
    this.#blocks = Array.from({ length: blocksCount }, () => ({ answered: 0, pending: null }))
  }

  /** Sent and not answered. */
  get pendingCount(): number {
    return this.#pendingCount
  }

  /** Keeps `depth` writes in flight. `enough` once it is and all are answered; `lost` with the connection. */
  async write(depth: number, enough: () => boolean): Promise<'enough' | 'lost'> {
    const frontend = this.#frontend
    void frontend.ended.then(() => {
      this.#changed()
    })
    for (;;) {
      if (!frontend.isOpen) return 'lost'
      const finishing = enough()
      if (finishing && this.#pendingCount === 0) return 'enough'
      while (!finishing && this.#pendingCount < depth) this.#writeNext()
      await new Promise<void>((resolve) => {
        this.#changed = resolve
      })
    }
  }

  /** Goes on elsewhere, and sends again what was not answered. How many that were. */
  moveTo(frontend: NbdFrontend): number {
    this.#frontend = frontend
    const pending = this.#blocks.flatMap(({ pending: number }, index) => (number === null ? [] : [{ index, number }]))
    for (const { index, number } of pending.sort((one, other) => one.number - other.number)) this.#send(index, number)
    return pending.length
  }

  /** Reads every block that was written, on the connection of now. */
  async lostWrites(): Promise<LostWrite[]> {
    const lost: LostWrite[] = []
    for (const [block, { answered, pending }] of this.#blocks.entries()) {
      const expected = pending === null ? [answered] : [answered, pending]
      const found = blockNumber(await this.#frontend.read(block * BLOCK_BYTES, BLOCK_BYTES, 60_000))
      if (found === undefined || !expected.includes(found)) lost.push({ block, expected, found })
    }
    return lost
  }

  #writeNext(): void {
    do this.#turn = (this.#turn + STRIDE) % this.#blocks.length
    while (this.#blocks[this.#turn]?.pending !== null)
    this.#numbers += 1
    this.#sinceMs.set(this.#numbers, performance.now())
    this.#pendingCount += 1
    this.#send(this.#turn, this.#numbers)
  }

  #send(index: number, number: number): void {
    const block = this.#blocks[index]
    if (block === undefined) throw new Error(`there is no block ${index}`)
    block.pending = number
    const sentOn = this.#frontend
    void this.#frontend.write(index * BLOCK_BYTES, numberedBlock(number, BLOCK_BYTES)).reply.then(({ error }) => {
      // Refused by a host that goes: it stays unanswered until another one takes it.
      if (error === NBD_ERRORS.ESHUTDOWN || sentOn !== this.#frontend) return
      if (error !== 0) throw new Error(`write ${number} was answered with error ${error}`)
      this.#answered(block, number)
    })
  }

  #answered(block: Block, number: number): void {
    block.answered = number
    block.pending = null
    this.#pendingCount -= 1
    this.answeredCount += 1
    this.longestMs = Math.max(this.longestMs, performance.now() - (this.#sinceMs.get(number) ?? 0))
    this.#sinceMs.delete(number)
    this.#changed()
  }
}
