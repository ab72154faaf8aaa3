/**
 * A guest without a guest: it writes numbered blocks, several at once and without end, over one connection at a time; when
 * it is moved to another server it reissues there what was never answered, as every frontend does. It knows of each block
 * which number was answered last, so that at the end a single stale, lost or torn block is found, and named.
 *
 * Each lane has blocks of its own and at most one write under way: a block must hold what was last answered, or what is
 * under way.
 */

import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { eventually } from './eventually.ts'
import { blockNumber, connectFrontend, numberedBlock } from './nbd-frontend.ts'
import type { NbdFrontend, ServerAddress } from './nbd-frontend.ts'
import type { Scratch } from './scratch.ts'

const BLOCK_BYTES = 4_096

export interface VerifiedWriterOptions {
  readonly exportName?: string
  /** Of each lane, after an answer: many writers at once would else have the machine to themselves. */
  readonly pauseMs?: number
}

interface Lane {
  readonly blocks: readonly number[]
  next: number
  /** Sent and never answered. */
  pending: { readonly block: number; readonly number: number } | null
}

export class VerifiedWriter {
  readonly #scratch: Scratch
  readonly exportName: string
  readonly #pauseMs: number
  readonly #lanes: readonly Lane[]
  /** By block: the number that was answered last. */
  readonly #answered = new Map<number, number>()
  #frontend: NbdFrontend | null = null
  #number = 0
  #stopping = false
  answers = 0

  constructor(
    scratch: Scratch,
    blocksCount: number,
    lanesCount: number,
    { exportName = 'vda', pauseMs = 0 }: VerifiedWriterOptions = {},
  ) {
    this.#scratch = scratch
    this.exportName = exportName
    this.#pauseMs = pauseMs
    this.#lanes = Array.from({ length: lanesCount }, (_, lane) => ({
      blocks: Array.from({ length: blocksCount }, (_unused, block) => block).filter(
        (block) => block % lanesCount === lane,
      ),
      next: 0,
      pending: null,
    }))
  }

  /** Leaves the server where it was, without a word, and goes on at this one: first with what was never answered. */
  async moveTo(address: ServerAddress): Promise<void> {
    this.#frontend?.drop()
    const frontend = await connectFrontend(this.#scratch, address, this.exportName)
    this.#frontend = frontend
    for (const lane of this.#lanes) void this.#run(lane, frontend)
  }

  /** Waits until that many more writes were answered. */
  async progress(count: number): Promise<void> {
    const wanted = this.answers + count
    await eventually(`${count} more answers`, () => this.answers >= wanted, { timeoutMs: 30_000 })
  }

  /** Writes nothing new, and waits for the answers of everything that is under way. */
  async settle(timeoutMs = 30_000): Promise<void> {
    this.#stopping = true
    await eventually('all answers', () => this.#lanes.every(({ pending }) => pending === null), { timeoutMs })
  }

  /** Blocks of the file that hold neither what was last answered nor what is under way. */
  badBlocks(path: string): string[] {
    return this.badBlocksIn(readFileSync(path))
  }

  /** The same of an image's bytes, wherever they were read. */
  badBlocksIn(image: Buffer): string[] {
    const pending = new Map(
      this.#lanes.flatMap((lane) =>
        lane.pending === null ? [] : [[lane.pending.block, lane.pending.number] as const],
      ),
    )
    return [...this.#answered].flatMap(([index, number]) => {
      const found = blockNumber(image.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES))
      if (found === number || (found !== undefined && found === pending.get(index))) return []
      return [`${this.exportName}: block ${index} holds ${found ?? 'a mixture'}, and ${number} was answered`]
    })
  }

  async #run(lane: Lane, frontend: NbdFrontend): Promise<void> {
    while (this.#frontend === frontend) {
      if (lane.pending === null) {
        if (this.#stopping) return
        lane.next = (lane.next + 1) % lane.blocks.length
        this.#number += 1
        lane.pending = { block: lane.blocks[lane.next] ?? 0, number: this.#number }
      }
      const { block, number } = lane.pending
      const { reply } = frontend.write(block * BLOCK_BYTES, numberedBlock(number))
      const { error } = await reply
      if (this.#frontend !== frontend) return
      // Refused: it stays to be sent elsewhere.
      if (error !== 0) return
      this.#answered.set(block, number)
      lane.pending = null
      this.answers += 1
      if (this.#pauseMs > 0) await sleep(this.#pauseMs)
    }
  }
}
