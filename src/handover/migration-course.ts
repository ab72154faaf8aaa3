/**
 * What happened when during a live migration, and what it cost the guest: from the moment its processors stood still to
 * the moment they ran again. It is measured by the clock of whoever drives the migration, from the events of both QEMUs,
 * so that two hosts' clocks need not agree.
 */

export const MIGRATION_STEPS = [
  'looked',
  'checked',
  'copying',
  'stopped',
  'closing',
  'continued',
  'closed',
  'opened',
  'copied',
  'running',
  'verified',
  'way back',
  'disks back',
  'back',
] as const
export type MigrationStep = (typeof MIGRATION_STEPS)[number]

export interface MigrationMoment {
  readonly step: MigrationStep
  /** Since the migration began, or was taken up. */
  readonly atMs: number
}

/** All in milliseconds. */
export interface Downtime {
  /** The guest stood still. */
  readonly totalMs: number
  /** Of that, what the disks are responsible for: `settleMs` and `waitMs`. */
  readonly diskMs: number
  /** The source's QEMU waited for the guest's own requests, and for a flush, before anything else. */
  readonly settleMs: number
  /** From the close to the opening of the last disk. Most of it runs beside the rest of the memory's copy. */
  readonly handoverMs: number
  /** Only the disks were waited for: QEMU was not told to go on yet, or its memory was there and a disk was not open. */
  readonly waitMs: number
}

export class MigrationCourse {
  readonly #startedMs = performance.now()
  readonly #onStep: (moment: MigrationMoment) => void
  readonly #atMs = new Map<MigrationStep, number>()

  constructor(onStep: (moment: MigrationMoment) => void = () => undefined) {
    this.#onStep = onStep
  }

  get moments(): readonly MigrationMoment[] {
    return [...this.#atMs].map(([step, atMs]) => ({ step, atMs }))
  }

  /** `arrivedMs` is performance.now() of an event that says so; without it the step is reached now. */
  mark(step: MigrationStep, arrivedMs: number | null = null): void {
    if (this.#atMs.has(step)) return
    const atMs = Math.round(((arrivedMs ?? performance.now()) - this.#startedMs) * 10) / 10
    this.#atMs.set(step, atMs)
    this.#onStep({ step, atMs })
  }

  /** `stoppedMs` is performance.now() when the guest was told to have stopped; null where nobody here heard it. */
  downtime(stoppedMs: number | null): Downtime | null {
    const [held, continued, opened, copied, running] = (
      ['stopped', 'continued', 'opened', 'copied', 'running'] as const
    ).map((step) => this.#atMs.get(step))
    if (stoppedMs === null || held === undefined || continued === undefined) return null
    if (opened === undefined || copied === undefined || running === undefined) return null
    const stopped = stoppedMs - this.#startedMs
    const settleMs = rounded(held - stopped)
    const waitMs = rounded(continued - held + Math.max(0, opened - copied))
    return {
      totalMs: rounded(running - stopped),
      diskMs: rounded(settleMs + waitMs),
      settleMs,
      handoverMs: rounded(opened - held),
      waitMs,
    }
  }
}

function rounded(durationMs: number): number {
  return Math.round(durationMs * 10) / 10
}
