/**
 * The close of an export that is open: what each step of the close procedure means here, the receipt, and the waiting of
 * those who asked. The lifecycle is not its business: whoever began it is told how it ended.
 *
 * That it is closing is recorded while the requests drain, so that a crash in between is resumed and a destination knows
 * whom it waits for. An early close records it before anything else, with every write that may still land; from then on
 * a destination may open, and only the end is left to be recorded: closed, or, where it has opened, no longer draining.
 * While the home of the record does not answer the close waits for it, and says so.
 */

import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { present } from '../foundation/assert.ts'
import { faultPoint } from '../fault-points/fault-point.ts'
import { Refusal } from '../foundation/refusal.ts'
import type { CloseFacts } from '../interlock/close-procedure.ts'
import type { Range } from '../interlock/range.ts'
import { buildReceipt } from '../interlock/receipt.ts'
import type { AbortedRequest, CloseReason, Receipt } from '../interlock/receipt.ts'
import type { DrainingEntry, OwnershipRecord, RecordDraft } from '../ownership/home.ts'
import { lockImage, unlockImage } from '../ownership/image-lock.ts'
import type { CloseActions, CloseEnd } from './close-run.ts'
import { CloseRun } from './close-run.ts'
import type { ExportContext } from './export-context.ts'
import type { HostedExport } from './hosted-export.ts'
import { imageIdentity } from './image.ts'
import { LettingGo } from './letting-go.ts'
import { isDraining } from './record-keeper.ts'
import type { ChangeOutcome } from './record-keeper.ts'
import { ReceiptKeeping } from './receipt-keeping.ts'
import { RecordWait } from './record-wait.ts'
import { describeExport } from './status.ts'
import type { CloseOptions } from './verbs.ts'
import { within } from './within.ts'

const PROGRESS_INTERVAL_MS = 250
const HANDOVER_RETRY_MS = 250

export class Closing {
  /** How it ended. */
  readonly ended: Promise<CloseEnd>
  /** Settles when none of its steps is under way any more, and nothing is left open by it. */
  settled: Promise<void> = Promise.resolve()
  /** Of an early close: settles when a destination may open, or when the close has ended before. */
  readonly handedOver: Promise<unknown>
  readonly early: boolean
  readonly #context: ExportContext
  readonly #hosted: HostedExport
  readonly #options: CloseOptions
  readonly #run: CloseRun
  readonly #lettingGo: LettingGo
  #isOver = false
  readonly #keeping: ReceiptKeeping
  #cancelling = false
  readonly #recordWait: RecordWait
  /** The record of a close that is under way. */
  #announced: Promise<unknown> = Promise.resolve()
  #markHandedOver: () => void = () => undefined

