/**
 * A whole handover of one disk, from whatever state its ends are in to an ending: begun, or taken up where an earlier run
 * of whoever ran it was lost, or only reported where it is finished already. Every failure leads to the way back, but for
 * one: where the source has ended and the record says that the destination may open, it goes on.
 */

import { faultPoint } from '../fault-points/fault-point.ts'
import { DiskHandover, refuseUnready } from './disk-handover.ts'
import type { Ending, Failure } from './ending.ts'
import { StepFailed } from './ending.ts'
import type { PreflightReport } from './preflight.ts'
import type { Standing } from './standing.ts'
import type { HandoverTerms } from './terms.ts'
import type { Step, TimelineDocument } from './timeline.ts'
import { newestRecord, tell } from './view.ts'
import type { Disk, View } from './view.ts'

export interface HandoverOptions {
  readonly terms?: Partial<HandoverTerms>
  /** Cancels it: until the destination has opened that leads back to the source. */
  readonly signal?: AbortSignal
  /** Told each step as it is reached, in milliseconds since the handover began. */
  readonly onStep?: (step: Step, atMs: number) => void
}

export interface HandoverResult {
  readonly ending: Ending
  /** Null where it was not looked: the handover had been begun before. */
  readonly preflight: PreflightReport | null
  readonly timeline: TimelineDocument
}

export interface DryRun {
  /** How far it is now. */
  readonly standing: Standing
  /** Null where the source is not open. */
  readonly preflight: PreflightReport | null
  /** What a run would do, in this order. */
  readonly would: readonly string[]
}

export async function handOver(disk: Disk, options: HandoverOptions = {}): Promise<HandoverResult> {
  return new Handover(disk, options).run()
}

/** Changes nothing but the sequence of the source's record. Rejects with a `StepFailed` where it could not look. */
export async function rehearse(disk: Disk, { terms, signal }: HandoverOptions = {}): Promise<DryRun> {
  const handover = new DiskHandover(disk, terms, signal)
  const { view, standing } = await handover.stand()
  const preflight = standing.kind === 'start' ? await handover.preflight(view) : null
  return { standing, preflight, would: wouldDo(standing, preflight, handover.terms) }
}

class Handover {
  readonly #handover: DiskHandover
  #preflight: PreflightReport | null = null
  /** Something was changed by this run. */
  #begun = false

  constructor(disk: Disk, { terms, signal, onStep }: HandoverOptions) {
    this.#handover = new DiskHandover(disk, terms, signal, onStep)
  }

  async run(): Promise<HandoverResult> {
    const ending = await this.#handover.finish(await this.#ending())
    return { ending, preflight: this.#preflight, timeline: this.#handover.timeline.document }
  }

  async #ending(): Promise<Ending> {
    this.#handover.timeline.mark('begun')
    await faultPoint('handover: begun')
    try {
      const { view, standing } = await this.#handover.stand()
      this.#handover.timeline.mark('looked')
      await faultPoint('handover: looked')
      return await this.#from(standing, view)
    } catch (error) {
      if (!(error instanceof StepFailed)) throw error
      return this.#failed(error.failure)
    }
  }

  async #from(standing: Standing, view: View): Promise<Ending> {
    switch (standing.kind) {
      case 'finished':
        return this.#finished(view)
      case 'stuck':
        return this.#begun ? this.#back(failureOfStanding(standing.reason)) : stuckEnding(view, standing)
      case 'opening':
        throw new StepFailed(failureOfStanding('the destination is still opening it'))
      case 'start':
        this.#preflight = await this.#handover.preflight(view)
        refuseUnready(this.#preflight)
        return this.#closeAndOpen()
      case 'closing':
        return this.#closeAndOpen()
      case 'between':
        return this.#openThere()
      case 'asleep':
        return this.#wake()
    }
  }

