/**
 * One export of this daemon: its lifecycle, its image, and what each verb does to them. The state is the lifecycle's; what
 * is open is the data side's; the two are changed only here, one verb at a time (`close` and `fence` may come in between,
 * because they must never wait for anything else).
 *
 * 1. Writes are admitted only in `open`, and only after image, locks and record are in place.
 * 2. Whatever cannot be finished ends in `standby` or `fenced`, never in between; its reason is kept for the status.
 * 3. A fence takes effect at once; tidying up (waiting for what is submitted, closing the image) follows by itself.
 */

import { assert, present } from '../foundation/assert.ts'
import { Refusal } from '../foundation/refusal.ts'
import { Lifecycle, acceptsNegotiation, gateSettings } from '../interlock/lifecycle.ts'
import type { ExportState, GateChoices } from '../interlock/lifecycle.ts'
import type { Receipt } from '../interlock/receipt.ts'
import type { OwnershipRecord, RecordHome } from '../ownership/home.ts'
import { lockImage } from '../ownership/image-lock.ts'
import { UnsharedHome } from '../ownership/none.ts'
import { WorkerGone } from '../plane-link/data-worker.ts'
import type { DataWorker } from '../plane-link/data-worker.ts'
import type { CloseEnd } from './close-run.ts'
import { Closing } from './closing.ts'
import { DataSide } from './data-side.ts'
import type { ExportContext } from './export-context.ts'
import type { ImageFacts, OpenImage } from './image.ts'
import { closeImage, openImage } from './image.ts'
import { imageOptions } from './image-options.ts'
import { openForWriting } from './opening.ts'
import { describeExport } from './status.ts'
import type { CloseOptions, CloseOutcome, ExportDefinition, ExportStatus, OpenOptions } from './verbs.ts'

const SHUTDOWN: CloseOptions = {
  early: false,
  unsubmitted: 'drain',
  requests: 'park',
  disconnect: false,
  reason: 'shutdown',
  nonce: null,
  wait: true,
  timeoutMs: null,
}
const NO_OPTIONS: OpenOptions = { receipt: null, takeover: false, timeoutMs: null }

export class HostedExport {
  readonly definition: ExportDefinition
  readonly data: DataSide
  readonly #context: ExportContext
  readonly #lifecycle: Lifecycle
  readonly #home: RecordHome
  readonly workerIndex: number
  #facts: ImageFacts | null = null
  #generation = 0
  #record: OwnershipRecord | null = null
  #stateReason: string | null = null
  #closeRequests: 'park' | 'refuse' = 'park'
  #closing: Closing | null = null
  #lastReceipt: Receipt | null = null
  /** Verbs that must not run beside each other. */
  #turn: Promise<unknown> = Promise.resolve()
  #opening: Promise<void> | null = null
  /** Letting go of the image after a fence. */
  #tidying: Promise<void> = Promise.resolve()

  constructor(context: ExportContext, exportId: number, workerIndex: number, definition: ExportDefinition) {
    this.definition = definition
    this.data = new DataSide(exportId, definition)
    this.#context = context
    this.workerIndex = workerIndex
    this.#lifecycle = new Lifecycle(definition.name)
    this.#home = context.homeOf(definition)
  }

  get name(): string {
    return this.definition.name
  }

  get state(): ExportState {
    return this.#lifecycle.state
  }

  get facts(): ImageFacts | null {
    return this.#facts
  }

  get generation(): number {
    return this.#generation
  }

  get stateReason(): string | null {
    return this.#stateReason
  }

  get lastReceipt(): Receipt | null {
    return this.#lastReceipt
  }

  /** The newest record of ours. */
  get record(): OwnershipRecord | null {
    return this.#record
  }

  recorded(record: OwnershipRecord): void {
    this.#record = record
  }

  get xenbusState(): ExportStatus['xenbusState'] {
    return this.#lifecycle.xenbusState
  }

  /** The nonce that a receipt must carry to open this standby. */
  get nonce(): string | null {
    return this.state === 'standby' && this.#home instanceof UnsharedHome ? this.#home.giveNonce() : null
  }

