/**
 * Emptying a daemon: every export is closed, as many at once as asked, and one report says what became of each. It is
 * nothing but closes, so it can be asked for again at any time: a close that is under way is joined, one that has ended
 * answers the same receipt.
 *
 * 1. `complete` is said only where every export is closed, handed over, or has nothing of this host open, and that is
 *    looked at again when the report is made: what was opened meanwhile is not complete.
 * 2. An export that cannot close keeps nobody from closing: it holds one of the places of `parallel` only for a while.
 * 3. When the time is over the report is made; the closes go on, and those that wait for a place still get it.
 */

import { LIMITS } from '../config/limits.ts'
import { eachAtOnce } from '../foundation/at-once.ts'
import { Refusal } from '../foundation/refusal.ts'
import type { Receipt } from '../interlock/receipt.ts'
import type { OwnershipRecord } from '../ownership/home.ts'
import { isThisHost } from '../ownership/kinship.ts'
import { handedEarly } from '../ownership/opening-rule.ts'
import type { ExportContext } from './export-context.ts'
import type { HostedExport } from './hosted-export.ts'
import { plainClose } from './plain-close.ts'
import { describeExport } from './status.ts'
import type { CloseOptions, EvacuatedExport, EvacuationOptions, EvacuationReport } from './verbs.ts'
import { within } from './within.ts'

/** How long a close that does not end keeps others from beginning. */
const PLACE_KEPT_MS = 5_000

export class Evacuation {
  readonly #context: ExportContext
  readonly #exportsNow: () => readonly HostedExport[]
  readonly #options: EvacuationOptions

  /** `exportsNow` are those of the daemon at the time that it is called. */
  constructor(context: ExportContext, exportsNow: () => readonly HostedExport[], options: EvacuationOptions) {
    this.#context = context
    this.#exportsNow = exportsNow
    this.#options = options
  }

