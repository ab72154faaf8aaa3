/**
 * What happened when during a handover, by the clock of whoever runs it: the steps as they were reached, what was in
 * flight at both ends in between, and the parts of the close as the source's receipt measures them. It is written down
 * as JSON, and drawn by timeline-drawing.ts. It knows no daemon.
 */

import type { ExportState, PhaseCounts, Receipt } from '../client/index.ts'
import type { End, Ending } from './ending.ts'

export const TIMELINE_VERSION = 1

/** In the order of a handover in which nothing fails; the last three are the way back. */
export const STEPS = [
  'begun',
  'looked',
  'checked',
  'standby',
  'closing',
  'handed early',
  'closed',
  'opening',
  'opened',
  'first answer',
  'verified',
  'drained',
  'way back',
  'destination closed',
  'brought back',
] as const
export type Step = (typeof STEPS)[number]

export interface Moment {
  readonly step: Step
  /** Since the handover began. */
  readonly atMs: number
}

/** One look at one end. */
export interface Sample {
  readonly end: End
  readonly atMs: number
  readonly state: ExportState
  readonly outstanding: PhaseCounts
  /** Requests answered since its daemon has had the export. */
  readonly answered: number
  /** Requests that wait for a predecessor's ranges. */
  readonly heldBack: number
}

/** A part of the close, from the receipt, laid out from the moment when the close was asked for. */
export interface Part {
  readonly name: 'drain' | 'sync' | 'record'
  readonly fromMs: number
  readonly toMs: number
}

export interface TimelineDocument {
  readonly version: typeof TIMELINE_VERSION
  readonly export: string
  readonly source: string
  readonly destination: string
  readonly early: boolean
  /** ISO 8601, UTC. */
  readonly beganAt: string
  readonly moments: readonly Moment[]
  readonly parts: readonly Part[]
  readonly samples: readonly Sample[]
  readonly ending: Ending | null
}

export class Timeline {
  readonly #name: string
  readonly #urls: Readonly<Record<End, string>>
  readonly #early: boolean
  readonly #beganAt = new Date()
  readonly #beganMs = performance.now()
  readonly #moments: Moment[] = []
  readonly #samples: Sample[] = []
  #receipt: Receipt | null = null
  #ending: Ending | null = null

  readonly #reached: (step: Step, atMs: number) => void

  /** `reached` is told each step. */
  constructor(
    name: string,
    urls: Readonly<Record<End, string>>,
    early: boolean,
    reached: (step: Step, atMs: number) => void = () => undefined,
  ) {
    this.#reached = reached
    this.#name = name
    this.#urls = urls
    this.#early = early
  }

  get nowMs(): number {
    return Math.round((performance.now() - this.#beganMs) * 10) / 10
  }

  /** When a step was last reached; null where it was not. */
  at(step: Step): number | null {
    return this.#moments.findLast((moment) => moment.step === step)?.atMs ?? null
  }

  mark(step: Step, atMs = this.nowMs): void {
    this.#moments.push({ step, atMs })
    this.#reached(step, atMs)
  }

  add(sample: Sample): void {
    this.#samples.push(sample)
  }

  closed(receipt: Receipt): void {
    this.#receipt = receipt
  }

  ended(ending: Ending): void {
    this.#ending = ending
  }

  get document(): TimelineDocument {
    return {
      version: TIMELINE_VERSION,
      export: this.#name,
      source: this.#urls.source,
      destination: this.#urls.destination,
      early: this.#early,
      beganAt: this.#beganAt.toISOString(),
      moments: [...this.#moments].sort((one, other) => one.atMs - other.atMs),
      parts: this.#parts(),
      samples: [...this.#samples].sort((one, other) => one.atMs - other.atMs),
      ending: this.#ending,
    }
  }

  /** Only where this run has asked for the close itself: else nobody here knows when it began. */
  #parts(): Part[] {
    const fromMs = this.at('closing')
    if (this.#receipt === null || fromMs === null) return []
    const { drain, sync, record } = this.#receipt.elapsedMs
    const ends = [fromMs, fromMs + drain, fromMs + drain + sync, fromMs + drain + sync + record]
    return (['drain', 'sync', 'record'] as const).map((name, index) => ({
      name,
      fromMs: tenths(ends[index] ?? 0),
      toMs: tenths(ends[index + 1] ?? 0),
    }))
  }
}

function tenths(durationMs: number): number {
  return Math.round(durationMs * 10) / 10
}