  /** Why a client cannot be accepted now, or null. */
  get negotiationProblem(): string | null {
    if (this.#facts === null) return this.#stateReason ?? 'its image was not opened yet'
    if (acceptsNegotiation(this.state, this.#choices)) return null
    const reason = this.#stateReason === null ? '' : `: ${this.#stateReason}`
    return `the export is ${this.state}${reason}`
  }

  /** Attaches to a worker and enters standby. Rejects with the image's refusal; the export then stays, without image. */
  start(): Promise<void> {
    return this.#exclusively(() => this.#enterStandby(null))
  }

  open(options: OpenOptions = NO_OPTIONS): Promise<void> {
    if (this.#lifecycle.answer('open') === 'repeat') return Promise.resolve()
    if (this.#opening !== null) return this.#opening
    const opening = this.#exclusively(() => this.#open(options)).finally(() => {
      this.#opening = null
    })
    this.#opening = opening
    return opening
  }

  async close(options: CloseOptions): Promise<CloseOutcome> {
    switch (this.#lifecycle.answer('close')) {
      case 'repeat':
        return { done: true, receipt: this.#repeatReceipt() }
      case 'join':
        break
      case 'begin':
        this.#beginClose(options)
    }
    const closing = present(this.#closing, 'the close that is under way')
    if (!options.wait) return { done: false, status: await describeExport(this.#context, this) }
    const end = await closing.endWithin(options.timeoutMs)
    switch (end.kind) {
      case 'closed':
        return { done: true, receipt: end.receipt }
      case 'cancelled':
        throw new Refusal('wrong-state', `the close of export '${this.name}' was cancelled by 'open'`)
      case 'fenced':
        throw new Refusal('export-fenced', `export '${this.name}' was fenced instead of closed: ${end.reason}`)
    }
  }

  standby(): Promise<void> {
    if (this.#lifecycle.answer('standby') === 'repeat') return Promise.resolve()
    return this.#exclusively(async () => {
      if (this.#lifecycle.answer('standby') === 'repeat') return
      await this.#tidying
      const wasClosed = this.state === 'closed'
      this.#to('standby', null)
      if (wasClosed) await this.data.disconnect()
      await this.#enterStandby(null)
    })
  }

  /** Nothing more of ours is submitted from here on; the image is let go of as soon as what was submitted has cleared. */
  fence(reason: string): void {
    if (this.state === 'fenced') return
    this.data.allowGeneration(0)
    this.#to('fenced', reason)
    const closing = this.#closing
    this.#closing = null
    closing?.fault(reason)
    this.#tidying = this.#tidyUp(this.#opening, closing)
  }

  /** For `remove` and for the daemon's end: only when nothing is open for writing. */
  async remove(): Promise<void> {
    this.#lifecycle.answer('remove')
    await this.#exclusively(() => {
      this.#lifecycle.answer('remove')
      return Promise.resolve()
    })
    await this.dispose()
  }

  /** Nothing is held back here by a predecessor: its writes are over before an image is opened. */
  clear(): void {
    this.#lifecycle.answer('clear')
    throw new Refusal('wrong-state', `export '${this.name}' holds nothing back`)
  }

  /** At the end of the daemon: whatever is open for writing is closed, with the reason `shutdown`. */
  async closeForShutdown(): Promise<void> {
    if (this.#opening !== null) await this.#opening.catch(() => undefined)
    if (this.state === 'fenced') {
      await this.#tidying
      throw new Refusal('export-fenced', this.#stateReason ?? 'fenced')
    }
    if (this.state === 'standby' || this.state === 'closed') return
    await this.close(SHUTDOWN)
  }

  /** Lets go of everything. Only when nothing is open for writing. */
  async dispose(): Promise<void> {
    await this.#exclusively(async () => {
      await this.#tidying
      if (this.data.placement?.worker.alive === true) {
        // What is parked stays unanswered, so that its frontend sends it again elsewhere.
        await this.data.setGate({ reads: 'park', writes: 'park' })
        await this.#dropFile()
        await this.data.detach()
      }
      await this.#home.close()
    })
  }

  /** The worker that this export lived on has ended: nothing of it answers any more. */
  workerDied(cause: string): void {
    const image = this.data.lose()
    // What the dead worker had submitted holds its own reference to the open file: its lock comes free when it is done.
    if (image !== null) {
      closeImage(this.#context.images, image).catch((error: unknown) => {
        this.#context.log.warn({ export: this.name, error: String(error) }, 'closing the image failed')
      })
    }
    this.fence(`the data worker died: ${cause}`)
  }

  // ---- opening

  async #open(options: OpenOptions): Promise<void> {
    if (this.state === 'closing') {
      if (await this.#cancelClose()) return
    }
    if (this.#lifecycle.answer('open') === 'repeat') return
    if (this.#home instanceof UnsharedHome && !this.definition.readOnly) this.#checkReceipt(this.#home, options.receipt)
    await this.#tidying
    this.#to('opening', null)
    try {
      if (this.data.placement === null) await this.#attach()
      if (this.definition.readOnly) await this.#openReadOnly()
      else await this.#openForWriting(options)
    } catch (error) {
      await this.#openingFailed(error)
      throw error
    }
  }

  async #openForWriting(options: OpenOptions): Promise<void> {
    const known = this.#facts?.sizeBytes ?? 0
    const opened = await openForWriting(this.#context, {
      definition: this.definition,
      home: this.#home,
      receipt: options.receipt,
      knownSizeBytes: known,
      timeoutMs: options.timeoutMs ?? 0,
      abandoned: () => this.state !== 'opening',
    })
    await this.#replaceFile(opened.image, opened.generation)
    this.#record = opened.record
    this.#generation = opened.generation
    if (known !== 0 && known !== opened.image.facts.sizeBytes) await this.data.disconnect()
    this.#refuseUnlessOpening()
    this.data.allowGeneration(opened.generation)
    this.#to('open', null)
    await this.#applyGate()
  }

  async #openReadOnly(): Promise<void> {
    const image = this.data.file ?? (await this.#openImageForReading())
    const locked = await lockImage(this.#context.images, image.descriptor.number, 'read-only')
    if (locked.kind === 'busy') throw new Refusal('image-in-use', `${this.definition.path} is in use: ${locked.detail}`)
    this.#refuseUnlessOpening()
    this.#to('open', null)
    await this.#applyGate()
  }

  #refuseUnlessOpening(): void {
    if (this.state === 'opening') return
    throw new Refusal('export-fenced', `export '${this.name}' was fenced while it opened`)
  }

  async #openingFailed(error: unknown): Promise<void> {
    if (this.state !== 'opening') return
    const reason = error instanceof Error ? error.message : String(error)
    if (error instanceof WorkerGone) {
      this.fence(reason)
      return
    }
    this.#to('standby', reason)
    await this.#enterStandby(reason).catch((second: unknown) => {
      this.#context.log.debug({ export: this.name, error: String(second) }, 'standby has no image')
    })
  }

  /** The standby's descriptor gives way to the new one; reads that are under way finish first. */
  async #replaceFile(image: OpenImage, generation: number): Promise<void> {
    try {
      await this.data.setGate({ reads: 'park', writes: 'park' })
      await this.#dropFile()
      await this.data.attachFile(image, generation)
      this.#facts = image.facts
    } catch (error) {
      if (this.data.file !== image) await closeImage(this.#context.images, image)
      throw error
    }
  }

  #checkReceipt(home: UnsharedHome, receipt: Receipt | null): void {
    // Handing the source's own receipt back is how a migration is cancelled: without it no destination can open.
    if (receipt !== null && this.state === 'closed' && receipt.nonce === this.#lastReceipt?.nonce) return
    home.checkReceipt(receipt)
  }

  // ---- standby

  async #enterStandby(reason: string | null): Promise<void> {
    assert(this.state === 'standby', 'an export is put into standby in standby')
    this.#stateReason = reason
    if (this.data.placement === null) await this.#attach()
    try {
      if (this.data.file === null) await this.#openImageForReading()
    } catch (error) {
      this.#stateReason = reason ?? (error instanceof Error ? error.message : String(error))
      throw error
    }
    await this.#applyGate()
  }

