/**
 * The locks that say which generation may still have writes on their way. They are OFD write locks on the descriptor
 * that does the I/O, far behind the end of any image: generation g is the byte 2^62 + g. The kernel frees them when the
 * last reference to the open file goes, and a request in flight is such a reference, also after SIGKILL. So on one host a
 * free lock proves that the writes of its generation have cleared.
 *
 *     claim     the whole range [2^62, end), except the bytes of generations that are still draining
 *     narrow    only the byte of the generation that was published as opening
 *     release   by closing the descriptor, after everything that uses it is gone
 *     prove     asked through a fresh open file: nobody holds the byte
 *
 * Invariants: whoever holds the claim, or any part of it, knows that no generation outside the exceptions is held by
 * anybody else. A claim that fails leaves no lock behind. Nothing here waits: `busy` is an answer, and asking again is the
 * caller's timer. Whether a free lock proves anything across hosts is not decided here.
 */

import { runInTurn } from '../blocking/calls.ts'
import type { BlockingRunner } from '../blocking/calls.ts'
import type { ImageMark } from '../blocking/image-measurement.ts'
import { assert } from '../foundation/assert.ts'
import { ERRNO } from '../posix/errno.ts'
import { LOCK_FREE } from '../posix/locks.ts'

export const GENERATION_LOCK_BASE = 2n ** 62n
/** Of all lockable offsets, and so of the range that a claim covers. */
const LOCK_RANGE_END = 2n ** 63n
const TO_THE_END = 0n

/** What the holder of the claim may do with its lock next. */
export type ClaimOutcome =
  | { readonly kind: 'claimed'; readonly lock: GenerationLock }
  /** Another open file holds some generation. */
  | { readonly kind: 'busy' }
  | { readonly kind: 'failed'; readonly errno: number }

export type Proof =
  { readonly kind: 'free' } | { readonly kind: 'held' } | { readonly kind: 'failed'; readonly errno: number }

interface ByteRange {
  readonly start: bigint
  /** 0 reaches to the end. */
  readonly length: bigint
}

/** Tries to lock everything but the draining generations, on a descriptor that is open for writing. */
export async function claimGenerations(
  runner: BlockingRunner,
  descriptor: number,
  draining: readonly number[],
): Promise<ClaimOutcome> {
  const calls = rangesExcept(draining).map(
    (range) => ({ kind: 'lock', descriptor, lock: 'exclusive', ...range }) as const,
  )
  const result = await runInTurn(runner, calls)
  if (result === 0) return { kind: 'claimed', lock: new GenerationLock(runner, descriptor) }
  const undone = await runner.run({ kind: 'unlock', descriptor, start: GENERATION_LOCK_BASE, length: TO_THE_END })
  if (!isConflict(result)) return { kind: 'failed', errno: -result }
  return undone < 0 ? { kind: 'failed', errno: -undone } : { kind: 'busy' }
}

/**
 * Whether nobody but this open file holds the generation. After a close it must be asked through another open file than
 * the one that was closed: see `proveFreeByPath`.
 */
export async function proveFree(runner: BlockingRunner, descriptor: number, generation: number): Promise<Proof> {
  return proofBy(await runner.run({ kind: 'queryLock', descriptor, lock: 'exclusive', ...byteOf(generation) }))
}

/**
 * The same, through a file opened for this question only: of an image that this process has just closed. Fails where
 * another file is in its place by now, of which a free lock would prove nothing.
 */
export async function proveFreeByPath(runner: BlockingRunner, image: ImageMark, generation: number): Promise<Proof> {
  const range = byteOf(generation)
  return proofBy(await runner.run({ kind: 'queryLockByPath', image, lock: 'exclusive', ...range }))
}

/** A claim, held by a descriptor. It does not own the descriptor: closing that is what releases it. */
export class GenerationLock {
  readonly #runner: BlockingRunner
  readonly #descriptor: number
  #generation: number | null = null

  constructor(runner: BlockingRunner, descriptor: number) {
    this.#runner = runner
    this.#descriptor = descriptor
  }

  /** The generation it was narrowed to; null while it holds the whole claim. */
  get generation(): number | null {
    return this.#generation
  }

  /**
   * Lets go of everything but one generation, which must not be one of those left out of the claim. 0 or -errno; after a
   * failure more may be held than that byte, never less.
   */
  async narrow(generation: number): Promise<number> {
    assert(this.#generation === null, 'a generation lock is narrowed once')
    const descriptor = this.#descriptor
    const calls = rangesExcept([generation]).map((range) => ({ kind: 'unlock', descriptor, ...range }) as const)
    const result = await runInTurn(this.#runner, calls)
    if (result < 0) return result
    this.#generation = generation
    return 0
  }
}

function proofBy(answer: number): Proof {
  if (answer < 0) return { kind: 'failed', errno: -answer }
  return { kind: answer === LOCK_FREE ? 'free' : 'held' }
}

function isConflict(result: number): boolean {
  return result === -ERRNO.EAGAIN || result === -ERRNO.EACCES
}

function byteOf(generation: number): ByteRange {
  assert(Number.isSafeInteger(generation) && generation > 0, `${generation} is not a generation`)
  return { start: GENERATION_LOCK_BASE + BigInt(generation), length: 1n }
}

/** [2^62, end) without the bytes of these generations, in ascending order. */
function rangesExcept(generations: readonly number[]): readonly ByteRange[] {
  const holes = [...new Set(generations)].sort((a, b) => a - b).map((generation) => byteOf(generation).start)
  const ranges: ByteRange[] = []
  let start = GENERATION_LOCK_BASE
  for (const hole of holes) {
    if (hole > start) ranges.push({ start, length: hole - start })
    start = hole + 1n
  }
  assert(start < LOCK_RANGE_END, 'generations end before the lockable offsets do')
  ranges.push({ start, length: TO_THE_END })
  return ranges
}
