/**
 * The handover of one disk, step by step. Each step is a method that can be called by itself, by whoever has something of
 * his own to do in between (a hypervisor's switch-over), and again after a crash: a step that was done already is done.
 *
 *     preflight ─▶ standby ─▶ beginClose ─▶ awaitClosed ─▶ open ─▶ verify ─▶ awaitDrained (early only)
 *
 * A step that fails throws a `StepFailed` and has left each end in a state that the record knows; `wayBack` then sees to
 * it that exactly one end has the disk open, or says why nobody here can tell. The steps never decide who may open: the
 * daemons do, by record and locks, so that two orchestrators at once are as safe as one.
 */

import type { ControlClient, ExportStatus, Receipt } from '../client/index.ts'
import { formatEndpoint } from '../foundation/endpoint.ts'
import { faultPoint } from '../fault-points/fault-point.ts'
import type { Ending, Failure } from './ending.ts'
import { StepFailed, failureOf, hasCode } from './ending.ts'
import { ask, pause } from './errand.ts'
import type { PreflightReport } from './preflight.ts'
import { objections, preflight } from './preflight.ts'
import { Sampling } from './sampling.ts'
import { handedEarly, standingOf } from './standing.ts'
import type { Standing } from './standing.ts'
import { DEFAULT_TERMS } from './terms.ts'
import type { HandoverTerms } from './terms.ts'
import { Timeline } from './timeline.ts'
import type { Step } from './timeline.ts'
import { lookAt } from './view.ts'
import type { Disk, View } from './view.ts'
import { takeWayBack } from './way-back.ts'
import type { WayBackOptions } from './way-back.ts'

/** The daemon is asked to wait this long at a time, so that a daemon that died is noticed, and a cancel heard. */
const WAIT_SLICE_MS = 2_000
const LOOK_AGAIN_MS = 100
/** How long an opened destination is watched for its first answer. */
const FIRST_ANSWER_MS = 1_000

export class DiskHandover {
  readonly disk: Disk
  readonly terms: HandoverTerms
  readonly timeline: Timeline
  readonly sampling: Sampling
  readonly #signal: AbortSignal | undefined
  #nonce: string | null = null
  #receipt: Receipt | null = null
  #sourceSizeBytes: number | null = null

  /** `signal` cancels: the step that is under way fails, and the caller takes the way back. */
  constructor(
    disk: Disk,
    terms: Partial<HandoverTerms> = {},
    signal?: AbortSignal,
    onStep?: (step: Step, atMs: number) => void,
  ) {
    this.disk = disk
    this.terms = { ...DEFAULT_TERMS, ...terms }
    this.#signal = signal
    const urls = {
      source: formatEndpoint(disk.source.endpoint),
      destination: formatEndpoint(disk.destination.endpoint),
    }
    this.timeline = new Timeline(disk.name, urls, this.terms.early, onStep)
    this.sampling = new Sampling(disk, this.timeline)
  }

  /** Of the source's close; null until it is there. */
  get receipt(): Receipt | null {
    return this.#receipt
  }

  /** Both ends, now. */
  look(): Promise<View> {
    const { patienceMs } = this.terms
    return this.#step('look', () => lookAt(this.disk, { step: 'look', signal: this.#signal, patienceMs }))
  }