  async run(): Promise<EvacuationReport> {
    const { log, now } = this.#context
    const startedAt = new Date().toISOString()
    const beganMs = now()
    const departures = this.#exportsNow().map((hosted) => new Departure(this.#context, hosted, this.#options, beganMs))
    log.info({ exports: departures.length, ...this.#options }, 'evacuation: every export is closed')
    await within(this.#depart(departures), this.#options.timeoutMs)
    const exports = await Promise.all([...departures, ...this.#comers(departures)].map((one) => one.describe()))
    const elapsedMs = rounded(now() - beganMs)
    const outcomes = exports.map(({ outcome }) => outcome)
    const complete = !outcomes.includes('notClosed')
    const quiet = complete && !outcomes.includes('handedOver')
    const left = exports.filter(({ outcome }) => outcome === 'notClosed').map((one) => one.export)
    log.info({ complete, quiet, elapsedMs, left }, 'evacuation: the report is made')
    return { complete, quiet, startedAt, elapsedMs, exports }
  }

  /** Settles when the last one has gone. Never rejects. */
  async #depart(departures: readonly Departure[]): Promise<void> {
    const gone: Promise<void>[] = []
    const places = this.#options.parallel ?? LIMITS.exportsMax
    await eachAtOnce(departures, places, async (departure) => {
      const going = departure.go()
      gone.push(going)
      await within(going, PLACE_KEPT_MS)
    })
    await Promise.all(gone)
  }

  /** Exports that were added meanwhile: they are named too, or the daemon would seem empty. */
  #comers(departures: readonly Departure[]): readonly Departure[] {
    const known = new Set(departures.map(({ hosted }) => hosted))
    return this.#exportsNow()
      .filter((hosted) => !known.has(hosted))
      .map((hosted) => new Departure(this.#context, hosted, this.#options, this.#context.now()))
  }
}

type DepartureEnd =
  | { readonly kind: 'closed'; readonly receipt: Receipt }
  | { readonly kind: 'handedOver' }
  | { readonly kind: 'idle' }
  | { readonly kind: 'failed'; readonly refusal: Refusal }

/** One export on its way out. */
class Departure {
  readonly hosted: HostedExport
  readonly #context: ExportContext
  readonly #options: EvacuationOptions
  readonly #originMs: number
  #beganMs: number | null = null
  #endedMs: number | null = null
  #end: DepartureEnd | null = null

  constructor(context: ExportContext, hosted: HostedExport, options: EvacuationOptions, originMs: number) {
    this.#context = context
    this.hosted = hosted
    this.#options = options
    this.#originMs = originMs
  }

  async go(): Promise<void> {
    this.#beganMs = this.#context.now()
    try {
      this.#end = await this.#leave()
    } catch (error) {
      this.#end = { kind: 'failed', refusal: this.#refusalOf(error) }
    }
    this.#endedMs = this.#context.now()
  }

  /** What has become of it by now. */
  async describe(): Promise<EvacuatedExport> {
    const { name, state, generation } = this.hosted
    const beganMs = this.#sinceOrigin(this.#beganMs)
    const endedMs = this.#sinceOrigin(this.#endedMs)
    const facts = { export: name, state, generation, beganMs, endedMs }
    const end = this.#endByNow()
    const nothing = { receipt: null, problem: null }
    switch (end.kind) {
      case 'closed':
        return { ...facts, ...nothing, outcome: 'closed', receipt: end.receipt }
      case 'handedOver':
      case 'idle':
        return { ...facts, ...nothing, outcome: end.kind }
      case 'failed': {
        const { outstanding } = await describeExport(this.#context, this.hosted)
        const problem = { code: end.refusal.code, detail: end.refusal.message, outstanding }
        return { ...facts, ...nothing, outcome: 'notClosed', problem }
      }
    }
  }

  async #leave(): Promise<DepartureEnd> {
    await this.hosted.openingEnded()
    const { early, unsubmitted, requests } = this.#options
    const close: CloseOptions = { ...plainClose('handover'), unsubmitted, requests }
    if (this.hosted.state === 'standby') return this.#leaveStandby(close)
    if (early && (await this.#handOver(close))) return { kind: 'handedOver' }
    const outcome = await this.hosted.close(close)
    if (outcome.done) return { kind: 'closed', receipt: outcome.receipt }
    throw new Refusal('still-draining', `export '${this.hosted.name}' is still ${outcome.status.state}`)
  }

  /** False where it has to be closed in the ordinary way: not every export can be handed over before it is quiet. */
  async #handOver(close: CloseOptions): Promise<boolean> {
    try {
      await this.hosted.close({ ...close, early: true })
    } catch (error) {
      if (error instanceof Refusal && error.code === 'early-refused') return false
      throw error
    }
    return this.#isHandedOver
  }

  get #isHandedOver(): boolean {
    const { newest } = this.hosted.ownership
    return this.hosted.state === 'closing' && newest !== null && handedEarly(newest)
  }

  /** Nothing is open here; but the last run of this host may have left something, or a receipt. */
  async #leaveStandby(close: CloseOptions): Promise<DepartureEnd> {
    const { name, definition, ownership } = this.hosted
    try {
      const outcome = await this.hosted.close(close)
      if (outcome.done) return { kind: 'closed', receipt: outcome.receipt }
    } catch (error) {
      if (!(error instanceof Refusal) || error.code !== 'wrong-state') throw error
    }
    if (definition.readOnly || this.hosted.facts === null) return { kind: 'idle' }
    const newest = await ownership.readNewest()
    if (newest.kind !== 'record') return { kind: 'idle' }
    await this.#refuseDraining(newest.record)
    if (newest.record.state === 'closed') return { kind: 'idle' }
    const { holder, generation, state } = newest.record
    if (!isThisHost(await this.#context.host.kinship(holder))) return { kind: 'idle' }
    const detail = `an earlier run of this host left generation ${generation} of export '${name}' ${state}`
    throw new Refusal('wrong-state', `${detail}, and its writes may still land: 'open' it, then evacuate again`)
  }

  /** What a run of this host has handed over early and not closed may still land. */
  async #refuseDraining({ draining }: OwnershipRecord): Promise<void> {
    for (const { holder, generation } of draining) {
      if (!isThisHost(await this.#context.host.kinship(holder))) continue
      const detail = `generation ${generation} of export '${this.hosted.name}', of this host, is still draining`
      throw new Refusal('still-draining', detail)
    }
  }

  #endByNow(): DepartureEnd {
    const { state, stateReason } = this.hosted
    const left = state === 'closed' || state === 'standby'
    const end = this.#end
    switch (end?.kind) {
      case 'failed':
        if (state === 'fenced') break
        return end
      case 'closed':
      case 'idle':
        if (left) return end
        break
      case 'handedOver': {
        const done = this.#doneSince()
        if (done !== null) return done
        break
      }
      case undefined:
        if (left && this.#beganMs === null) return { kind: 'idle' }
    }
    if (state === 'fenced') return failed('export-fenced', `it is fenced: ${stateReason ?? 'no reason is known'}`)
    return this.#notClosed()
  }

  /** What was handed over may have become quiet meanwhile, or may have been opened again. */
  #doneSince(): DepartureEnd | null {
    const { state, lastReceipt } = this.hosted
    if (state === 'closed' && lastReceipt !== null) return { kind: 'closed', receipt: lastReceipt }
    return this.#isHandedOver ? { kind: 'handedOver' } : null
  }

  #notClosed(): DepartureEnd {
    const { name, state } = this.hosted
    if (this.#end !== null) return failed('wrong-state', `export '${name}' was opened again while others were closed`)
    if (this.#beganMs === null) return failed('still-draining', 'its close has not begun: others have its place')
    return failed('still-draining', `it is still ${state}: the close goes on`)
  }

  #refusalOf(error: unknown): Refusal {
    if (error instanceof Refusal) return error
    this.#context.log.error({ export: this.hosted.name, error: String(error) }, 'evacuation: a close broke')
    return new Refusal('internal', error instanceof Error ? error.message : String(error))
  }

  #sinceOrigin(atMs: number | null): number | null {
    return atMs === null ? null : rounded(atMs - this.#originMs)
  }
}

function failed(code: Refusal['code'], detail: string): DepartureEnd {
  return { kind: 'failed', refusal: new Refusal(code, detail) }
}

function rounded(durationMs: number): number {
  return Math.round(durationMs * 10) / 10
}
