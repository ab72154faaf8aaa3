/**
 * The close of an export that is open: what each step of the close procedure means here, the receipt, and the waiting of
 * those who asked. The lifecycle is not its business: whoever began it is told how it ended.
 */

import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { present } from '../foundation/assert.ts'
import { Refusal } from '../foundation/refusal.ts'
import type { CloseFacts } from '../interlock/close-procedure.ts'
import { buildReceipt } from '../interlock/receipt.ts'
import type { Receipt } from '../interlock/receipt.ts'
import { proveFreeByPath } from '../ownership/generation-lock.ts'
import type { RecordHome } from '../ownership/home.ts'
import type { CloseActions, CloseEnd } from './close-run.ts'
import { CloseRun } from './close-run.ts'
import type { ExportContext } from './export-context.ts'
import type { HostedExport } from './hosted-export.ts'
import type { OpenImage } from './image.ts'
import { closeImage, imageIdentity } from './image.ts'
import { describeExport } from './status.ts'
import type { CloseOptions } from './verbs.ts'

const PROGRESS_INTERVAL_MS = 250

export class Closing {
  /** How it ended. */
  readonly ended: Promise<CloseEnd>
  /** Settles when none of its steps is under way any more, and nothing is left open by it. */
  settled: Promise<void> = Promise.resolve()
  readonly #context: ExportContext
  readonly #hosted: HostedExport
  readonly #home: RecordHome
  readonly #run: CloseRun
  /** Detached from the engine and not closed yet. */
  #detached: OpenImage | null = null
  #isOver = false

  constructor(context: ExportContext, hosted: HostedExport, home: RecordHome, options: CloseOptions) {
    this.#context = context
    this.#hosted = hosted
    this.#home = home
    const { durability } = hosted.definition
    const { unsubmitted, requests } = options
    const settings = { durability, unsubmitted, requests, predecessorDraining: false }
    this.#run = new CloseRun(settings, this.#actions(options), context.now)
    this.ended = this.#run.ended.then((end) => {
      this.#isOver = true
      return end
    })
  }

  /** `broken` is called with a reason when a step fails in a way that is none of its outcomes. */
  begin(broken: (reason: string) => void): void {
    this.settled = this.#run
      .run()
      .catch((error: unknown) => {
        broken(error instanceof Error ? error.message : String(error))
      })
      .then(() => this.#closeDetached())
    void this.#reportProgress()
  }

  /** True: the generation goes on, and the caller lets the gate admit again. False: it is too late. */
  cancel(): boolean {
    return this.#run.cancel()
  }

  fault(reason: string): void {
    this.#run.fault(reason)
  }

  /** How it ended; rejects with `still-draining` when it has not within that time. It goes on all the same. */
  async endWithin(timeoutMs: number | null): Promise<CloseEnd> {
    if (timeoutMs === null) return this.ended
    const bound = new AbortController()
    const late = sleep(timeoutMs, null, { signal: bound.signal }).catch(() => null)
    const end = await Promise.race([this.ended, late])
    bound.abort()
    if (end === null) throw await this.#stillDraining(timeoutMs)
    return end
  }

  #actions(options: CloseOptions): CloseActions {
    const { data, definition } = this.#hosted
    const nonce = options.nonce ?? randomBytes(16).toString('hex')
    return {
      shutGate: (requests, abort) => data.setGate({ reads: requests, writes: requests }, abort),
      drain: () => data.drain(),
      predecessorCleared: () => Promise.resolve(),
      sync: () => data.sync(),
      detach: async () => {
        data.allowGeneration(0)
        this.#detached = await data.detachFile()
      },
      closeDescriptor: () => this.#closeDetached(),
      proveLock: () => this.#proveLock(),
      receipt: (facts) => this.#buildReceipt(facts, options, nonce),
      record: (_facts, receipt) => (definition.readOnly ? Promise.resolve('done') : this.#record(receipt)),
    }
  }

  async #closeDetached(): Promise<void> {
    const image = this.#detached
    this.#detached = null
    if (image !== null) await closeImage(this.#context.images, image)
  }

  async #proveLock(): Promise<boolean> {
    const { definition, facts, generation } = this.#hosted
    if (definition.readOnly) return true
    const { realPath } = present(facts, 'the facts of an image that was open')
    const proof = await proveFreeByPath(this.#context.images, realPath, generation)
    return proof.kind === 'free'
  }

  #buildReceipt(facts: CloseFacts, options: CloseOptions, nonce: string): Receipt {
    const image = present(this.#hosted.facts, 'the facts of an image that was open')
    const { host, boot, instance } = this.#context.identity
    return buildReceipt({
      ...facts,
      export: this.#hosted.name,
      image: { path: image.realPath, size: image.sizeBytes, device: image.device, inode: image.inode },
      generation: this.#hosted.generation,
      holder: { host, boot, instance },
      closedAtMs: Date.now(),
      durability: this.#hosted.definition.durability,
      reason: options.reason,
      nonce,
      clearedBy: 'drain',
    })
  }

  async #record(receipt: Receipt): Promise<'done' | 'failed' | 'lost'> {
    const record = present(this.#hosted.record, 'the record of an export that was open')
    const image = imageIdentity(present(this.#hosted.facts, 'the facts of an image that was open'))
    const content = { ...record, image, state: 'closed', closeReason: receipt.reason, receipt } as const
    try {
      const outcome = await this.#home.compareAndSwap(record.sequence, content)
      if (!outcome.won) return 'lost'
      this.#hosted.recorded(outcome.record)
      return 'done'
    } catch (error) {
      const fields = { export: this.#hosted.name, error: String(error) }
      this.#context.log.warn(fields, 'the record of a close could not be written; it is tried again')
      return 'failed'
    }
  }

  async #stillDraining(timeoutMs: number): Promise<Refusal> {
    const { outstanding } = await describeExport(this.#context, this.#hosted)
    const left = outstanding.admitted + outstanding.held + outstanding.submitted
    const detail = `export '${this.#hosted.name}' is still closing after ${timeoutMs} ms: ${left} requests are outstanding`
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
