/**
 * Opening an image for writing, up to the moment when writes may be submitted: the descriptor, the rule, the locks, the
 * record. Whatever fails leaves nothing behind: no descriptor, no lock, no record that says more than is true.
 *
 *     open read-write, record read ─▶ rule asked ─▶ claim all generations but the draining ─▶ QEMU's locks
 *                     ─▶ record `opening g` ─▶ narrow to g, drop the receipt of an older generation
 *
 * From `opening g` on the image is ours: that keeps everybody else out just as `open` does, which is recorded behind the
 * gate (announcement.ts). But for an image that nobody has closed: there `open` is recorded first, because a repair of a
 * lost record goes back to the one before it, and that names somebody else (record-repair.ts).
 *
 * What somebody else still holds is asked for again, from the beginning, as long as the request says: a source that is
 * closing may have closed, and the image may have grown meanwhile. The swap against the record that was read sees to it
 * that of two who open at once one wins.
 */

import { faultPoint } from '../fault-points/fault-point.ts'
import { Refusal } from '../foundation/refusal.ts'
import { receiptProblem } from '../interlock/receipt.ts'
import type { ClearedBy, Receipt } from '../interlock/receipt.ts'
import type { GenerationLock } from '../ownership/generation-lock.ts'
import { claimGenerations } from '../ownership/generation-lock.ts'
import type { Clearing, DrainingEntry, Newest, OwnershipRecord, RecordHolder } from '../ownership/home.ts'
import { sequenceOf } from '../ownership/home.ts'
import { lockImage } from '../ownership/image-lock.ts'
import { decideOpening } from '../ownership/opening-rule.ts'
import type { OpeningDecision, OpeningQuestion } from '../ownership/opening-rule.ts'
import { errnoName } from '../posix/errno.ts'
import { refuseVoidClusterLocks } from './cluster-locks.ts'
import type { ExportContext } from './export-context.ts'
import type { OpenImage } from './image.ts'
import { closeImage, imageIdentity, openImage } from './image.ts'
import { imageOptions } from './image-options.ts'
import { OwnershipSide } from './ownership-side.ts'
import type { RecordAhead } from './ownership-side.ts'
import { RecordWait } from './record-wait.ts'
import { takeOver } from './takeover.ts'
import type { Fenced } from './takeover.ts'
import type { ExportDefinition } from './verbs.ts'

const INTERVAL_MS = 25
/** So long at the most an opening that waits for a close looks at the record more often than that. */
const KEEN_MS = 1_000
const AFTER_FENCE_MS = 5_000

export interface Opened {
  readonly image: OpenImage
  /** `opening` or `open`, and of our own. */
  readonly record: OwnershipRecord
}

export interface OpeningRequest {
  readonly definition: ExportDefinition
  readonly ownership: OwnershipSide
  readonly receipt: Receipt | null
  readonly takeover: boolean
  readonly awaitClose: boolean
  /** Codes of the preflight that the operator accepts. */
  readonly allowUnsafe: readonly string[]
  /** What this export's clients were told; an image that shrank is refused. 0 where nobody was told anything. */
  readonly knownSizeBytes: number
  /** How long to wait for somebody who closes, or for writes that have not cleared. */
  readonly timeoutMs: number
  /** Called with every image that was opened, before anything is decided by its record. */
  readonly found: (image: OpenImage) => void
  /** Turns true when the opening is not wanted any more. */
  readonly abandoned: () => boolean
}

/**
 * What one attempt came to: opened, or why not yet. `atOnce`: the predecessor has recorded how it goes on, so the next
 * attempt knows more, and needs no patience for it. `soon`: a close may be over at any moment.
 */
type Attempt = Opened | { readonly notYet: Refusal; readonly atOnce?: true; readonly soon?: true }

export function openForWriting(context: ExportContext, request: OpeningRequest): Promise<Opened> {
  return new Opening(context, request).run()
}

/** A read-only export has no generation: it only sees to it that nobody else writes, as far as programs ask. */
export async function claimForReading(
  context: ExportContext,
  { path }: ExportDefinition,
  image: OpenImage,
): Promise<void> {
  const locked = await lockImage(context.images, image.descriptor.number, 'read-only')
  if (locked.kind === 'busy') throw new Refusal('image-in-use', `${path} is in use: ${locked.detail}`)
}

