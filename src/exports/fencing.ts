/**
 * The end of an export that is not orderly: from one moment on nothing of it is submitted, and the image is let go of as
 * soon as what was submitted has cleared. The fence takes effect at once and never waits; tidying up follows by itself, and
 * whoever wants the export in another state waits for that. A fenced generation is never reported closed.
 */

import { WorkerGone } from '../plane-link/data-worker.ts'
import type { Closing } from './closing.ts'
import type { ExportContext } from './export-context.ts'
import type { ExportLife } from './export-life.ts'
import type { HostedExport } from './hosted-export.ts'
import { LeftEntry } from './left-entry.ts'
import type { ServedImage } from './served-image.ts'

export type FenceCode = 'export-fenced' | 'sync-failed' | 'worker-died'

/** What a fence comes in between of. Each lets go of what it holds itself. */
export interface UnderWay {
  readonly opening: Promise<void> | null
  readonly closing: Closing | null
}

export class Fencing {
  readonly #context: ExportContext
  readonly #hosted: HostedExport
  readonly #life: ExportLife
  readonly #image: ServedImage
  readonly #leftEntry: LeftEntry
  #code: FenceCode = 'export-fenced'
  #count = 0
  #tidied: Promise<void> = Promise.resolve()

  constructor(context: ExportContext, hosted: HostedExport, life: ExportLife, image: ServedImage) {
    this.#context = context
    this.#hosted = hosted
    this.#life = life
    this.#image = image
    this.#leftEntry = new LeftEntry(context, hosted)
  }

  /** What those are told who wait for something that the fence has ended. */
  get code(): FenceCode {
    return this.#code
  }

  /** How often it was fenced. */
  get count(): number {
    return this.#count
  }

  /** Settles when the image is let go of; at once where there was no fence. */
  get tidied(): Promise<void> {
    return this.#tidied
  }

  fence(reason: string, code: FenceCode, underWay: UnderWay): void {
    this.#code = code
    this.#count += 1
    this.#hosted.data.allowGeneration(0)
    this.#life.to('fenced', reason)
    underWay.closing?.fault(reason)
    this.#tidied = this.#tidyUp(underWay)
  }

  /** Takes the entry of that generation out of the record once it is quiet. */
  leftEntry(generation: number): void {
    this.#leftEntry.begin(generation)
  }

  /** Settles when nothing of it is under way. */
  async end(): Promise<void> {
    await this.#tidied
    await this.#leftEntry.end()
  }

  async #tidyUp({ opening, closing }: UnderWay): Promise<void> {
    const { data, ownership, predecessor } = this.#hosted
    // Durable as soon as it can be; the image waits for none of them.
    const marks = [this.#mark()]
    try {
      await this.#refuseRequests()
      if (opening !== null) {
        await opening.catch(() => undefined)
        // It may have parked them meanwhile, and have recorded a generation.
        marks.push(this.#mark())
        await this.#refuseRequests()
      }
      await closing?.settled
      await predecessor.end()
      if (data.placement !== null) await this.#image.drop()
    } catch (error) {
      if (!(error instanceof WorkerGone)) throw error
    }
    await Promise.all(marks)
    await ownership.recordFence()
    if (closing?.early === true) this.#leftEntry.begin(this.#life.generation)
  }

  /** A run that comes after this one is to know, also where the record cannot say so, or is not written in time. */
  async #mark(): Promise<void> {
    const { name, ownership } = this.#hosted
    const { own } = ownership.keeper
    if (own === null || own.state === 'closed') return
    try {
      await this.#context.host.markFenced(own.holder)
    } catch (error) {
      this.#context.log.error({ export: name, error: String(error) }, 'that it is fenced could not be kept here')
    }
  }

  async #refuseRequests(): Promise<void> {
    const { data } = this.#hosted
    if (data.placement !== null) await data.setGate({ reads: 'refuse', writes: 'refuse' })
  }
}
