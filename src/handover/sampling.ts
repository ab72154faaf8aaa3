/**
 * Looks at both ends again and again while a handover runs, for its timeline: what is in flight, and when the destination
 * has answered its first request. It only looks, and what it cannot see is left out; the handover never waits for it. The
 * longer it takes the more seldom it looks, so that a close of hours does not make a timeline of millions of lines.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import type { ControlClient, ExportStatus } from '../client/index.ts'
import type { End } from './ending.ts'
import type { Timeline } from './timeline.ts'
import type { Disk } from './view.ts'

const INTERVAL_MS_MIN = 20
const SHARE_OF_ELAPSED = 0.02
const SOON_MS = 5
const SELDOM_MS = 250

export class Sampling {
  readonly #disk: Disk
  readonly #timeline: Timeline
  readonly #over = new AbortController()
  #running: Promise<unknown> | null = null
  /** What the destination had answered when it was last seen before its opening. */
  #answeredBefore: number | null = null
  #opened = false
  #seldom = false
  #firstAnswer: () => void = () => undefined
  /** Settles when the destination was seen to have answered a request after it opened. */
  readonly firstAnswer: Promise<void>

  constructor(disk: Disk, timeline: Timeline) {
    this.#disk = disk
    this.#timeline = timeline
    this.firstAnswer = new Promise((resolve) => {
      this.#firstAnswer = resolve
    })
  }

  begin(): void {
    this.#running ??= Promise.all([
      this.#watch('source', this.#disk.source),
      this.#watch('destination', this.#disk.destination),
    ])
  }

  /** Where somebody waits for the processors that looking takes, or for nothing that could be seen. */
  lookSeldom(seldom: boolean): void {
    this.#seldom = seldom
  }

  /** From now on the next request that the destination answers is looked for. */
  destinationOpened(): void {
    this.#opened = true
  }

  async end(): Promise<void> {
    this.#over.abort()
    await this.#running
  }

  async #watch(end: End, client: ControlClient): Promise<void> {
    const { signal } = this.#over
    const beganMs = performance.now()
    while (!signal.aborted) {
      // Whatever ends the looking must not end the handover.
      const status = await client.status(this.#disk.name, { signal }).catch(() => null)
      if (status !== null) this.#take(end, status)
      await sleep(this.#intervalMs(end, performance.now() - beganMs), undefined, { signal }).catch(() => undefined)
    }
  }

  #intervalMs(end: End, elapsedMs: number): number {
    const shareMs = elapsedMs * SHARE_OF_ELAPSED
    if (this.#seldom) return Math.max(SELDOM_MS, shareMs)
    const awaited = end === 'destination' && this.#opened && this.#timeline.at('first answer') === null
    return awaited ? SOON_MS : Math.max(INTERVAL_MS_MIN, shareMs)
  }

  #take(end: End, status: ExportStatus): void {
    const { totals, outstanding, state, holds } = status
    const answered = totals.reads + totals.writes + totals.flushes + totals.trims
    const heldBack = holds.reduce((sum, hold) => sum + hold.waiting, 0)
    this.#timeline.add({ end, atMs: this.#timeline.nowMs, state, outstanding, answered, heldBack })
    if (end !== 'destination') return
    if (state !== 'open') {
      this.#answeredBefore = answered
    } else if (this.#timeline.at('first answer') === null && answered > (this.#answeredBefore ?? answered)) {
      this.#timeline.mark('first answer')
      this.#firstAnswer()
    }
  }
}