class Opening {
  readonly #context: ExportContext
  readonly #request: OpeningRequest
  readonly #beganMs: number
  #deadlineMs: number
  #holder: Promise<RecordHolder> | null = null
  #fenced: Fenced | null = null
  #attempted = false
  /** Asked for before the image was opened, for the next attempt alone. */
  #ahead: RecordAhead | null = null

  constructor(context: ExportContext, request: OpeningRequest) {
    this.#context = context
    this.#request = request
    this.#beganMs = context.now()
    this.#deadlineMs = this.#beganMs + request.timeoutMs
  }

  async run(): Promise<Opened> {
    try {
      // While the image is looked at its token is made durable, and then the record read.
      void this.#ownHolder()
        .then(() => {
          if (!this.#attempted) this.#ahead = this.#request.ownership.readAhead()
        })
        .catch(() => undefined)
      // Before anything is opened for writing: that alone can change what is there (an overlay copies the file).
      await this.#context.stacks.pass(this.#request.definition, this.#request.allowUnsafe)
      for (;;) {
        this.#attempted = true
        const attempt = await this.#attempt()
        if ('image' in attempt) return attempt
        // What it had no use for is old by now.
        this.#ahead = null
        if (this.#request.abandoned()) throw attempt.notYet
        if (attempt.atOnce) continue
        if (this.#late) throw attempt.notYet
        await this.#pause(attempt.soon === true)
      }
    } catch (error) {
      // Where the home did not answer the record may name it all the same; not where it did, with what nobody understands.
      const unknown = RecordWait.isReason(error) && error.code !== 'record-unreadable'
      if (!unknown) await this.#forgetHolder()
      throw error
    }
  }

  /** Who asks together with the close is answered soon, by a look at nothing but the record. */
  async #pause(soon: boolean): Promise<void> {
    const { ownership } = this.#request
    const keen = soon && this.#context.now() < this.#beganMs + KEEN_MS && ownership.home.tellsSoon !== true
    if (keen) this.#ahead = await ownership.awaitChange(INTERVAL_MS)
    else await ownership.pause(INTERVAL_MS)
  }

  get #late(): boolean {
    return this.#context.now() >= this.#deadlineMs
  }

  async #attempt(): Promise<Attempt> {
    const { definition } = this.#request
    let image: OpenImage
    try {
      image = await openImage(this.#context.images, definition.path, 'write', imageOptions(definition))
    } catch (error) {
      // A block device is somebody's alone: whoever has it may be closing.
      if (error instanceof Refusal && error.code === 'image-in-use') return { notYet: error }
      throw error
    }
    let opened: Attempt | null = null
    try {
      opened = await this.#openOn(image)
      return opened
    } finally {
      if (opened === null || !('image' in opened)) await closeImage(this.#context.images, image)
    }
  }

  async #openOn(image: OpenImage): Promise<Attempt> {
    const { definition, ownership } = this.#request
    this.#context.claimImage(definition.name, image.facts)
    this.#request.found(image)
    refuseVoidClusterLocks(definition, image.facts)
    ownership.refuseRecordInDev(image.facts)
    refuseShrunken(definition, image, this.#request.knownSizeBytes)
    const newest = await this.#readNewest(image)
    await ownership.refuseLinks(image.facts, newest)
    const question = await ownership.question(newest, image.facts, this.#request)
    const decision = this.#decide(newest, question)
    switch (decision.act) {
      case 'refuse':
        throw OwnershipSide.heldBy(decision.code, decision.reason, newest)
      case 'fence':
        return this.#fence(newest, decision.against)
      case 'awaitClose': {
        const notYet = OwnershipSide.heldBy(decision.code, decision.reason, newest)
        if (!decision.lockProves || !this.#late) return { notYet, soon: true }
        return this.#claimAndPublish(image, newest, question, 'lock', notYet)
      }
      case 'awaitLock': {
        const notYet = OwnershipSide.heldBy(decision.code, decision.reason, newest)
        return this.#claimAndPublish(image, newest, question, 'lock', notYet)
      }
      case 'open':
        return this.#claimAndPublish(image, newest, question, decision.clearedBy, null)
    }
  }

  /**
   * What was read before the image was opened serves as well, once: the swap against it fails where it is too old by now.
   */
  #readNewest({ facts }: OpenImage): Promise<Newest> {
    const ahead = this.#ahead
    this.#ahead = null
    return ahead?.realPath === facts.realPath ? ahead.newest : this.#request.ownership.readNewest()
  }

  /** A fence that is done has answered every question, as long as nobody has written since. */
  #decide(newest: Newest, question: OpeningQuestion): OpeningDecision {
    if (this.#fenced === null || newest.kind === 'unreadable') return decideOpening(question)
    if (sequenceOf(newest) === this.#fenced.sequence) return { act: 'open', clearedBy: 'fence' }
    return { act: 'refuse', code: 'held-by-other', reason: 'the record was changed after the holder was fenced' }
  }

  async #fence(newest: Newest, against: RecordHolder): Promise<Attempt> {
    if (newest.kind !== 'record') throw new Refusal('held-by-other', 'there is no record to take over')
    const { home } = this.#request.ownership
    this.#fenced = await takeOver(this.#context, home, newest.record, await this.#ownHolder(), against)
    // What the fenced host had locked on shared storage comes free a little later than the host is gone.
    this.#deadlineMs = Math.max(this.#deadlineMs, this.#context.now() + AFTER_FENCE_MS)
    return { notYet: new Refusal('held-by-other', 'the holder was fenced, and nothing was opened yet') }
  }

  async #claimAndPublish(
    image: OpenImage,
    newest: Newest,
    question: OpeningQuestion,
    clearedBy: ClearedBy | null,
    busyRefusal: Refusal | null,
  ): Promise<Attempt> {
    const { definition, ownership, receipt } = this.#request
    if (receipt !== null) checkReceipt(receipt, definition, image, newest, ownership.home.shared)
    const draining = await this.#stillDraining(newest, question)
    const lock = await this.#claim(image, draining)
    if (typeof lock === 'string') {
      return { notYet: busyRefusal ?? new Refusal('image-in-use', `${definition.path} is in use: ${lock}`) }
    }
    await faultPoint('open: claimed')
    const opening = await this.#publish(image, newest, draining, clearedBy)
    if (opening instanceof Refusal) return { notYet: opening, atOnce: true }
    await this.#secure(lock, opening.generation)
    if (clearedBy !== null) await this.#recordOpen()
    return { image, record: this.#request.ownership.own }
  }

  /** Entries of the record that nothing known here proves to be over. */
  async #stillDraining(newest: Newest, question: OpeningQuestion): Promise<readonly DrainingEntry[]> {
    const draining = newest.kind === 'record' ? newest.record.draining : []
    const over = await Promise.all(draining.map(({ holder }) => this.#isOver(holder, question)))
    return draining.filter((_entry, index) => over[index] !== true)
  }

  /** By the fence of this opening, or by a reboot of this very host: its identity alone could be a clone's. */
  async #isOver(holder: RecordHolder, { rebootIsProof }: OpeningQuestion): Promise<boolean> {
    const fenced = this.#fenced?.against
    if (fenced?.host === holder.host && fenced.boot === holder.boot) return true
    return rebootIsProof && (await this.#context.host.kinship(holder)) === 'earlier-boot'
  }

  async #claim(image: OpenImage, draining: readonly DrainingEntry[]): Promise<GenerationLock | string> {
    const descriptor = image.descriptor.number
    const exceptions = draining.map(({ generation }) => generation)
    const claimed = await claimGenerations(this.#context.images, descriptor, exceptions)
    if (claimed.kind === 'busy') return 'another daemon has it open for writing, or its last writes have not cleared'
    if (claimed.kind === 'failed') throw new Refusal('image-io', `its locks failed: ${errnoName(claimed.errno)}`)
    const locked = await lockImage(this.#context.images, descriptor, 'write')
    if (locked.kind === 'busy') return locked.detail
    if (locked.kind === 'failed') throw new Refusal('image-io', `its locks failed: ${errnoName(locked.errno)}`)
    return claimed.lock
  }

  /** A refusal where the predecessor itself has written in between: nobody else has opened. */
  async #publish(
    image: OpenImage,
    newest: Newest,
    draining: readonly DrainingEntry[],
    clearedBy: ClearedBy | null,
  ): Promise<OwnershipRecord | Refusal> {
    const { definition, ownership, receipt } = this.#request
    const { keeper, home } = ownership
    const recorded = newest.kind === 'record' ? newest.record.generation : 0
    const generation = Math.max(recorded, receipt?.generation ?? 0) + 1
    const cleared: Clearing | null =
      clearedBy === null ? null : { generation: recorded, by: clearedBy, fence: this.#fenced?.report ?? null }
    await faultPoint('open: before opening is recorded')
    const outcome = await home.compareAndSwap(sequenceOf(newest), {
      imageId: ownership.imageId,
      image: imageIdentity(image.facts),
      generation,
      state: 'opening',
      holder: await this.#ownHolder(),
      closeReason: null,
      receipt: null,
      draining,
      intent: null,
      cleared,
    })
    const opening = outcome.won ? outcome.record : outcome.superseded
    if (opening === null) {
      const now = outcome.won ? newest : outcome.newest
      if (now.kind === 'record' && now.record.generation === recorded) return firstWas(now)
      throw firstWas(now)
    }
    keeper.take(opening)
    await faultPoint('open: opening recorded')
    if (this.#request.abandoned()) {
      throw new Refusal('export-fenced', `export '${definition.name}' was fenced while it opened`)
    }
    return opening
  }

  async #secure(lock: GenerationLock, generation: number): Promise<void> {
    // No receipt of an older generation may speak for this one.
    const dropping = this.#dropReceipt()
    // Whatever becomes of that: whoever closes the descriptor waits for the lock.
    dropping.catch(() => undefined)
    await this.#narrow(lock, generation)
    await dropping
  }

  async #recordOpen(): Promise<void> {
    const { keeper } = this.#request.ownership
    const published = await keeper.change((record) => ({ ...record, state: 'open' }))
    if (published !== 'done') throw firstWas(keeper.foundInstead)
    await faultPoint('open: open recorded')
  }

  async #narrow(lock: GenerationLock, generation: number): Promise<void> {
    const narrowed = await lock.narrow(generation)
    if (narrowed < 0) throw new Refusal('image-io', `the generation's lock failed: ${errnoName(narrowed)}`)
    await faultPoint('open: narrowed')
  }

  async #dropReceipt(): Promise<void> {
    await this.#context.host.receipts.drop(this.#request.definition.name)
    await faultPoint('open: old receipt dropped')
  }

  #ownHolder(): Promise<RecordHolder> {
    this.#holder ??= this.#newHolder()
    return this.#holder
  }