  async #openImageForReading(): Promise<OpenImage> {
    const mode = this.definition.readOnly ? 'read-only' : 'standby'
    const image = await openImage(this.#context.images, this.definition.path, mode, imageOptions(this.definition))
    try {
      this.#context.claimImage(this.name, image.facts)
      await this.data.attachFile(image, 0)
    } catch (error) {
      if (this.data.file !== image) await closeImage(this.#context.images, image)
      throw error
    }
    this.#facts = image.facts
    return image
  }

  async #attach(): Promise<void> {
    await this.data.attach(await this.#context.place(this.workerIndex), this.#facts?.sizeBytes ?? 0)
  }

  /** Waits for what is submitted, takes the file from the engine, and closes it. */
  async #dropFile(): Promise<void> {
    if (this.data.file === null) return
    await this.data.drain()
    const image = await this.data.detachFile()
    if (image !== null) await closeImage(this.#context.images, image)
  }

  async #tidyUp(opening: Promise<void> | null, closing: Closing | null): Promise<void> {
    try {
      if (this.data.placement !== null) await this.data.setGate({ reads: 'refuse', writes: 'refuse' })
      // An opening or a close that was under way ends first: each lets go of what it holds itself.
      await opening?.catch(() => undefined)
      await closing?.settled
      if (this.data.placement !== null) await this.#dropFile()
    } catch (error) {
      if (!(error instanceof WorkerGone)) throw error
    }
  }

