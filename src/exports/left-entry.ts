/**
 * The draining entry of a generation that was handed over early and fenced before its close had ended: no close takes it
 * out of the record any more, and whoever has opened since holds its ranges back. Once the image is let go of here and the
 * generation's lock is found free, nothing of it is on its way, and the entry goes. That is no close: there is no receipt.
 * Where nobody has opened yet the record is still that of the handover, and stays as it is until somebody has.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { proveFreeByPath } from '../ownership/generation-lock.ts'
import type { ExportContext } from './export-context.ts'
import type { HostedExport } from './hosted-export.ts'
import { markOf } from './image.ts'
import { isDraining } from './record-keeper.ts'

const INTERVAL_MS = 500

export class LeftEntry {
  readonly #context: ExportContext
  readonly #hosted: HostedExport
  #ended = new AbortController()
  #watching: Promise<void> = Promise.resolve()

  constructor(context: ExportContext, hosted: HostedExport) {
    this.#context = context
    this.#hosted = hosted
  }

  /** After the image was let go of. Goes on by itself, in whatever state the export is by then. */
  begin(generation: number): void {
    this.#ended.abort()
    const { signal } = (this.#ended = new AbortController())
    this.#watching = this.#watch(generation, signal)
  }

  /** Settles when nothing of it is under way. */
  async end(): Promise<void> {
    this.#ended.abort()
    await this.#watching
  }

  async #watch(generation: number, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        if (await this.#isGone(generation)) return
      } catch (error) {
        const fields = { export: this.#hosted.name, generation, error: String(error) }
        this.#context.log.debug(fields, 'the entry of a fenced generation could not be taken away yet')
      }
      await sleep(INTERVAL_MS, null, { signal, ref: false }).catch(() => null)
    }
  }

  async #isGone(generation: number): Promise<boolean> {
    const { facts, name, ownership } = this.#hosted
    if (facts === null) return true
    const newest = await ownership.home.readNewest()
    if (newest.kind !== 'record') return false
    if (!isDraining(newest.record, generation)) return true
    if (newest.record.generation === generation) return false
    const proof = await proveFreeByPath(this.#context.images, markOf(facts), generation)
    if (proof.kind !== 'free') return false
    await ownership.keeper.removeDraining(generation)
    this.#context.log.info({ export: name, generation }, 'the entry of a fenced generation is taken away: it is quiet')
    return true
  }
}