  async #newHolder(): Promise<RecordHolder> {
    await faultPoint('open: before the token')
    const holder = await this.#context.host.newHolder()
    await faultPoint('open: token left')
    return holder
  }

  /** A token that no record can name is forgotten. */
  async #forgetHolder(): Promise<void> {
    const holder = await this.#holder?.catch(() => null)
    if (!holder || this.#request.ownership.keeper.own?.holder.openToken === holder.openToken) return
    // What cannot be removed is a few bytes for ever, and no more than that.
    if (this.#fenced === null) await this.#context.host.forget(holder).catch(() => undefined)
  }
}

function refuseShrunken(definition: ExportDefinition, image: OpenImage, knownSizeBytes: number): void {
  const { sizeBytes } = image.facts
  if (sizeBytes >= knownSizeBytes) return
  throw new Refusal(
    'image-changed',
    `${definition.path} shrank from ${knownSizeBytes} to ${sizeBytes} bytes since its clients were told its size`,
  )
}

function checkReceipt(
  receipt: Receipt,
  definition: ExportDefinition,
  image: OpenImage,
  newest: Newest,
  isShared: boolean,
): void {
  const record = newest.kind === 'record' ? newest.record : null
  const recorded = record?.generation === receipt.generation ? record.receipt : null
  const problem = receiptProblem(receipt, {
    export: definition.name,
    sizeBytes: image.facts.sizeBytes,
    nonce: recorded?.nonce ?? null,
    generationMin: record?.generation ?? null,
  })
  if (problem !== null) throw new Refusal('receipt-mismatch', problem)
  const known = record?.generation ?? 0
  if (isShared && receipt.generation > known) {
    throw new Refusal(
      'receipt-mismatch',
      `the receipt closes generation ${receipt.generation}, and the record that this host sees knows of ${known} only: ` +
        'the hosts do not share one record',
    )
  }
}

/** Of two that open at once the slower one is told who was faster. */
export function firstWas(newest: Newest): Refusal {
  if (newest.kind !== 'record') return new Refusal('held-by-other', 'somebody else changed the record first')
  const { name, host } = newest.record.holder
  return OwnershipSide.heldBy('held-by-other', `${name} (${host}) was first`, newest)
}
