/**
 * One export of this daemon: what each verb does to it, and what it makes of news. Its state is the life's, what is open the
 * data side's, what is recorded the ownership's; the way in, the close and the fence change them, one verb at a time
 * (`close` and `fence` may come in between, because they must never wait for anything else).
 *
 * 1. Writes are admitted only in `open`, and only after image, locks and record are in place.
 * 2. Whatever cannot be finished ends in `standby` or `fenced`, never in between; its reason is kept for the status.
 * 3. A fence takes effect at once; tidying up (waiting for what is submitted, closing the image) follows by itself.
 */

import { present } from '../foundation/assert.ts'
import { Refusal } from '../foundation/refusal.ts'
import type { ExportState } from '../interlock/lifecycle.ts'
import type { Receipt } from '../interlock/receipt.ts'
import type { OwnershipRecord } from '../ownership/home.ts'
import { adoptImage } from './adoption.ts'
import type { CloseEnd } from './close-run.ts'
import { Closing } from './closing.ts'
import { DataSide } from './data-side.ts'
import type { ExportContext } from './export-context.ts'
import { ExportLife } from './export-life.ts'
import { Fencing } from './fencing.ts'
import type { FenceCode } from './fencing.ts'
import type { ImageFacts } from './image.ts'
import { closeImage } from './image.ts'
import { OwnershipSide } from './ownership-side.ts'
import { clearPredecessors, refuseEarly } from './early-handover.ts'
import { plainClose } from './plain-close.ts'
import { Predecessor } from './predecessor.ts'
import { LastRun } from './last-run.ts'
import { ServedImage } from './served-image.ts'
import { describeExport } from './status.ts'
import { WayIn } from './way-in.ts'
import type { AdoptOptions, CloseOptions, CloseOutcome, ExportDefinition, OpenOptions } from './verbs.ts'

const NO_OPTIONS: OpenOptions = { receipt: null, takeover: false, timeoutMs: null }

export class HostedExport {
  readonly definition: ExportDefinition
  readonly data: DataSide
  readonly ownership: OwnershipSide
  readonly predecessor: Predecessor
  readonly #context: ExportContext
  readonly #life: ExportLife
  readonly #image: ServedImage
  readonly #wayIn: WayIn
  readonly #fencing: Fencing
  readonly workerIndex: number
  #closing: Closing | null = null
  /** Verbs that must not run beside each other. */
  #turn: Promise<unknown> = Promise.resolve()
  #opening: Promise<void> | null = null
  readonly #lastRun: LastRun

