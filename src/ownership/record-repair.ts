/**
 * What can be done about a newest record that cannot be understood: a new one is written on top of it, by the ordinary
 * compare-and-swap, that carries on the newest one which can be. Nothing is removed, and what is unreadable is kept under
 * another name as well. An operator asks for it; no daemon does.
 *
 * What the lost record said nobody knows, so the new one says no more than is certain:
 * 1. Where one record is lost and the one before it had a holder, it is `fenced`, of that holder and generation: whoever
 *    opens needs the ordinary proof that the holder's writes are over, and a holder who lives goes on. Whoever had proved
 *    that and written the lost one had not come further than `opening`, in which nothing is written to an image that
 *    nobody has closed.
 * 2. Where anybody could have opened, it is `closed` on the operator's word that nobody writes, and only then. The
 *    generation grows by as much as the lost records can have made it grow, so that none is used twice.
 */

import { Refusal } from '../foundation/refusal.ts'
import { sequenceOf } from './home.ts'
import type { Newest, OwnershipRecord, RecordDraft, RecordHome } from './home.ts'
import { handedEarly } from './opening-rule.ts'
import { isOfAnotherVersion } from './record-format.ts'

export interface RepairOptions {
  /** The operator's word: no host has the image open, and none has writes under way. */
  readonly nobodyWrites: boolean
}

export interface RepairPlan {
  /** The unreadable record that is written on top of. */
  readonly on: number
  /** The readable one that is carried on. */
  readonly from: OwnershipRecord
  readonly draft: RecordDraft
}

export interface Repaired {
  readonly record: OwnershipRecord
  readonly from: OwnershipRecord
  /** Where the unreadable record is kept; null where the home keeps none. */
  readonly aside: string | null
}

const NOTHING_KNOWN = { receipt: null, intent: null, cleared: null } as const

/** All records that are left, oldest first, of a home that may know its newest only. */
export async function readRecords(home: RecordHome): Promise<readonly Newest[]> {
  const records = (await home.readAll?.()) ?? [await home.readNewest()]
  return records.filter(({ kind }) => kind !== 'absent')
}

/** Throws the Refusal where nothing has to be repaired, or nothing can be without the operator's word. */
export function planRepair(records: readonly Newest[], { nobodyWrites }: RepairOptions): RepairPlan {
  const newest = records.at(-1)
  if (newest === undefined) throw new Refusal('not-found', 'there is no record, and so nothing to repair')
  if (newest.kind !== 'unreadable') {
    throw new Refusal('wrong-state', `the newest record, ${sequenceOf(newest)}, can be understood: nothing to repair`)
  }
  const { sequence, detail } = newest
  if (isOfAnotherVersion(detail)) {
    throw new Refusal(
      'record-unreadable',
      `${detail}: it is not damaged; use the program that wrote it, or a later one`,
    )
  }
  const from = records.findLast((each) => each.kind === 'record')?.record
  if (from === undefined) {
    throw new Refusal(
      'record-unreadable',
      'no readable record is left to carry on; once it is certain that no host has the image open, move the whole ' +
        'folder (or the key) away, and the image begins anew',
    )
  }
  const lost = sequence - from.sequence
  const doubt = whoElse(from, lost)
  if (doubt !== null && !nobodyWrites) {
    throw new Refusal(
      'record-unreadable',
      `${doubt}, and the lost record may name a holder whom nothing else names. Look on every host that it is not ` +
        "open; then say so: 'record repair --nobody-writes'",
    )
  }
  const { version: _version, sequence: _sequence, ...rest } = from
  const draft: RecordDraft = nobodyWrites
    ? { ...rest, ...NOTHING_KNOWN, generation: from.generation + lost, state: 'closed', closeReason: 'handover' }
    : { ...rest, ...NOTHING_KNOWN, state: 'fenced', closeReason: null }
  return { on: sequence, from, draft }
}

/** Rejects as `planRepair` throws; and where somebody else has written meanwhile, which may be as good. */
export async function repairRecord(home: RecordHome, options: RepairOptions): Promise<Repaired> {
  const { on, from, draft } = planRepair(await readRecords(home), options)
  const aside = (await home.setAside?.(on)) ?? null
  const outcome = await home.compareAndSwap(on, draft)
  if (outcome.won) return { record: outcome.record, from, aside }
  const sequence = sequenceOf(outcome.newest)
  throw new Refusal('held-by-other', `somebody else was first: the newest record is ${sequence} now; look at it again`)
}

/** Why somebody else than the holder of that record may have written what was lost; null where nobody can have. */
function whoElse({ state, intent, ...record }: OwnershipRecord, lost: number): string | null {
  if (lost > 1) return `${lost} records are lost`
  if (state === 'closed') return 'the record before it is closed, so anybody could have opened'
  if (intent !== null) return `${intent.by.name} (${intent.by.host}) was taking the image over`
  if (handedEarly({ state, intent, ...record }))
    return 'the record before it was handed over, so anybody could have opened'
  return null
}