  async #closeAndOpen(): Promise<Ending> {
    this.#begun = true
    await this.#handover.standby()
    await this.#handover.beginClose()
    await this.#handover.awaitClosed()
    return this.#open()
  }

  async #openThere(): Promise<Ending> {
    this.#begun = true
    await this.#handover.standby()
    this.#handover.sampling.begin()
    return this.#open()
  }

  /** The source was started again and does not have it open. */
  async #wake(): Promise<Ending> {
    this.#begun = true
    await this.#handover.standby()
    this.#handover.sampling.begin()
    if ((await this.#handover.wakeSource()) === null) return this.#closeAndOpen()
    return this.#open()
  }

  async #open(): Promise<Ending> {
    await this.#handover.open()
    const status = await this.#handover.verify()
    const receipt = this.#handover.terms.early ? await this.#handover.awaitDrained() : this.#handover.receipt
    const draining = receipt === null && this.#handover.terms.early
    const notes = draining ? ['the source is still draining: leave its daemon running'] : []
    const { generation } = status
    return { kind: 'handedOver', openAt: 'destination', generation, receipt, draining, already: false, notes }
  }

  async #failed(failure: Failure): Promise<Ending> {
    if (!this.#begun) return this.#unchanged(failure)
    // The source has ended; whatever it had recorded before decides whether the destination may open.
    if (failure.code === 'unreachable' && (failure.step === 'close' || failure.step === 'open the source')) {
      const onward = await this.#onward()
      if (onward !== null) return onward
    }
    return this.#back(failure)
  }

  async #onward(): Promise<Ending | null> {
    try {
      const { standing } = await this.#handover.stand()
      return standing.kind === 'between' ? await this.#open() : null
    } catch (error) {
      if (error instanceof StepFailed) return null
      throw error
    }
  }

  /** With the source open again, or where it could not be, with the destination open, or unclear. */
  #back(failure: Failure): Promise<Ending> {
    return this.#handover.wayBack(failure)
  }

  /** Nothing of ours was begun. */
  async #unchanged(failure: Failure): Promise<Ending> {
    const advice = this.#preflight === null ? [] : this.#preflight.findings.map(({ mend }) => mend)
    if (failure.code === 'cancelled') return { kind: 'unchanged', openAt: null, failure, advice: ['run it again'] }
    const view = await this.#handover.look()
    const openAt = openEnd(view)
    return { kind: 'unchanged', openAt, failure, advice }
  }

  async #finished(view: View): Promise<Ending> {
    const { destination } = view
    const generation = destination.answers ? destination.status.generation : 0
    const record = newestRecord(view)
    const draining = (record?.draining.length ?? 0) > 0
    const receipt = this.#handover.receipt
    return Promise.resolve({
      kind: 'handedOver',
      openAt: 'destination',
      generation,
      receipt,
      draining,
      already: true,
      notes: draining ? ['the source is still draining: leave its daemon running'] : [],
    })
  }
}

function stuckEnding(view: View, standing: Extract<Standing, { kind: 'stuck' }>): Ending {
  const failure = failureOfStanding(standing.reason)
  const { advice } = standing
  const openAt = openEnd(view)
  const everybodyAnswers = view.source.answers && view.destination.answers
  if (openAt !== null || everybodyAnswers) return { kind: 'unchanged', openAt, failure, advice }
  return { kind: 'unclear', openAt: null, failure, known: tell(view), advice }
}

/** The one end that is known to have it open; null where none is, or both. */
function openEnd({ source, destination }: View): 'source' | 'destination' | null {
  const atSource = source.answers && source.status.state === 'open'
  const atDestination = destination.answers && destination.status.state === 'open'
  if (atSource === atDestination) return null
  return atSource ? 'source' : 'destination'
}

function failureOfStanding(message: string): Failure {
  return { step: 'look', code: 'not-ready-to-move', message, problem: null }
}

function wouldDo(standing: Standing, preflight: PreflightReport | null, terms: HandoverTerms): string[] {
  const open = ['open at the destination', 'verify', ...(terms.early ? ['wait for the source to drain'] : [])]
  const close = ['standby at the destination', terms.early ? 'close the source early' : 'close the source']
  switch (standing.kind) {
    case 'start':
      return preflight?.ready === true ? [...close, ...open] : ['refuse: nothing would be changed']
    case 'closing':
      return ['follow the close that is under way', ...open]
    case 'between':
      return open
    case 'asleep':
      return ['ask the source for its receipt, or open it again and close it', ...open]
    case 'opening':
      return ['wait for the destination, which is opening it']
    case 'finished':
      return ['report that it is finished']
    case 'stuck':
      return [`refuse: ${standing.reason}`]
  }
}
