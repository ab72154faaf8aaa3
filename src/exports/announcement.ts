/**
 * That an export is open, said in the record behind the gate. `opening` of the same generation keeps everybody else out
 * just as well, so no guest waits for it: whoever asked for the opening does, and who reads the record sees it a moment
 * later. Where the home cannot be reached it is asked again, as long as it would be true; what is served goes on.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { faultPoint } from '../fault-points/fault-point.ts'
import type { Refusal } from '../foundation/refusal.ts'
import type { ExportContext } from './export-context.ts'
import type { HostedExport } from './hosted-export.ts'
import { firstWas } from './opening.ts'
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
    return this.#hosted.state === 'open' ? this.#wait.reason : null
  }

  /** The gate is open, on a record that says `opening`. */
  begin(generation: number): void {
    this.#wait = new RecordWait(this.#context, this.#hosted)
    this.#made = this.#announce(generation)
    // Nobody may be waiting for it.
    this.#made.catch(() => undefined)
  }

  async #announce(generation: number): Promise<void> {
    await faultPoint('open: admitting')
    const unreachable = await this.#tryToRecord(generation)
    if (unreachable !== null) void this.#askAgain(generation, unreachable).catch(() => undefined)
  }

  async #askAgain(generation: number, why: Refusal): Promise<void> {
    const wait = this.#wait
    for (let unreachable: Refusal | null = why; unreachable !== null;) {
      wait.begin('it is served; that it is open', unreachable)
      await sleep(RETRY_MS, null, { ref: false })
      if (this.#wait !== wait || this.#hosted.state !== 'open') return
      unreachable = await this.#tryToRecord(generation)
    }
    wait.end()
  }

  /** Null where the record says so, or something later; else why it is not known to. */
  async #tryToRecord(generation: number): Promise<Refusal | null> {
    const { ownership } = this.#hosted
    try {
      const outcome = await ownership.keeper.change((record) =>
        // A close that has begun meanwhile has said more than that.
        record.generation === generation && record.state === 'opening' ? { ...record, state: 'open' } : null,
      )
      if (outcome === 'lost' || outcome === 'superseded') {
        const refusal = firstWas(await ownership.readNewest())
        this.#hosted.fence(`ownership is lost: ${refusal.message}`)
        throw refusal
      }
    } catch (error) {
      if (RecordWait.isReason(error)) return error
      throw error
    }
    await faultPoint('open: open recorded')
    return null
  }
}
