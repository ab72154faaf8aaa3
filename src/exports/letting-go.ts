/**
 * The end of a close at the image: the descriptor that did the I/O is closed, and then the lock of its generation is found
 * free through another open file. That one is opened before, by way of the descriptor: so it is of the very same image,
 * whatever its name leads to by now. Only where the kernel shows no descriptors it is asked by name, and another file
 * there proves nothing.
 */

import { present } from '../foundation/assert.ts'
import { proveFree, proveFreeByPath } from '../ownership/generation-lock.ts'
import type { Proof } from '../ownership/generation-lock.ts'
import { OwnedDescriptor } from '../posix/descriptor.ts'
import { ERRNO, errnoName } from '../posix/errno.ts'
import { OPEN } from '../posix/file.ts'
import type { ExportContext } from './export-context.ts'
import type { HostedExport } from './hosted-export.ts'
import { closeImage, markOf } from './image.ts'
import type { OpenImage } from './image.ts'

export class LettingGo {
  readonly #context: ExportContext
  readonly #hosted: HostedExport
  /** Detached from the engine and not closed yet. */
  #detached: OpenImage | null = null
  /** What the lock is asked through. */
  #fresh: OwnedDescriptor | null = null
  #waitsBecause: string | null = null

  constructor(context: ExportContext, hosted: HostedExport) {
    this.#context = context
    this.#hosted = hosted
  }

  /** Why nothing can be proved now; null where nothing stands in the way but the lock. */
  get waitsBecause(): string | null {
    return this.#waitsBecause
  }

  /** The image is the engine's no more. */
  take(image: OpenImage | null): void {
    this.#detached = image
  }

  async close(): Promise<void> {
    const image = this.#detached
    this.#detached = null
    if (image === null) return
    if (!this.#hosted.definition.readOnly) await this.#openAgain(image)
    await closeImage(this.#context.images, image)
  }

  /** Whether the lock is free. A read-only export has none. */
  async prove(): Promise<boolean> {
    if (this.#hosted.definition.readOnly) return true
    const proof = await this.#ask()
    this.#waitsBecause = proof.kind === 'failed' ? `the image is closed; its lock ${noProof(proof.errno)}` : null
    // What cannot be asked any more is asked by name from now on.
    if (proof.kind !== 'held') await this.#closeFresh()
    return proof.kind === 'free'
  }

  /** However the close has ended: nothing stays open. */
  async end(): Promise<void> {
    await this.close()
    await this.#closeFresh()
  }

  async #openAgain({ descriptor }: OpenImage): Promise<void> {
    const path = `/proc/self/fd/${descriptor.number}`
    const fresh = await this.#context.images.run({ kind: 'open', path, flags: OPEN.readOnly, mode: 0 })
    if (fresh >= 0) this.#fresh = new OwnedDescriptor(fresh)
  }

  #ask(): Promise<Proof> {
    const { facts, generation } = this.#hosted
    const { images } = this.#context
    if (this.#fresh !== null) return proveFree(images, this.#fresh.number, generation)
    return proveFreeByPath(images, markOf(present(facts, 'the facts of an image that was open')), generation)
  }

  async #closeFresh(): Promise<void> {
    const fresh = this.#fresh
    this.#fresh = null
    if (fresh !== null) await this.#context.images.run({ kind: 'close', descriptor: fresh.release() })
  }
}

function noProof(errno: number): string {
  if (errno === ERRNO.ESTALE) return 'cannot be asked for: another file is in its place, put the image back'
  return `cannot be asked for: ${errnoName(errno)}`
}
