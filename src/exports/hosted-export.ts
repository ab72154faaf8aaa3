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
import type { OwnershipRecord } from '../ownership/home.ts'
import { WorkerGone } from '../plane-link/data-worker.ts'
import { adoptImage } from './adoption.ts'
import type { CloseEnd } from './close-run.ts'
import { Closing } from './closing.ts'
import { DataSide } from './data-side.ts'
import type { ExportContext } from './export-context.ts'
import type { ImageFacts } from './image.ts'
import { closeImage } from './image.ts'
import { claimForReading, openForWriting } from './opening.ts'
import { OwnershipSide } from './ownership-side.ts'
import { clearPredecessors, refuseEarly } from './early-handover.ts'
import { plainClose } from './plain-close.ts'
import { Predecessor } from './predecessor.ts'
import { LastRun } from './last-run.ts'
import { LeftEntry } from './left-entry.ts'
import { ServedImage } from './served-image.ts'
import { describeExport } from './status.ts'
import type { AdoptOptions, CloseOptions, CloseOutcome, ExportDefinition, OpenOptions } from './verbs.ts'

const NO_OPTIONS: OpenOptions = { receipt: null, takeover: false, timeoutMs: null }

type FenceCode = 'export-fenced' | 'sync-failed' | 'worker-died'

export class HostedExport {
  readonly definition: ExportDefinition
  readonly data: DataSide
  readonly ownership: OwnershipSide
  readonly predecessor: Predecessor
  readonly #context: ExportContext
  readonly #lifecycle: Lifecycle
  readonly #image: ServedImage
  readonly workerIndex: number
  #generation = 0
  #stateReason: string | null = null
  /** What those are told who wait for something that the fence has ended. */
  #fenceCode: FenceCode = 'export-fenced'
  #closeRequests: 'park' | 'refuse' = 'park'
  #closing: Closing | null = null
  #lastReceipt: Receipt | null = null
  /** Verbs that must not run beside each other. */
  #turn: Promise<unknown> = Promise.resolve()
  #opening: Promise<void> | null = null
  /** Letting go of the image after a fence. */
  #tidying: Promise<void> = Promise.resolve()
  readonly #lastRun: LastRun
  readonly #leftEntry: LeftEntry
  #stopping = false

