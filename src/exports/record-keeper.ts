/**
 * The record of an image as one export of this daemon changes it: one change at a time, each by compare-and-swap on top
 * of the newest, and only while that newest is of our own opening. What others may write beside us (a predecessor that
 * takes its entry away) is taken over and our change tried again; when somebody else has opened or wants to take over,
 * nothing is written any more. A newest record that cannot be understood is neither: nobody opens on top of it, and
 * nothing of ours is lost, so the change waits until it is repaired.
 */

import { assert, present } from '../foundation/assert.ts'
import { Refusal } from '../foundation/refusal.ts'
import type { Receipt } from '../interlock/receipt.ts'
import type { Newest, OwnershipRecord, RecordDraft, RecordHome } from '../ownership/home.ts'

/** `superseded`: it was written, and somebody else has opened on top of it. `declined`: nothing had to be changed. */
export type ChangeOutcome = 'done' | 'superseded' | 'declined' | 'lost'

/** What the record is to become; null where it stays as it is. */
export type Change = (record: OwnershipRecord) => RecordDraft | null

export class RecordKeeper {
  readonly home: RecordHome
  /** The newest record of our latest opening that we know of. */
  #own: OwnershipRecord | null = null
  #foundInstead: Newest = { kind: 'absent' }
  #turn: Promise<unknown> = Promise.resolve()

  constructor(home: RecordHome) {
    this.home = home
  }

  get own(): OwnershipRecord | null {
    return this.#own
  }

  /** What the latest change found in place of a record of ours, where it was `lost` or `superseded`. */
  get foundInstead(): Newest {
    return this.#foundInstead
  }

  /** From here on this is our opening. */
  take(record: OwnershipRecord): void {
    this.#own = record
  }

  /** Whether the record is of our opening, and nobody is about to take that over. */
  isOurs(record: OwnershipRecord): boolean {
    const own = this.#own
    if (own === null || record.intent !== null) return false
    return record.generation === own.generation && record.holder.openToken === own.holder.openToken
  }

  /** Whether somebody else has opened since, or is about to. An older record than the one we know says nothing. */
  isLost(record: OwnershipRecord): boolean {
    return this.#own !== null && record.sequence > this.#own.sequence && !this.isOurs(record)
  }

  /**
   * Rejects where the home cannot be reached: then it is not known whether it was written; and with `record-unreadable`.
   * Asking again is harmless.
   */
  change(content: Change): Promise<ChangeOutcome> {
    return this.#exclusively(() => this.#change(content))
  }

  /**
   * The end of a generation that was handed over early: closed where nobody has opened since, else only its entry goes.
   * Somebody with a proof of his own may have taken the entry away before. A takeover that has begun is no obstacle: what
   * it wants to make certain is certain now.
   */
  endDraining(receipt: Receipt): Promise<void> {
    return this.#exclusively(async () => {
      for (;;) {
        const own = present(this.#own, 'a record of our own')
        const newest = recordOf(await this.home.readNewest())
        if (newest?.generation !== own.generation || newest.holder.openToken !== own.holder.openToken) break
        const closed = { ...newest, state: 'closed', closeReason: receipt.reason, receipt, intent: null } as const
        const draft = { ...closed, draining: without(newest, own.generation) }
        const outcome = await this.home.compareAndSwap(newest.sequence, draft)
        const written = outcome.won ? outcome.record : outcome.superseded
        if (written === null) continue
        this.#own = written
        return
      }
      await this.#removeDraining(receipt.generation)
    })
  }

  /** Takes away the entry of a generation that is proved to be over, whoever holds the image now. */
  removeDraining(generation: number): Promise<void> {
    return this.#exclusively(() => this.#removeDraining(generation))
  }

  /** Waits for what is under way. */
  async close(): Promise<void> {
    await this.#turn
    await this.home.close()
  }

  async #change(content: Change): Promise<ChangeOutcome> {
    for (;;) {
      const own = present(this.#own, 'a record of our own')
      const draft = content(own)
      if (draft === null) return 'declined'
      const outcome = await this.home.compareAndSwap(own.sequence, draft)
      if (outcome.won) {
        this.#own = outcome.record
        return 'done'
      }
      if (outcome.superseded !== null) this.#own = outcome.superseded
      const newest = recordOf(outcome.newest)
      if (newest === null || !this.isOurs(newest)) {
        this.#foundInstead = outcome.newest
        return outcome.superseded === null ? 'lost' : 'superseded'
      }
      this.#own = newest
      if (outcome.superseded !== null) return 'done'
    }
  }

  async #removeDraining(generation: number): Promise<void> {
    for (;;) {
      const newest = recordOf(await this.home.readNewest())
      if (newest === null || !isDraining(newest, generation)) return
      assert(newest.state !== 'closing' || newest.generation !== generation, 'an early close ends by its own close')
      const draft = { ...newest, draining: without(newest, generation) }
      const outcome = await this.home.compareAndSwap(newest.sequence, draft)
      const written = outcome.won ? outcome.record : outcome.superseded
      if (written !== null) {
        if (this.isOurs(written)) this.#own = written
        return
      }
    }
  }

  #exclusively<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(work)
    this.#turn = result.catch(() => undefined)
    return result
  }
}

export function isDraining(record: OwnershipRecord, generation: number): boolean {
  return record.draining.some((entry) => entry.generation === generation)
}

function without(record: OwnershipRecord, generation: number): OwnershipRecord['draining'] {
  return record.draining.filter((entry) => entry.generation !== generation)
}

/** Null where there is none. Throws `record-unreadable` where nobody can say what it is. */
function recordOf(newest: Newest): OwnershipRecord | null {
  if (newest.kind !== 'unreadable') return newest.kind === 'record' ? newest.record : null
  throw new Refusal(
    'record-unreadable',
    `the newest ownership record cannot be understood: ${newest.detail}; 'interlockctl record repair' mends it`,
  )
}
