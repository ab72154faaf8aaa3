/**
 * Generations before ours that were handed over early: their listed writes may still land, so ours wait where they
 * overlap. A generation is over when its entry has gone from the record, when its lock has come free where locks prove
 * that, or when somebody brings a proof; then its holds fall. No time that passes lets go of anything: whoever waits too
 * long is told of by an event, again and again, because a guest is waiting.
 */

import { faultPoint } from '../fault-points/fault-point.ts'
import { Refusal } from '../foundation/refusal.ts'
import type { Hold } from '../interlock/range.ts'
import { proveFree } from '../ownership/generation-lock.ts'
import type { DrainingEntry, OwnershipRecord } from '../ownership/home.ts'
import { locksProve } from '../ownership/kinship.ts'
import { WorkerGone } from '../plane-link/data-worker.ts'
import type { DataSide } from './data-side.ts'
import type { ExportContext } from './export-context.ts'
import type { OwnershipSide } from './ownership-side.ts'
import { isDraining } from './record-keeper.ts'
import type { ExportDefinition } from './verbs.ts'

const INTERVAL_MS = 50

export class Predecessor {
  readonly #context: ExportContext
  readonly #definition: ExportDefinition
  readonly #ownership: OwnershipSide
  readonly #data: DataSide
  #entries: readonly DrainingEntry[] = []
  #sinceMs = 0
  #alarmedMs = 0
  #watching: Promise<void> = Promise.resolve()
  #ended = true

  constructor(context: ExportContext, definition: ExportDefinition, ownership: OwnershipSide, data: DataSide) {
    this.#context = context
    this.#definition = definition
    this.#ownership = ownership
    this.#data = data
  }

  /** What is still draining. */
  get entries(): readonly DrainingEntry[] {
    return this.#entries
  }

  /** How long writes have been held back; 0 when none are. */
  get heldForMs(): number {
    return this.#entries.length === 0 ? 0 : Math.max(0, this.#context.now() - this.#sinceMs)
  }

  /** Settles when nothing drains any more, or when `end` was called. */
  get cleared(): Promise<void> {
    return this.#watching
  }

  /** Before any write of ours is admitted. */
  async begin(record: OwnershipRecord): Promise<void> {
    this.#entries = record.draining
    if (this.#entries.length === 0) return
    this.#sinceMs = this.#context.now()
    this.#alarmedMs = 0
    this.#ended = false
    const holding = this.#data.hold(record.draining.flatMap(holdsOf))
    const generations = this.#entries.map(({ generation }) => generation)
    this.#context.log.info({ export: this.#definition.name, generations }, 'a predecessor is draining: its ranges wait')
    await holding
    this.#watching = this.#watch()
  }

  /** Whoever held them back is proved to be over; the proof is the caller's. */
  async clear(generation: number): Promise<void> {
    await faultPoint('clear: proved')
    try {
      await this.#ownership.keeper.removeDraining(generation)
    } catch (error) {
      // The entry stays there, of a generation that is proved to be over: that holds nobody up.
      if (!(error instanceof Refusal) || error.code !== 'record-unreadable') throw error
      this.#context.log.warn({ export: this.#definition.name, generation, error: error.message }, 'its entry stays')
    }
    await faultPoint('clear: removed')
    await this.#release(generation)
  }

  /** The image is let go of: nothing is held here any more, and the record stays as it is. */
  async end(): Promise<void> {
    this.#ended = true
    await this.#watching
    this.#entries = []
  }

  async #watch(): Promise<void> {
    while (!this.#ended && this.#entries.length > 0) {
      try {
        await this.#look()
      } catch (error) {
        if (error instanceof WorkerGone) return
        this.#context.log.debug(
          { export: this.#definition.name, error: String(error) },
          'a predecessor could not be asked about',
        )
      }
      this.#alarm()
      if (this.#entries.length > 0) await this.#ownership.pause(INTERVAL_MS)
    }
  }

  async #look(): Promise<void> {
    const newest = await this.#ownership.readNewest()
    for (const { generation, holder } of this.#entries) {
      if (newest.kind === 'record' && !isDraining(newest.record, generation)) {
        await this.#release(generation)
        continue
      }
      const { host } = this.#context
      if (!locksProve(await host.kinship(holder), this.#definition.clusterLocks)) continue
      const descriptor = this.#data.file?.descriptor
      if (descriptor?.open !== true) continue
      const proof = await proveFree(this.#context.images, descriptor.number, generation)
      if (proof.kind === 'free') await this.clear(generation)
    }
  }

  async #release(generation: number): Promise<void> {
    if (!this.#entries.some((entry) => entry.generation === generation)) return
    this.#entries = this.#entries.filter((entry) => entry.generation !== generation)
    await this.#data.release(generation)
    const heldMs = Math.round(this.#context.now() - this.#sinceMs)
    this.#context.log.info({ export: this.#definition.name, generation, heldMs }, 'a predecessor has cleared')
    this.#context.emit(this.#definition.name, { kind: 'hold', generation, change: 'released', ranges: 0, heldMs })
  }

  #alarm(): void {
    const heldMs = Math.round(this.heldForMs)
    if (heldMs < this.#alarmedMs + this.#context.holdAlarmMs) return
    this.#alarmedMs = heldMs
    for (const { generation, holder, ranges } of this.#entries) {
      const fields = { export: this.#definition.name, generation, holder, ranges: ranges.length, heldMs }
      this.#context.log.warn(fields, 'writes are held back for a predecessor: a guest may be waiting')
      const event = { kind: 'hold', generation, change: 'overdue', ranges: ranges.length, heldMs } as const
      this.#context.emit(this.#definition.name, event)
    }
  }
}

function holdsOf({ generation, ranges }: DrainingEntry): readonly Hold[] {
  return ranges.map((range) => ({ ...range, generation }))
}
