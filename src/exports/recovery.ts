/**
 * Finishing the close of a run that died while it closed: its writes are waited for, what they wrote is made durable, and
 * the end is recorded with a receipt that says by which proof. Numbers of requests nobody knows any more; the receipt
 * counts none. It never gives up by itself: it ends with the proof, or when it is abandoned for an opening.
 */

import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { faultPoint } from '../fault-points/fault-point.ts'
import { buildReceipt } from '../interlock/receipt.ts'
import type { ClearedBy, Receipt } from '../interlock/receipt.ts'
import { proveFree } from '../ownership/generation-lock.ts'
import type { OwnershipRecord } from '../ownership/home.ts'
import { OPEN } from '../posix/file.ts'
import type { ExportContext } from './export-context.ts'
import type { ImageFacts } from './image.ts'
import type { RecordKeeper } from './record-keeper.ts'
import type { ExportDefinition } from './verbs.ts'

const INTERVAL_MS = 50
const RETRY_MS = 500

export interface UnfinishedClose {
  readonly definition: ExportDefinition
  readonly ownership: {
    readonly keeper: RecordKeeper
    keepReceipt(receipt: Receipt, facts: ImageFacts): Promise<void>
  }
  readonly facts: ImageFacts
  /** The newest, or the one that names our generation as draining. */
  readonly record: OwnershipRecord
  readonly generation: number
}

export class Recovery {
  readonly generation: number
  /** The receipt; null where it was abandoned. */
  readonly finished: Promise<Receipt | null>
  readonly #context: ExportContext
  readonly #unfinished: UnfinishedClose
  readonly #beganAtMs: number
  #abandoned = false

  constructor(context: ExportContext, unfinished: UnfinishedClose) {
    this.generation = unfinished.generation
    this.#context = context
    this.#unfinished = unfinished
    this.#beganAtMs = context.now()
    this.finished = this.#run()
  }

  /** Settles when nothing of it is under way. */
  async abandon(): Promise<void> {
    this.#abandoned = true
    await this.finished
  }

  async #run(): Promise<Receipt | null> {
    while (!this.#abandoned) {
      try {
        const receipt = await this.#attempt()
        if (receipt !== null) return receipt
      } catch (error) {
        const fields = { export: this.#unfinished.definition.name, error: String(error) }
        this.#context.log.warn(fields, 'the close of the last run could not be finished; it is tried again')
        await sleep(RETRY_MS)
      }
    }
    return null
  }

  async #attempt(): Promise<Receipt | null> {
    const { facts, generation, ownership, record } = this.#unfinished
    const runner = this.#context.images
    const descriptor = await runner.run({ kind: 'open', path: facts.realPath, flags: OPEN.readOnly, mode: 0 })
    if (descriptor < 0) throw new Error(`${facts.realPath} cannot be opened: ${descriptor}`)
    try {
      while ((await proveFree(runner, descriptor, generation)).kind !== 'free') {
        if (this.#abandoned) return null
        await sleep(INTERVAL_MS)
      }
      const synced = await runner.run({ kind: 'fdatasync', descriptor })
      if (synced < 0) throw new Error(`what the last run wrote cannot be made durable: ${synced}`)
    } finally {
      await runner.run({ kind: 'close', descriptor })
    }
    if (this.#abandoned) return null
    const receipt = this.#receipt()
    await faultPoint('recovery: proved')
    // First here, as at the end of a close: what the record says of it may be gone before a crash here is over.
    await ownership.keepReceipt(receipt, facts)
    await faultPoint('recovery: receipt kept')
    if (record.generation === generation) {
      ownership.keeper.take(record)
      await ownership.keeper.endDraining(receipt)
    } else {
      await ownership.keeper.removeDraining(generation)
    }
    await faultPoint('recovery: recorded')
    return receipt
  }

  #receipt(): Receipt {
    const { definition, facts, generation, record } = this.#unfinished
    const { host, boot, instance } = this.#holder()
    const totalMs = this.#context.now() - this.#beganAtMs
    return buildReceipt({
      export: definition.name,
      image: { path: facts.realPath, size: facts.sizeBytes, device: facts.device, inode: facts.inode },
      generation,
      holder: { host, boot, instance },
      closedAtMs: Date.now(),
      durability: definition.durability,
      drained: { requests: 0, writes: 0, bytes: 0 },
      aborted: [],
      indeterminate: [],
      reason: record.generation === generation ? (record.closeReason ?? 'handover') : 'handover',
      nonce: randomBytes(16).toString('hex'),
      clearedBy: this.#clearedBy(),
      elapsedMs: { drain: totalMs, sync: 0, record: 0, total: totalMs },
    })
  }

  #clearedBy(): ClearedBy {
    return this.#holder().boot === this.#context.host.identity.boot ? 'lock' : 'reboot'
  }

  #holder(): OwnershipRecord['holder'] {
    const { record, generation } = this.#unfinished
    return record.draining.find((entry) => entry.generation === generation)?.holder ?? record.holder
  }
}