  /** How far it is, once neither end is in the middle of an opening. */
  async stand(): Promise<{ readonly view: View; readonly standing: Standing }> {
    const deadlineMs = performance.now() + (this.terms.timeoutMs ?? Infinity)
    for (;;) {
      const view = await this.look()
      const standing = standingOf(view)
      this.#remember(view)
      if (standing.kind !== 'opening' || performance.now() >= deadlineMs) return { view, standing }
      await pause(LOOK_AGAIN_MS, { step: 'look', signal: this.#signal })
    }
  }

  /** Everything that can be known before; the source is open, and only the sequence of its record is changed. */
  async preflight(view?: View): Promise<PreflightReport> {
    const seen = view ?? (await this.look())
    this.#remember(seen)
    const report = await this.#step('preflight', () =>
      preflight(this.disk, seen, this.terms, { step: 'preflight', signal: this.#signal, patienceMs: 0 }),
    )
    await this.#reached('checked')
    return report
  }

  /** As `preflight`, and a finding that refuses is a failure. */
  async passPreflight(view?: View): Promise<PreflightReport> {
    const report = await this.preflight(view)
    refuseUnready(report)
    return report
  }

  /** The destination waits to be opened, and gives out the nonce for the receipt where it wants one. */
  async standby(): Promise<void> {
    const status = await this.#step('standby', () =>
      this.#ask(this.disk.destination, 'standby', (daemon, signal) => daemon.standby(this.disk.name, { signal })),
    )
    this.#nonce = status.nonce
    await this.#reached('standby')
  }

  /** Returns once the source's gate is shut; of an early close, once the destination may open. */
  async beginClose(): Promise<void> {
    this.sampling.begin()
    await faultPoint('handover: before closing')
    this.timeline.mark('closing')
    const outcome = await this.#step('close', () => this.#close(false, 0))
    await faultPoint('handover: closing')
    if (outcome !== null) await this.#closed(outcome)
  }

  /**
   * The receipt; null of an early close, which the destination may open without. Follows a source that dies and comes
   * back: it finishes what it had begun.
   */
  async awaitClosed(): Promise<Receipt | null> {
    if (this.#receipt !== null) return this.#receipt
    if (this.terms.early && (await this.#isHandedEarly())) {
      await this.#reached('handed early')
      return null
    }
    return this.#awaitReceipt('close')
  }

  /** The destination opens the next generation. */
  async open(): Promise<ExportStatus> {
    await faultPoint('handover: before opening')
    this.timeline.mark('opening')
    const deadlineMs = performance.now() + (this.terms.timeoutMs ?? Infinity)
    for (;;) {
      const status = await this.#step('open', () => this.#openWithin(deadlineMs - performance.now()))
      if (status === null) continue
      this.sampling.destinationOpened()
      await this.#reached('opened')
      return status
    }
  }

  /**
   * A source that could not say any more whether it had closed, and was started again, not open: its receipt; or null,
   * with the source open again, where it had not closed.
   */
  async wakeSource(): Promise<Receipt | null> {
    try {
      const receipt = await this.#awaitReceipt('close')
      return receipt
    } catch (error) {
      if (!(error instanceof StepFailed) || error.failure.code !== 'wrong-state') throw error
    }
    const { timeoutMs } = this.terms
    const options = { timeoutMs: timeoutMs ?? WAIT_SLICE_MS }
    await this.#step('open the source', () =>
      this.#ask(
        this.disk.source,
        'open the source',
        (daemon, signal) => daemon.open(this.disk.name, options, { signal }),
        options.timeoutMs,
      ),
    )
    return null
  }

  /** That what the destination has open is what the source had, and that the source has it no more. */
  async verify(): Promise<ExportStatus> {
    const view = await this.look()
    const { source, destination } = view
    const fail = (message: string): never => {
      throw new StepFailed({ step: 'verify', code: 'wrong-state', message, problem: null })
    }
    if (!destination.answers) return fail(`the destination does not answer any more: ${destination.reason}`)
    const { status } = destination
    if (status.state !== 'open') return fail(`the destination is ${status.state}`)
    if (source.answers && source.status.state === 'open') return fail('the source has it open too')
    if (this.#sourceSizeBytes !== null && this.#sourceSizeBytes > status.size) {
      return fail(`the destination's image has ${status.size} bytes, the source's had ${this.#sourceSizeBytes}`)
    }
    if (this.#receipt !== null && status.generation <= this.#receipt.generation) {
      return fail(
        `generation ${status.generation} does not follow ${this.#receipt.generation}, which the receipt closes`,
      )
    }
    if (status.clients.length > 0) {
      await Promise.race([this.sampling.firstAnswer, pause(FIRST_ANSWER_MS, { step: 'verify', signal: this.#signal })])
    }
    await this.#reached('verified')
    return status
  }

  /** After an early handover: the source's receipt, or null where it has not drained in time. */
  async awaitDrained(): Promise<Receipt | null> {
    try {
      return this.#receipt ?? (await this.#awaitReceipt('drain'))
    } catch (error) {
      if (error instanceof StepFailed) return null
      throw error
    } finally {
      await this.#reached('drained')
    }
  }

  /** After a failure. Never rejects but for a bug: whatever it meets is in the ending. */
  async wayBack(failure: Failure, options: WayBackOptions = {}): Promise<Ending> {
    await this.#reached('way back')
    const { disk, terms, timeline } = this
    const receipt = this.#receipt
    const ending = await takeWayBack({ disk, patienceMs: terms.patienceMs, receipt, timeline }, failure, options)
    await faultPoint('handover: brought back')
    return ending
  }

  /** Ends the watching, and writes the ending into the timeline. */
  async finish(ending: Ending): Promise<Ending> {
    await this.sampling.end()
    this.timeline.ended(ending)
    return ending
  }

  /** One waiting for the receipt; null where the time ran out, or where it was not waited for. */
  async #close(wait: boolean, timeoutMs: number): Promise<Receipt | null> {
    const { early, unsubmitted, requests } = this.terms
    const options = { early, unsubmitted, requests, reason: 'handover', nonce: this.#nonce, wait, timeoutMs } as const
    try {
      const outcome = await this.#ask(
        this.disk.source,
        'close',
        (daemon, signal) => daemon.close(this.disk.name, options, { signal }),
        timeoutMs,
      )
      return outcome.done ? outcome.receipt : null
    } catch (error) {
      if (hasCode(error, 'still-draining')) return null
      throw error
    }
  }

  async #awaitReceipt(step: string): Promise<Receipt> {
    const { timeoutMs } = this.terms
    const deadlineMs = performance.now() + (timeoutMs ?? Infinity)
    for (;;) {
      const leftMs = deadlineMs - performance.now()
      const sliceMs = Math.round(Math.max(0, Math.min(WAIT_SLICE_MS, leftMs)))
      // An early close answers at once, however it is asked for: it is over when the source says so.
      const receipt = await this.#step(step, () => this.#close(true, sliceMs))
      if (receipt !== null) {
        await this.#closed(receipt)
        return receipt
      }
      if (performance.now() >= deadlineMs) {
        const message = `the source is still closing after ${String(timeoutMs)} ms`
        throw new StepFailed({ step, code: 'timed-out', message, problem: null })
      }
      await pause(LOOK_AGAIN_MS, { step, signal: this.#signal })
    }
  }

  async #closed(receipt: Receipt): Promise<void> {
    if (this.#receipt === null) this.timeline.closed(receipt)
    this.#receipt = receipt
    await this.#reached('closed')
  }

  /** A plain close that somebody else had begun is not an early one, whatever was asked for. */
  async #isHandedEarly(): Promise<boolean> {
    const { source, destination } = await this.look()
    return [source, destination].some((end) => {
      const record = end.answers ? end.ownership.record : null
      return record !== null && handedEarly(record)
    })
  }

  /**
   * Null where it waited in vain for something that may be over the next time. Never waits long at the daemon itself: an
   * opening that nobody wants any more would still open there whenever that became possible.
   */
  async #openWithin(leftMs: number): Promise<ExportStatus | null> {
    const sliceMs = Math.round(Math.max(0, Math.min(WAIT_SLICE_MS, leftMs)))
    // Where a record is shared it decides, and knows more than a receipt: an opening that came to nothing, for one.
    const receipt = this.#nonce === null ? null : this.#receipt
    const options = { receipt, timeoutMs: sliceMs, allowUnsafe: this.terms.allowUnsafe }
    const askedMs = performance.now()
    try {
      return await this.#ask(
        this.disk.destination,
        'open',
        (daemon, signal) => daemon.open(this.disk.name, options, { signal }),
        sliceMs,
      )
    } catch (error) {
      const waited = performance.now() - askedMs >= WAIT_SLICE_MS
      if (waited && hasCode(error, 'held-by-other', 'image-in-use')) return null
      throw error
    }
  }

  #remember({ source, destination }: View): void {
    if (source.answers && source.status.size > 0) this.#sourceSizeBytes = source.status.size
    if (source.answers && source.status.state === 'closed') this.#receipt ??= source.status.lastReceipt
    if (destination.answers) this.#nonce ??= destination.status.nonce
  }

  #ask<T>(
    client: ControlClient,
    step: string,
    question: (client: ControlClient, signal: AbortSignal) => Promise<T>,
    waitMs = 0,
  ): Promise<T> {
    const { patienceMs } = this.terms
    const callMs = Math.min(waitMs + Math.max(patienceMs, 5_000), 2 ** 31 - 1)
    return ask(client, question, { step, signal: this.#signal, patienceMs, callMs })
  }

  async #step<T>(step: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      throw new StepFailed(failureOf(step, error), error)
    }
  }

  async #reached(step: Step): Promise<void> {
    this.timeline.mark(step)
    await faultPoint(`handover: ${step}`)
  }
}

/** Throws the failure of a step where a finding refuses. */
export function refuseUnready(report: PreflightReport): void {
  if (report.ready) return
  const message = objections(report).join('; ')
  throw new StepFailed({ step: 'preflight', code: 'not-ready-to-move', message, problem: null })
}