  constructor(context: ExportContext, hosted: HostedExport, options: CloseOptions) {
    this.#context = context
    this.#hosted = hosted
    this.#options = options
    this.early = options.early
    this.#lettingGo = new LettingGo(context, hosted)
    this.#recordWait = new RecordWait(context, hosted)
    this.#keeping = new ReceiptKeeping(context, hosted)
    const { durability } = hosted.definition
    const { unsubmitted, requests } = options
    const predecessorDraining = hosted.predecessor.entries.length > 0
    const settings = { durability, unsubmitted, requests, predecessorDraining }
    this.#run = new CloseRun(settings, this.#actions(), context.now)
    this.ended = this.#run.ended.then((end) => {
      this.#isOver = true
      return end
    })
    const handedOver = new Promise<void>((resolve) => {
      this.#markHandedOver = resolve
    })
    this.handedOver = Promise.race([handedOver, this.ended])
  }

  /** `broken` is called with a reason when a step fails in a way that is none of its outcomes. */
  begin(broken: (reason: string) => void): void {
    this.settled = this.#run
      .run()
      .catch((error: unknown) => {
        broken(error instanceof Error ? error.message : String(error))
      })
      .then(() => this.#lettingGo.end())
      .then(() => this.#keeping.end())
    void this.#reportProgress()
  }

  /**
   * True: the generation goes on, recorded as open again, and the caller lets the gate admit. False: it is too late, and
   * the close goes on. Rejects with `held-by-other` where somebody else has opened: the close goes on too; and with
   * `image-in-use` where another program has come into the image that was let go of: then nothing goes on.
   */
  async cancel(): Promise<boolean> {
    this.#cancelling = true
    try {
      return await this.#cancel()
    } finally {
      this.#cancelling = false
    }
  }

  async #cancel(): Promise<boolean> {
    const { keeper } = this.#hosted.ownership
    await this.#announced
    if (this.#isOver || this.#keeping.isRecorded) return false
    if (!this.#hosted.definition.readOnly) {
      await faultPoint('cancel: before open is recorded')
      const outcome = await keeper.change((record) => {
        if (record.state === 'closed') return null
        const draining = record.draining.filter(({ generation }) => generation !== record.generation)
        return { ...record, state: 'open', closeReason: null, draining }
      })
      await faultPoint('cancel: open recorded')
      if (outcome === 'declined') return false
      if (outcome !== 'done') {
        throw new Refusal('held-by-other', `another holder has opened the image of export '${this.#hosted.name}'`)
      }
    }
    // Where it is too late for this, the close records its end on top of what has just been recorded.
    if (!this.#run.cancel()) return false
    if (this.early) await this.#lockAgain()
    return true
  }

  /** What it waits for besides the image and its requests; null where there is nothing. */
  get waitsBecause(): string | null {
    return this.#recordWait.reason ?? this.#lettingGo.waitsBecause
  }

  fault(reason: string): void {
    this.#run.fault(reason)
  }

  /** How it ended; rejects with `still-draining` when it has not within that time. It goes on all the same. */
  async endWithin(timeoutMs: number | null): Promise<CloseEnd> {
    const end = await within(this.ended, timeoutMs)
    if (end === null) throw await this.#stillDraining(timeoutMs ?? 0)
    return end
  }

  /** Settles when an early close is recorded, and a destination may open; rejects as `endWithin` does. */
  async handedOverWithin(timeoutMs: number | null): Promise<void> {
    const handedOver = this.handedOver.then(() => true)
    if ((await within(handedOver, timeoutMs)) === null) throw await this.#stillDraining(timeoutMs ?? 0)
  }

  #actions(): CloseActions {
    const { data, predecessor } = this.#hosted
    const nonce = this.#options.nonce ?? randomBytes(16).toString('hex')
    return {
      shutGate: (requests, abort) => this.#shutGate(requests, abort),
      drain: () => data.drain(),
      predecessorCleared: () => predecessor.cleared,
      sync: () => data.sync(),
      detach: async () => {
        await faultPoint('close: synced')
        data.allowGeneration(0)
        this.#lettingGo.take(await data.detachFile())
      },
      closeDescriptor: () => this.#lettingGo.close(),
      proveLock: () => this.#lettingGo.prove(),
      receipt: (facts) => this.#buildReceipt(facts, nonce),
      record: (_facts, receipt) => this.#record(receipt),
    }
  }

  async #shutGate(requests: 'park' | 'refuse', abort: boolean): Promise<readonly AbortedRequest[]> {
    const { data, definition } = this.#hosted
    const shut = data.setGate({ reads: requests, writes: requests }, abort)
    if (this.early) {
      // The worker takes its orders in turn.
      const [aborted, uncleared] = await Promise.all([shut, data.uncleared()])
      await this.#handOver(merged(uncleared))
      return aborted
    }
    const aborted = await shut
    if (!definition.readOnly) this.#announced = this.#announce([])
    return aborted
  }

  /** Nothing outside of these ranges is submitted afterwards. */
  async #handOver(ranges: readonly Range[]): Promise<void> {
    const { data, ownership } = this.#hosted
    const { generation, holder } = ownership.own
    const image = present(data.file, 'the image of an export that is handed over')
    const unlocked = await unlockImage(this.#context.images, image.descriptor.number)
    if (unlocked < 0) throw new Refusal('image-io', 'the locks on the image could not be let go of')
    await faultPoint('early: locks released')
    while (!(await this.#announcedEarly({ generation, holder, ranges }))) {
      await sleep(HANDOVER_RETRY_MS)
      if (this.#isOver) return
    }
    this.#recordWait.end()
    await faultPoint('early: recorded')
    this.#markHandedOver()
  }

  /** False where the home does not answer, or somebody cancels. A destination may have opened on what was written. */
  async #announcedEarly(entry: DrainingEntry): Promise<boolean> {
    const { keeper } = this.#hosted.ownership
    try {
      const outcome = await this.#announce([entry])
      if (outcome === 'done' || outcome === 'superseded') return true
      if (outcome === 'declined') return false
      const newest = await keeper.home.readNewest()
      if (newest.kind === 'record' && isDraining(newest.record, entry.generation)) return true
    } catch (error) {
      if (!RecordWait.isReason(error)) throw error
      this.#recordWait.begin('the handover', error)
      return false
    }
    throw new Refusal('held-by-other', 'another holder wrote the ownership record')
  }

  /** Best effort but for an early close, which is nothing without it. */
  async #announce(draining: readonly DrainingEntry[]): Promise<ChangeOutcome> {
    const closeReason = this.#options.reason
    const { keeper } = this.#hosted.ownership
    try {
      await faultPoint('close: before closing is recorded')
      const outcome = await keeper.change((record) =>
        // Whoever cancels has recorded that it is open, or is about to: nothing may be recorded on top of that.
        this.#cancelling || this.#isOver ? null : closingRecord(record, closeReason, draining),
      )
      await faultPoint('close: closing recorded')
      return outcome
    } catch (error) {
      if (this.early) throw error
      this.#context.log.warn(
        { export: this.#hosted.name, error: String(error) },
        'that it closes could not be recorded',
      )
      return 'declined'
    }
  }

  #buildReceipt(facts: CloseFacts, nonce: string): Receipt {
    const { name, definition, generation, ownership } = this.#hosted
    const image = present(this.#hosted.facts, 'the facts of an image that was open')
    const { host, boot, instance } = this.#context.host.identity
    const fence = ownership.keeper.own?.cleared?.fence ?? null
    return buildReceipt({
      ...facts,
      export: name,
      image: { path: image.realPath, size: image.sizeBytes, device: image.device, inode: image.inode },
      generation,
      holder: { host, boot, instance },
      closedAtMs: Date.now(),
      unsafe: this.#context.stacks.unsafeCodes(name),
      durability: definition.durability,
      reason: this.#options.reason,
      nonce,
      clearedBy: 'drain',
      ...(fence !== null && { fence }),
    })
  }

  async #record(receipt: Receipt): Promise<'done' | 'failed' | 'lost'> {
    const { definition, name } = this.#hosted
    if (definition.readOnly) return 'done'
    try {
      await this.#announced
      if (!this.#keeping.isRecorded) {
        await this.#keeping.keep(receipt)
        await faultPoint('close: receipt kept')
        // A close that was fenced meanwhile is over.
        if (this.#isOver) return 'lost'
        if (!(await this.#recordEnd(receipt))) {
          await this.#keeping.takeBack()
          return 'lost'
        }
        this.#keeping.recorded()
      }
      this.#recordWait.end()
      await faultPoint('close: closed recorded')
      return 'done'
    } catch (error) {
      if (RecordWait.isReason(error)) this.#recordWait.begin('all is durable and the image is closed; the close', error)
      else this.#context.log.warn({ export: name, error: String(error) }, 'a close could not be recorded')
      return 'failed'
    }
  }

  /** False where another holder has it, which an early close never finds: its end is recorded whoever has it. */
  async #recordEnd(receipt: Receipt): Promise<boolean> {
    const { keeper } = this.#hosted.ownership
    const image = imageIdentity(present(this.#hosted.facts, 'the facts of an image that was open'))
    await faultPoint('close: before closed is recorded')
    if (this.early) {
      await keeper.endDraining(receipt)
      return true
    }
    const closeReason = receipt.reason
    const outcome = await keeper.change((record) => ({ ...record, image, state: 'closed', closeReason, receipt }))
    return outcome !== 'lost'
  }

  async #lockAgain(): Promise<void> {
    const image = present(this.#hosted.data.file, 'the image of a close that was cancelled')
    const locked = await lockImage(this.#context.images, image.descriptor.number, 'write')
    if (locked.kind === 'locked') return
    const detail = locked.kind === 'busy' ? locked.detail : 'its locks failed'
    throw new Refusal('image-in-use', `${this.#hosted.definition.path} is in use: ${detail}`)
  }

  async #stillDraining(timeoutMs: number): Promise<Refusal> {
    const { outstanding } = await describeExport(this.#context, this.#hosted)
    const left = outstanding.admitted + outstanding.held + outstanding.submitted
    const waiting = this.waitsBecause === null ? '' : `; ${this.waitsBecause}`
    const what = `${left} requests are outstanding${waiting}`
    const detail = `export '${this.#hosted.name}' is still closing after ${timeoutMs} ms: ${what}`
    return new Refusal('still-draining', detail, {
      outstanding,
      step: this.#run.step,
      elapsedMs: Math.round(this.#run.elapsedMs),
    })
  }

  async #reportProgress(): Promise<void> {
    for (;;) {
      await sleep(PROGRESS_INTERVAL_MS, null, { ref: false })
      if (this.#isOver || this.#hosted.data.placement?.worker.alive !== true) return
      const { outstanding } = await describeExport(this.#context, this.#hosted)
      this.#context.emit(this.#hosted.name, {
        kind: 'drain',
        outstanding,
        step: this.#run.step,
        elapsedMs: Math.round(this.#run.elapsedMs),
      })
    }
  }
}

function closingRecord(
  record: OwnershipRecord,
  closeReason: CloseReason,
  draining: readonly DrainingEntry[],
): RecordDraft {
  // An attempt before, whose answer was lost, may have written the very same.
  const others = record.draining.filter(({ generation }) => draining.every((entry) => entry.generation !== generation))
  return { ...record, state: 'closing', closeReason, draining: [...others, ...draining] }
}

/** The same bytes in as few ranges as they need, ascending. */
function merged(ranges: readonly Range[]): readonly Range[] {
  const ascending = ranges.filter(({ length }) => length > 0).sort((a, b) => a.offset - b.offset)
  const result: Range[] = []
  for (const range of ascending) {
    const last = result.at(-1)
    if (last === undefined || range.offset > last.offset + last.length) {
      result.push(range)
      continue
    }
    const end = Math.max(last.offset + last.length, range.offset + range.length)
    result[result.length - 1] = { offset: last.offset, length: end - last.offset }
  }
  return result
}
