/**
 * The way of an export into standby, and from there to being open: the image, the data plane, the state. What the locks
 * and the record want is opening.ts; here is what an opening means for whoever is connected. Whatever cannot be finished
 * ends in standby or fenced, never in between; its reason is kept for the status.
 */

import { assert } from '../foundation/assert.ts'
import { Refusal } from '../foundation/refusal.ts'
import { WorkerGone } from '../plane-link/data-worker.ts'
import type { ExportContext } from './export-context.ts'
import type { ExportLife } from './export-life.ts'
import type { HostedExport } from './hosted-export.ts'
import type { ImageFacts } from './image.ts'
import { Announcement } from './announcement.ts'
import { claimForReading, openForWriting } from './opening.ts'
import type { ServedImage } from './served-image.ts'
import type { OpenOptions } from './verbs.ts'

export class WayIn {
  readonly #context: ExportContext
  readonly #hosted: HostedExport
  readonly #life: ExportLife
  readonly #image: ServedImage
  readonly #located: (facts: ImageFacts) => void
  readonly #announcement: Announcement
  #isEnding = false

  /** `located` is called with each image that an opening has found. */
  constructor(
    context: ExportContext,
    hosted: HostedExport,
    life: ExportLife,
    image: ServedImage,
    located: (facts: ImageFacts) => void,
  ) {
    this.#context = context
    this.#hosted = hosted
    this.#life = life
    this.#image = image
    this.#located = located
    this.#announcement = new Announcement(context, hosted)
  }

  /** Of the latest opening. Settles when the record says that it is open, or is not known to. */
  get announced(): Promise<void> {
    return this.#announcement.made
  }

  /** What an export that is open waits for, and nobody who uses it; null where there is nothing. */
  get waitsBecause(): string | null {
    return this.#announcement.waitsBecause
  }

  /** The daemon ends: an opening that is under way is not wanted any more. */
  abandon(): void {
    this.#isEnding = true
  }

  /** In standby: attaches to a worker, and serves what may be read. Rejects with the image's refusal. */
  async enterStandby(reason: string | null): Promise<void> {
    const { data, definition } = this.#hosted
    assert(this.#life.state === 'standby', 'an export is put into standby in standby')
    const waiting = reason ?? `${definition.path} has not answered yet`
    this.#life.reason = data.file === null ? waiting : reason
    if (data.placement === null) await this.#attach()
    try {
      if (data.file === null) await this.#image.openForReading()
      if (this.#life.reason === waiting) this.#life.reason = reason
    } catch (error) {
      this.#life.reason = reason ?? (error instanceof Error ? error.message : String(error))
      throw error
    }
    await this.#life.applyGate()
  }

  /** Where nothing is open for writing. Rejects with why it was not opened; it is in standby then, or fenced. */
  async open(options: OpenOptions): Promise<void> {
    this.#life.to('opening', null)
    try {
      if (this.#hosted.data.placement === null) await this.#attach()
      if (this.#hosted.definition.readOnly) await this.#openReadOnly()
      else await this.#openForWriting(options)
    } catch (error) {
      await this.#openingFailed(error)
      throw error
    }
  }

  async #openForWriting(options: OpenOptions): Promise<void> {
    const { data, definition, facts, ownership, predecessor } = this.#hosted
    const known = facts?.sizeBytes ?? 0
    const { image, record } = await openForWriting(this.#context, {
      definition,
      ownership,
      receipt: options.receipt,
      takeover: options.takeover,
      awaitClose: options.awaitClose ?? false,
      allowUnsafe: options.allowUnsafe ?? [],
      knownSizeBytes: known,
      timeoutMs: options.timeoutMs ?? 0,
      found: (found) => {
        this.#located(found.facts)
      },
      abandoned: () => this.#life.state !== 'opening' || this.#isEnding,
    })
    await this.#image.replace(image, record.generation)
    this.#life.generation = record.generation
    this.#life.lastReceipt = null
    if (known !== 0 && known !== image.facts.sizeBytes) await data.disconnect()
    await predecessor.begin(record)
    this.#refuseUnlessOpening()
    data.allowGeneration(record.generation)
    // A guest waits for the gate, and nobody for what is told of it.
    const admitting = this.#life.applyGate('open')
    this.#life.to('open', null)
    this.#announcement.begin(record.generation, admitting)
    await admitting
  }

  async #openReadOnly(): Promise<void> {
    const image = this.#hosted.data.file ?? (await this.#image.openForReading())
    await claimForReading(this.#context, this.#hosted.definition, image)
    this.#refuseUnlessOpening()
    this.#life.to('open', null)
    await this.#life.applyGate()
  }

  #refuseUnlessOpening(): void {
    const { name, ownership } = this.#hosted
    const { newest } = ownership
    if (this.#life.state !== 'opening') {
      throw new Refusal('export-fenced', `export '${name}' was fenced while it opened`)
    }
    if (newest !== null && ownership.keeper.isLost(newest)) {
      throw new Refusal('held-by-other', `the image of export '${name}' is being taken over by somebody else`)
    }
  }

  async #openingFailed(error: unknown): Promise<void> {
    if (this.#life.state !== 'opening') return
    const reason = error instanceof Error ? error.message : String(error)
    if (error instanceof WorkerGone) {
      this.#hosted.fence(reason)
      return
    }
    this.#life.to('standby', reason)
    await this.#image.dropWritable()
    await this.#hosted.ownership.withdraw(this.#life.generation)
    await this.enterStandby(reason).catch((second: unknown) => {
      this.#context.log.debug({ export: this.#hosted.name, error: String(second) }, 'standby has no image')
    })
  }

  async #attach(): Promise<void> {
    const { data, facts, workerIndex } = this.#hosted
    await data.attach(await this.#context.place(workerIndex), facts?.sizeBytes ?? 0)
  }
}
