/**
 * That an export is open, said in the record behind the gate. `opening` of the same generation keeps everybody else out
 * just as well, so no guest waits for it: whoever asked for the opening does, and who reads the record sees it a moment
 * later. Where the home does not take it it is asked again, as long as it would be true; what is served goes on.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { faultPoint } from '../fault-points/fault-point.ts'
import type { ExportContext } from './export-context.ts'
import type { HostedExport } from './hosted-export.ts'
import { firstWas } from './opening.ts'
import type { ChangeOutcome } from './record-keeper.ts'
import { RecordWait } from './record-wait.ts'

const RETRY_MS = 1_000

export class Announcement {
  readonly #context: ExportContext
  readonly #hosted: HostedExport
  #wait: RecordWait
  #made: Promise<void> = Promise.resolve()

  constructor(context: ExportContext, hosted: HostedExport) {
    this.#context = context
    this.#hosted = hosted
    this.#wait = new RecordWait(context, hosted)
  }

  /**
   * Settles when it is recorded, or when the home has not taken it: then it is tried again. Rejects with `held-by-other`
   * where somebody else has the image; the export is fenced then.
   */
  get made(): Promise<void> {
    return this.#made
  }

  get waitsBecause(): string | null {
    return this.#wait.reason
  }

  /** The state is `open`; the record may say `opening`. `admitting` settles when the gate is open. */
  begin(generation: number, admitting: Promise<void>): void {
    this.#wait = new RecordWait(this.#context, this.#hosted)
    this.#made = this.#announce(generation, admitting)
    // Nobody may be waiting for it.
    this.#made.catch(() => undefined)
  }

  async #announce(generation: number, admitting: Promise<void>): Promise<void> {
    await admitting
    await faultPoint('open: admitting')
    const failure = await this.#tryToRecord(generation)
    // Where somebody else has it, the fence has said so.
    if (failure !== null) void this.#askAgain(generation, failure).catch(() => undefined)
  }

  async #askAgain(generation: number, first: Error): Promise<void> {
    const wait = this.#wait
    try {
      for (let failure: Error | null = first; failure !== null; failure = await this.#tryToRecord(generation)) {
        wait.begin('it is served; that it is open', failure)
        await sleep(RETRY_MS, null, { ref: false })
        if (!this.#isDue) return
      }
      wait.end()
    } finally {
      wait.drop()
    }
  }

  /** What comes in between says more. */
  get #isDue(): boolean {
    return this.#hosted.state === 'open'
  }

  /** Null where the record says so, or something later; else why it is not known to. */
  async #tryToRecord(generation: number): Promise<Error | null> {
    if (!this.#isDue) return null
    const { keeper } = this.#hosted.ownership
    let outcome: ChangeOutcome
    try {
      outcome = await keeper.change((record) =>
        record.generation === generation && record.state === 'opening' ? { ...record, state: 'open' } : null,
      )
    } catch (error) {
      return error instanceof Error ? error : new Error(String(error))
    }
    if (outcome === 'lost' || outcome === 'superseded') {
      const refusal = firstWas(keeper.foundInstead)
      this.#hosted.fence(`ownership is lost: ${refusal.message}`)
      throw refusal
    }
    if (outcome === 'done') await faultPoint('open: open recorded')
    return null
  }
}
