/**
 * The image that an export's worker does I/O on: which one, and its change from the descriptor of a standby to the one
 * that is open for writing and back. It claims nothing and knows no state; a descriptor is its own from the moment it is
 * given until it is closed or taken.
 */

import { closeImage, openImage } from './image.ts'
import type { DataSide } from './data-side.ts'
import type { ExportContext } from './export-context.ts'
import type { ImageFacts, OpenImage } from './image.ts'
import { imageOptions } from './image-options.ts'
import type { ExportDefinition } from './verbs.ts'

export class ServedImage {
  readonly #context: ExportContext
  readonly #definition: ExportDefinition
  readonly #data: DataSide
  readonly #found: (facts: ImageFacts) => Promise<void>
  #facts: ImageFacts | null = null
  #forWriting = false

  /** `found` is called with each image that was opened, before it is served. It may refuse it. */
  constructor(
    context: ExportContext,
    definition: ExportDefinition,
    data: DataSide,
    found: (facts: ImageFacts) => Promise<void>,
  ) {
    this.#context = context
    this.#definition = definition
    this.#data = data
    this.#found = found
  }

  /** Of the image that was served last. */
  get facts(): ImageFacts | null {
    return this.#facts
  }

  async openForReading(): Promise<OpenImage> {
    const mode = this.#definition.readOnly ? 'read-only' : 'standby'
    const image = await openImage(this.#context.images, this.#definition.path, mode, imageOptions(this.#definition))
    try {
      this.#context.claimImage(this.#definition.name, image.facts)
      await this.#found(image.facts)
      await this.#data.attachFile(image, 0)
    } catch (error) {
      if (this.#data.file !== image && image.descriptor.open) await closeImage(this.#context.images, image)
      throw error
    }
    this.#facts = image.facts
    return image
  }

  /**
   * The standby's descriptor gives way to the new one; reads that are under way finish first. Not before the record is
   * written, however long that takes: it delays nobody's reads.
   */
  async replace(image: OpenImage, generation: number): Promise<void> {
    try {
      // The worker takes its orders in turn.
      const [, before] = await Promise.all([this.#data.setGate({ reads: 'park', writes: 'park' }), this.#take()])
      this.#forWriting = true
      await Promise.all([this.#data.attachFile(image, generation), this.#close(before)])
      this.#facts = image.facts
    } catch (error) {
      if (this.#data.file !== image && image.descriptor.open) await closeImage(this.#context.images, image)
      throw error
    }
  }

  /** After an opening that failed late: what is open for writing is let go of, what a standby reads stays. */
  async dropWritable(): Promise<void> {
    if (this.#forWriting) await this.dropParked()
  }

  /** For a standby whose image may be another one by now: what is asked of it meanwhile waits. */
  async dropParked(): Promise<void> {
    if (this.#data.file === null) return
    await this.#data.setGate({ reads: 'park', writes: 'park' })
    await this.drop()
  }

  /** Waits for what is submitted, takes the file from the engine, and closes it. */
  async drop(): Promise<void> {
    const image = await this.#take()
    this.#forWriting = false
    await this.#close(image)
  }

  /** From the engine, once what is submitted has cleared. */
  async #take(): Promise<OpenImage | null> {
    if (this.#data.file === null) return null
    await this.#data.drain()
    return this.#data.detachFile()
  }

  async #close(image: OpenImage | null): Promise<void> {
    if (image !== null) await closeImage(this.#context.images, image)
  }
}