  // ---- closing

  #beginClose(options: CloseOptions): void {
    if (options.early) {
      throw new Refusal(
        'early-refused',
        `export '${this.name}' has no shared record to hand its unfinished writes over in`,
      )
    }
    this.#closeRequests = options.requests
    const closing = new Closing(this.#context, this, this.#home, options)
    this.#closing = closing
    this.#to('closing', null)
    closing.begin((reason) => {
      this.fence(reason)
    })
    void closing.ended.then((end) => this.#closeEnded(closing, end, options))
  }

  async #closeEnded(closing: Closing, end: CloseEnd, options: CloseOptions): Promise<void> {
    if (this.#closing === closing) this.#closing = null
    switch (end.kind) {
      case 'closed':
        this.#lastReceipt = end.receipt
        this.#to('closed', null)
        this.#context.emit(this.name, { kind: 'receipt', receipt: end.receipt })
        if (options.disconnect) await this.data.disconnect()
        return
      case 'fenced':
        this.fence(end.reason)
        return
      case 'cancelled':
        return
    }
  }

  /** True: the same generation goes on. False: it was too late, and the close has ended. */
  async #cancelClose(): Promise<boolean> {
    const closing = this.#closing
    if (closing === null) return false
    if (!closing.cancel()) {
      await closing.ended
      return false
    }
    this.#closing = null
    this.#to('open', null)
    await this.#applyGate()
    return true
  }

  #repeatReceipt(): Receipt {
    if (this.#lastReceipt !== null) return this.#lastReceipt
    throw new Refusal('wrong-state', `export '${this.name}' is ${this.state} and has no receipt: 'open' it first`, {
      export: this.name,
      state: this.state,
      verb: 'close',
    })
  }

  // ---- common

  get #choices(): GateChoices {
    return { standbyReads: this.definition.standbyReads, closeRequests: this.#closeRequests }
  }

  async #applyGate(): Promise<void> {
    await this.data.setGate(gateSettings(this.state, this.#choices))
  }

  /** The one place where the lifecycle moves. */
  #to(state: ExportState, reason: string | null): void {
    const from = this.#lifecycle.to(state)
    this.#stateReason = reason
    this.#context.log.info({ export: this.name, from, to: state, generation: this.#generation, reason }, 'transition')
    this.#context.emit(this.name, { kind: 'transition', from, to: state, reason })
  }

  #exclusively<T>(verb: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(verb)
    this.#turn = result.catch(() => undefined)
    return result
  }

  /** Whether this export lives on that worker. */
  isOn(worker: DataWorker): boolean {
    return this.data.isOn(worker)
  }
}