  constructor(context: ExportContext, exportId: number, workerIndex: number, definition: ExportDefinition) {
    this.definition = definition
    this.data = new DataSide(exportId, definition)
    this.#context = context
    this.workerIndex = workerIndex
    this.#lifecycle = new Lifecycle(definition.name)
    this.ownership = new OwnershipSide(context, definition)
    this.#lastRun = new LastRun(context, this)
    this.#leftEntry = new LeftEntry(context, this)
    this.predecessor = new Predecessor(context, definition, this.ownership, this.data)
    this.#image = new ServedImage(context, definition, this.data, async (facts) => {
      this.#located(facts)
      await this.ownership.refuseLinks(facts)
    })
  }

  get name(): string {
    return this.definition.name
  }

  get state(): ExportState {
    return this.#lifecycle.state
  }

  get facts(): ImageFacts | null {
    return this.#image.facts
  }

  get generation(): number {
    return this.#generation
  }

  get stateReason(): string | null {
    return this.#closing?.waitsBecause ?? this.#lastRun.waitsBecause ?? this.#stateReason
  }

  get lastReceipt(): Receipt | null {
    return this.#lastReceipt
  }

  /** The nonce that a receipt must carry to open this standby. */
  get nonce(): string | null {
    return this.state === 'standby' ? this.ownership.giveNonce() : null
  }

  /** Why a client cannot be accepted now, or null. */
  get negotiationProblem(): string | null {
    if (this.facts === null) return this.#stateReason ?? 'its image was not opened yet'
    if (acceptsNegotiation(this.state, this.#choices)) return null
    const reason = this.#stateReason === null ? '' : `: ${this.#stateReason}`
    return `the export is ${this.state}${reason}`
  }

  /** Attaches to a worker and enters standby. Rejects with the image's refusal; the export then stays, without image. */
  start(): Promise<void> {
    return this.#exclusively(() => this.#enterStandby(null))
  }

  /** After `start`: opens by itself where the record allows that. */
  resume(lockTimeoutMs: number): Promise<void> {
    return this.#lastRun.resume(lockTimeoutMs)
  }

  /** Said by the status for as long as it waits in standby. */
  waitBecause(reason: string | null): void {
    this.#stateReason = reason
    if (reason !== null) this.#context.log.info({ export: this.name, reason }, 'waits in standby')
  }

  /** The close of the last run was finished by this one. */
  finishedFor(receipt: Receipt): void {
    this.#lastReceipt = receipt
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

  /** Settles when no opening is under way, whatever became of it. */
  async openingEnded(): Promise<void> {
    await this.#opening?.catch(() => undefined)
  }

  async close(options: CloseOptions): Promise<CloseOutcome> {
    switch (this.#lifecycle.answer('close')) {
      case 'repeat':
        return { done: true, receipt: await this.#lastRun.receipt(this.#lastReceipt, options.timeoutMs) }
      case 'join':
        break
      case 'begin':
        this.#beginClose(options)
    }
    const closing = present(this.#closing, 'the close that is under way')
    if (options.early && closing.early) await closing.handedOverWithin(options.timeoutMs)
    const answersAtOnce = !options.wait || (options.early && this.state === 'closing')
    if (answersAtOnce) return { done: false, status: await describeExport(this.#context, this) }
    const end = await closing.endWithin(options.timeoutMs)
    switch (end.kind) {
      case 'closed':
        return { done: true, receipt: end.receipt }
      case 'cancelled':
        throw new Refusal('wrong-state', `the close of export '${this.name}' was cancelled by 'open'`)
      case 'fenced':
        throw new Refusal(this.#fenceCode, `export '${this.name}' was fenced instead of closed: ${end.reason}`)
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
  fence(reason: string, code: FenceCode = 'export-fenced'): void {
    if (this.state === 'fenced') return
    this.#fenceCode = code
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
    await this.#exclusively(() => Promise.resolve(this.#lifecycle.answer('remove')))
    await this.dispose()
  }

  /** Lets go of the writes of a predecessor, on proof: its receipt, or that it was fenced. */
  async clear(options: { readonly receipt: Receipt | null; readonly takeover: boolean }): Promise<void> {
    this.#lifecycle.answer('clear')
    await clearPredecessors(this.#context, this, options)
  }

  /** Accepts the image as it is found now. In standby it is served from then on, where it was refused before. */
  adopt(options: AdoptOptions): Promise<void> {
    return this.#exclusively(async () => {
      this.#lifecycle.answer('adopt')
      await this.#tidying
      await adoptImage(this.#context, this, options)
      if (this.state !== 'standby') return
      await this.#image.dropParked()
      await this.#enterStandby(null)
    })
  }

  /** At the end of the daemon: whatever is open for writing is closed, with the reason `shutdown`. */
  async closeForShutdown(): Promise<void> {
    this.#stopping = true
    await this.openingEnded()
    if (this.state === 'fenced') {
      await this.#tidying
      throw new Refusal(this.#fenceCode, this.#stateReason ?? 'fenced')
    }
    if (this.state === 'standby' || this.state === 'closed') return
    await this.close(plainClose('shutdown'))
  }

  /** Lets go of everything. Only when nothing is open for writing. */
  async dispose(): Promise<void> {
    this.#stopping = true
    await this.#exclusively(async () => {
      await this.#tidying
      await this.#lastRun.abandon()
      await this.#leftEntry.end()
      await this.predecessor.end()
      if (this.data.placement?.worker.alive === true) {
        // What is parked stays unanswered, so that its frontend sends it again elsewhere.
        await this.data.setGate({ reads: 'park', writes: 'park' })
        await this.#image.drop()
        await this.data.detach()
      }
      await this.ownership.close()
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
    this.fence(`the data worker died: ${cause}`, 'worker-died')
  }

  // ---- opening

  async #open(options: OpenOptions): Promise<void> {
    if (this.state === 'closing') {
      if (await this.#cancelClose()) return
    }
    if (this.#lifecycle.answer('open') === 'repeat') return
    // Handing the source's own receipt back is how a migration is cancelled: without it no destination can open.
    const cancels = this.state === 'closed' && options.receipt?.nonce === this.#lastReceipt?.nonce
    if (!cancels) this.ownership.checkReceipt(options.receipt)
    await this.#tidying
    await this.#lastRun.abandon()
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
    const known = this.facts?.sizeBytes ?? 0
    const { image, record } = await openForWriting(this.#context, {
      definition: this.definition,
      ownership: this.ownership,
      receipt: options.receipt,
      takeover: options.takeover,
      allowUnsafe: options.allowUnsafe ?? [],
      knownSizeBytes: known,
      timeoutMs: options.timeoutMs ?? 0,
      found: ({ facts }) => {
        this.#located(facts)
      },
      abandoned: () => this.state !== 'opening' || this.#stopping,
    })
    await this.#image.replace(image, record.generation)
    this.#generation = record.generation
    this.#lastReceipt = null
    if (known !== 0 && known !== image.facts.sizeBytes) await this.data.disconnect()
    await this.predecessor.begin(record)
    this.#refuseUnlessOpening()
    this.data.allowGeneration(record.generation)
    this.#to('open', null)
    await this.#applyGate()
  }

  async #openReadOnly(): Promise<void> {
    const image = this.data.file ?? (await this.#image.openForReading())
    await claimForReading(this.#context, this.definition, image)
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
    await this.#image.dropWritable()
    await this.ownership.withdraw(this.#generation)
    await this.#enterStandby(reason).catch((second: unknown) => {
      this.#context.log.debug({ export: this.name, error: String(second) }, 'standby has no image')
    })
  }

  // ---- standby

  async #enterStandby(reason: string | null): Promise<void> {
    assert(this.state === 'standby', 'an export is put into standby in standby')
    this.#stateReason = reason
    if (this.data.placement === null) await this.#attach()
    try {
      if (this.data.file === null) await this.#image.openForReading()
    } catch (error) {
      this.#stateReason = reason ?? (error instanceof Error ? error.message : String(error))
      throw error
    }
    await this.#applyGate()
  }

  async #attach(): Promise<void> {
    await this.data.attach(await this.#context.place(this.workerIndex), this.facts?.sizeBytes ?? 0)
  }

  async #tidyUp(opening: Promise<void> | null, closing: Closing | null): Promise<void> {
    try {
      if (this.data.placement !== null) await this.data.setGate({ reads: 'refuse', writes: 'refuse' })
      // An opening or a close that was under way ends first: each lets go of what it holds itself.
      await opening?.catch(() => undefined)
      await closing?.settled
      await this.predecessor.end()
      if (this.data.placement !== null) await this.#image.drop()
    } catch (error) {
      if (!(error instanceof WorkerGone)) throw error
    }
    await this.ownership.recordFence()
    if (closing?.early === true) this.#leftEntry.begin(this.#generation)
  }

  // ---- closing

  #beginClose(options: CloseOptions): void {
    if (options.early) refuseEarly(this)
    this.#closeRequests = options.requests
    const closing = new Closing(this.#context, this, options)
    this.#closing = closing
    this.#to('closing', null)
    closing.begin((reason) => {
      this.fence(reason)
    })
    void closing.ended.then((end) => this.#closeEnded(closing, end, options))
  }

  async #closeEnded(closing: Closing, end: CloseEnd, options: CloseOptions): Promise<void> {
    // A fence takes it along: it tidies up when the last step of it is over.
    if (end.kind !== 'fenced' && this.#closing === closing) this.#closing = null
    switch (end.kind) {
      case 'closed':
        this.#lastReceipt = end.receipt
        await this.predecessor.end()
        this.#to('closed', null)
        if (this.ownership.newest !== null) this.#recordChanged(this.ownership.newest)
        this.#context.emit(this.name, { kind: 'receipt', receipt: end.receipt })
        if (options.disconnect) await this.data.disconnect()
        return
      case 'fenced':
        this.fence(end.reason, end.syncFailed ? 'sync-failed' : 'export-fenced')
        return
      case 'cancelled':
        return
    }
  }

  /** True: the same generation goes on. False: it was too late, and the close has ended. */
  async #cancelClose(): Promise<boolean> {
    const closing = this.#closing
    if (closing === null) return false
    let cancelled: boolean
    try {
      cancelled = await closing.cancel()
    } catch (error) {
      if (error instanceof Refusal && error.code === 'image-in-use') this.fence(error.message)
      throw error
    }
    if (!cancelled) {
      await closing.ended
      return false
    }
    this.#closing = null
    this.#to('open', null)
    await this.#applyGate()
    return true
  }

  // ---- record

  #located(facts: ImageFacts): void {
    this.ownership.locate(facts, (record) => {
      this.#recordChanged(record)
    })
  }

  /** Somebody may have opened since, or be about to: the least that can be done is to stop at once and to say so. */
  #recordChanged(record: OwnershipRecord): void {
    const { name, host } = record.holder
    if (!this.ownership.keeper.isLost(record)) return
    switch (this.state) {
      case 'open':
      case 'closing': {
        // Who has handed over early was waiting for this.
        if (this.#closing?.early === true) return
        const by = record.intent?.by ?? record.holder
        this.fence(`ownership is lost to ${by.name} (${by.host})`)
        return
      }
      case 'closed': {
        // A migration that went well: nobody here waits for its being cancelled any more.
        const reason = `opened by ${name} (${host})`
        if (record.generation <= this.#generation || this.#stateReason === reason) return
        this.#stateReason = reason
        if (this.data.placement?.worker.alive === true) void this.data.disconnect().catch(() => undefined)
        return
      }
      case 'standby':
      case 'opening':
      case 'fenced':
        return
    }
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
}