  constructor(context: ExportContext, exportId: number, workerIndex: number, definition: ExportDefinition) {
    this.definition = definition
    this.data = new DataSide(exportId, definition)
    this.#context = context
    this.workerIndex = workerIndex
    this.#life = new ExportLife(context, definition, this.data)
    this.ownership = new OwnershipSide(context, definition)
    this.#lastRun = new LastRun(context, this)
    this.predecessor = new Predecessor(context, definition, this.ownership, this.data)
    this.#image = new ServedImage(context, definition, this.data, async (facts) => {
      this.#located(facts)
      await this.ownership.refuseLinks(facts)
    })
    this.#wayIn = new WayIn(context, this, this.#life, this.#image, (facts) => {
      this.#located(facts)
    })
    this.#fencing = new Fencing(context, this, this.#life, this.#image)
  }

  get name(): string {
    return this.definition.name
  }

  get state(): ExportState {
    return this.#life.state
  }

  get facts(): ImageFacts | null {
    return this.#image.facts
  }

  get generation(): number {
    return this.#life.generation
  }

  get stateReason(): string | null {
    const waitsBecause = this.#closing?.waitsBecause ?? this.#lastRun.waitsBecause ?? this.#wayIn.waitsBecause
    return waitsBecause ?? this.#life.reason
  }

  get lastReceipt(): Receipt | null {
    return this.#life.lastReceipt
  }

  /** The nonce that a receipt must carry to open this standby. */
  get nonce(): string | null {
    return this.state === 'standby' ? this.ownership.giveNonce() : null
  }

  /** Why a client cannot be accepted now, or null. */
  get negotiationProblem(): string | null {
    if (this.facts === null) return this.#life.reason ?? 'its image was not opened yet'
    if (this.#life.acceptsNegotiation) return null
    const reason = this.#life.reason === null ? '' : `: ${this.#life.reason}`
    return `the export is ${this.state}${reason}`
  }

  /** Attaches to a worker and enters standby. Rejects with the image's refusal; the export then stays, without image. */
  start(): Promise<void> {
    return this.#exclusively(() => this.#wayIn.enterStandby(null))
  }

  /** After `start`: opens by itself where the record allows that. */
  resume(lockTimeoutMs: number): Promise<void> {
    return this.#lastRun.resume(lockTimeoutMs)
  }

  /** Said by the status for as long as it waits in standby. */
  waitBecause(reason: string | null): void {
    this.#life.reason = reason
    if (reason !== null) this.#context.log.info({ export: this.name, reason }, 'waits in standby')
  }

  /** By another run of this host, which had handed that generation over early. */
  fencedBefore(generation: number): void {
    this.#fencing.leftEntry(generation)
  }

  /** The close of the last run was finished by this one. */
  finishedFor(receipt: Receipt): void {
    this.#life.lastReceipt = receipt
  }

  /** Settles when the record says so too. Writes are admitted a little earlier. */
  async open(options: OpenOptions = NO_OPTIONS): Promise<void> {
    if (this.#life.answer('open') !== 'repeat') await this.#openOnce(options)
    await this.#wayIn.announced
    if (this.state === 'fenced') throw new Refusal(this.#fencing.code, `export '${this.name}' was fenced as it opened`)
  }

  /** Settles when no opening is under way, whatever became of it. */
  async openingEnded(): Promise<void> {
    await this.#opening?.catch(() => undefined)
  }

  #openOnce(options: OpenOptions): Promise<void> {
    // Where a close has begun already, its end is asked for, and not the opening that it came behind.
    if (this.#opening !== null && this.state !== 'closing') return this.#opening
    const fences = this.#fencing.count
    const opening = this.#exclusively(() => this.#open(options, fences)).finally(() => {
      if (this.#opening === opening) this.#opening = null
    })
    this.#opening = opening
    return opening
  }

  async close(options: CloseOptions): Promise<CloseOutcome> {
    switch (this.#life.answer('close')) {
      case 'repeat':
        return { done: true, receipt: await this.#lastRun.receipt(this.#life.lastReceipt, options.timeoutMs) }
      case 'join':
        break
      case 'begin':
        this.#beginClose(options)
    }
    const closing = present(this.#closing, 'the close that is under way')
    // An early close that joins an ordinary one hands nothing over: it waits for the end as that one does.
    const isEarly = options.early && closing.early
    if (isEarly) await closing.handedOverWithin(options.timeoutMs)
    const answersAtOnce = !options.wait || (isEarly && this.state === 'closing')
    if (answersAtOnce) return { done: false, status: await describeExport(this.#context, this) }
    const end = await closing.endWithin(options.timeoutMs)
    switch (end.kind) {
      case 'closed':
        return { done: true, receipt: end.receipt }
      case 'cancelled':
        throw new Refusal('wrong-state', `the close of export '${this.name}' was cancelled by 'open'`)
      case 'fenced':
        throw new Refusal(this.#fencing.code, `export '${this.name}' was fenced instead of closed: ${end.reason}`)
    }
  }

  standby(): Promise<void> {
    if (this.#life.answer('standby') === 'repeat') return Promise.resolve()
    return this.#exclusively(async () => {
      if (this.#life.answer('standby') === 'repeat') return
      await this.#fencing.tidied
      const wasClosed = this.state === 'closed'
      this.#life.to('standby', null)
      if (wasClosed) await this.data.disconnect()
      await this.#wayIn.enterStandby(null)
    })
  }

  /** Nothing more of ours is submitted from here on; the image is let go of as soon as what was submitted has cleared. */
  fence(reason: string, code: FenceCode = 'export-fenced'): void {
    if (this.state === 'fenced') return
    const closing = this.#closing
    this.#closing = null
    this.#fencing.fence(reason, code, { opening: this.#opening, closing })
  }

  /** For `remove` and for the daemon's end: only when nothing is open for writing. */
  async remove(): Promise<void> {
    this.#life.answer('remove')
    await this.#exclusively(() => Promise.resolve(this.#life.answer('remove')))
    await this.dispose()
  }

  /** Lets go of the writes of a predecessor, on proof: its receipt, or that it was fenced. */
  async clear(options: { readonly receipt: Receipt | null; readonly takeover: boolean }): Promise<void> {
    this.#life.answer('clear')
    await clearPredecessors(this.#context, this, options)
  }

  /** Accepts the image as it is found now. In standby it is served from then on, where it was refused before. */
  adopt(options: AdoptOptions): Promise<void> {
    return this.#exclusively(async () => {
      this.#life.answer('adopt')
      await this.#fencing.tidied
      await adoptImage(this.#context, this, options)
      if (this.state !== 'standby') return
      await this.#image.dropParked()
      await this.#wayIn.enterStandby(null)
    })
  }

  /** At the end of the daemon: whatever is open for writing is closed, with the reason `shutdown`. */
  async closeForShutdown(): Promise<void> {
    this.#wayIn.abandon()
    await this.openingEnded()
    if (this.state === 'fenced') {
      await this.#fencing.tidied
      throw new Refusal(this.#fencing.code, this.#life.reason ?? 'fenced')
    }
    if (this.state === 'standby' || this.state === 'closed') return
    await this.close(plainClose('shutdown'))
  }

  /** Lets go of everything. Only when nothing is open for writing. */
  async dispose(): Promise<void> {
    this.#wayIn.abandon()
    await this.#exclusively(async () => {
      await this.#fencing.end()
      await this.#lastRun.abandon()
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
    const worker = this.data.placement?.worker
    const image = this.data.lose()
    // What the kernel has of the dead worker holds its own reference to the open file: its lock comes free when that is
    // done. Threads of the file engine go by the descriptor's number, which must not be another file's meanwhile.
    if (image !== null) {
      const closed = worker?.released.then(() => closeImage(this.#context.images, image))
      closed?.catch((error: unknown) => {
        this.#context.log.warn({ export: this.name, error: String(error) }, 'closing the image failed')
      })
    }
    this.fence(`the data worker died: ${cause}`, 'worker-died')
  }

  // ---- opening

  /** `fences` is how often it had been fenced when this was asked for: a fence that comes after that goes before it. */
  async #open(options: OpenOptions, fences: number): Promise<void> {
    if (this.state === 'closing') {
      if (await this.#cancelClose()) return
    }
    this.#refuseIfFenced(fences)
    if (this.#life.answer('open') === 'repeat') return
    // Handing the source's own receipt back is how a migration is cancelled: without it no destination can open.
    const cancels = this.state === 'closed' && options.receipt?.nonce === this.#life.lastReceipt?.nonce
    if (!cancels) this.ownership.checkReceipt(options.receipt)
    await this.#fencing.tidied
    await this.#lastRun.abandon()
    this.#refuseIfFenced(fences)
    await this.#wayIn.open(options)
  }

  /** The fence waits for whoever is opening: nobody who was asked before it may wait for its end. */
  #refuseIfFenced(fences: number): void {
    if (this.#fencing.count === fences) return
    throw new Refusal(this.#fencing.code, `export '${this.name}' was fenced before it opened`)
  }

  // ---- closing

  #beginClose(options: CloseOptions): void {
    if (options.early) refuseEarly(this)
    this.#life.closeRequests = options.requests
    const closing = new Closing(this.#context, this, options)
    this.#closing = closing
    // The gate is being shut while it is told.
    closing.begin((reason) => {
      this.fence(reason)
    })
    this.#life.to('closing', null)
    void closing.ended.then((end) => this.#closeEnded(closing, end, options))
  }

  async #closeEnded(closing: Closing, end: CloseEnd, options: CloseOptions): Promise<void> {
    // A fence takes it along: it tidies up when the last step of it is over.
    if (end.kind !== 'fenced' && this.#closing === closing) this.#closing = null
    switch (end.kind) {
      case 'closed':
        this.#life.lastReceipt = end.receipt
        await this.predecessor.end()
        this.#life.to('closed', null)
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
    this.#life.to('open', null)
    await this.#life.applyGate()
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
        if (record.generation <= this.#life.generation || this.#life.reason === reason) return
        this.#life.reason = reason
        if (this.data.placement?.worker.alive === true) void this.data.disconnect().catch(() => undefined)
        return
      }
      case 'standby':
      case 'opening':
      case 'fenced':
        return
    }
  }

  #exclusively<T>(verb: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(verb)
    this.#turn = result.catch(() => undefined)
    return result
  }
}
