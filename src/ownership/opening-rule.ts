/**
 * Whether an image may be opened, decided from its newest record and nothing else: the record, what its holder is to us,
 * and what the operator has declared. Pure: who asks reads the record, waits, claims locks and fences.
 *
 *     record                    holder is                what opens it
 *     none, closed              anybody                  nothing more is needed
 *     closing, handed early     anybody                  nothing more; its listed writes are held back
 *     any other state           this run, a dead run     its generation's lock, free
 *                               a living run             its close, if it is closing or about to; else it is refused
 *                               an earlier boot          the reboot, where that is proof; else a fence
 *                               another host             its close or its lock, with cluster locks; else a fence
 *
 * No time that passes opens anything. A takeover that somebody has begun keeps everybody else out, until another one is
 * asked for deliberately; the host that it is against above all. A record that has another home opens nothing at all.
 */

import type { RefusalCode } from '../foundation/refusal.ts'
import type { ClearedBy, CloseReason, Durability } from '../interlock/receipt.ts'
import type { HomeChange, Newest, OwnershipRecord, RecordHolder, TakeoverIntent } from './home.ts'
import type { Kinship } from './kinship.ts'
import { isThisHost } from './kinship.ts'

export interface OpeningQuestion {
  readonly newest: Newest
  /** Of the record's holder; 'other-host' where there is no record. */
  readonly holder: Kinship
  /** Its generation was fenced by a run of this host: whatever its record says, that is never called closed. */
  readonly holderFenced: boolean
  /** Of those whom an intent names. */
  readonly intentBy: Kinship
  readonly intentAgainst: Kinship
  /** The image is the recorded one, by measured or by declared identity. */
  readonly imageMatches: boolean
  /** The operator's statement that locks of other hosts are proof on this storage. */
  readonly clusterLocks: boolean
  /** The storage is this host's own, or the operator has said that its reboot is proof. */
  readonly rebootIsProof: boolean
  /** The operator wants the holder fenced where nothing less will do. */
  readonly takeover: boolean
  /** Whoever asks knows that the holder is about to be closed. */
  readonly awaitClose: boolean
}

interface Refused {
  readonly code: RefusalCode
  readonly reason: string
}

export type OpeningDecision =
  /** At once, once the locks are claimed. `clearedBy` is null where there was nothing to be cleared. */
  | { readonly act: 'open'; readonly clearedBy: ClearedBy | null }
  /** Once its lock is free; refused when it is not in time. */
  | ({ readonly act: 'awaitLock' } & Refused)
  /** Once the record says closed; when it does not in time, `lockProves` says whether a free lock will do. */
  | ({ readonly act: 'awaitClose'; readonly lockProves: boolean } & Refused)
  | { readonly act: 'fence'; readonly against: RecordHolder }
  | ({ readonly act: 'refuse' } & Refused)

export function decideOpening(question: OpeningQuestion): OpeningDecision {
  const { newest } = question
  switch (newest.kind) {
    case 'absent':
      return { act: 'open', clearedBy: null }
    case 'unreadable':
      return {
        act: 'refuse',
        code: 'record-unreadable',
        reason: `the newest ownership record cannot be understood: ${newest.detail}; look with 'interlockctl record show'`,
      }
    case 'record':
      return decideByRecord(newest.record, question)
  }
}

function decideByRecord(record: OwnershipRecord, question: OpeningQuestion): OpeningDecision {
  if (record.moved !== undefined) return refuseMoved(record.moved)
  if (!question.imageMatches) {
    const { realPath, inode, wwid } = record.image
    const known = wwid ?? `${realPath}, inode ${inode}`
    return {
      act: 'refuse',
      code: 'image-changed',
      reason: `the record is of another image (${known}); if this is the right one, 'interlockctl adopt' says so`,
    }
  }
  if (record.intent !== null && !question.takeover) return refuseForIntent(record.intent, question)
  if (record.state === 'closed' || handedEarly(record)) return { act: 'open', clearedBy: null }
  return decideByHolder(record, question)
}

/** Whoever asks has the configuration of another time, or comes in the middle of a move. */
function refuseMoved({ direction, home, since }: HomeChange): OpeningDecision {
  const reason =
    direction === 'gone'
      ? `since ${since} the ownership record is ${home}, and no longer where this daemon looks for it: see [ownership]`
      : `a move of the ownership record to here, from ${home}, was begun at ${since} and not finished: ask for it again`
  return { act: 'refuse', code: 'record-moved', reason }
}

function decideByHolder(record: OwnershipRecord, question: OpeningQuestion): OpeningDecision {
  const closing = record.state === 'closing'
  const awaited = question.awaitClose && (record.state === 'open' || record.state === 'opening')
  const held: Refused = { code: 'held-by-other', reason: heldBy(record) }
  switch (question.holder) {
    case 'this-run':
    case 'dead-run':
      return {
        act: 'awaitLock',
        code: 'image-in-use',
        reason: `${heldBy(record)}; that run is over, and the last of its writes have not cleared yet`,
      }
    case 'living-run':
      // To fence this host, on this very boot, would end whoever asks.
      if (closing) return { act: 'awaitClose', lockProves: true, ...held }
      if (awaited) return { act: 'awaitClose', lockProves: false, ...held }
      return { act: 'refuse', code: held.code, reason: `${held.reason}, by a daemon that lives on this host` }
    case 'earlier-boot':
      if (question.rebootIsProof) return { act: 'open', clearedBy: 'reboot' }
      if (question.takeover) return { act: 'fence', against: record.holder }
      return {
        act: 'refuse',
        code: held.code,
        reason: `${held.reason}; this host has rebooted since, which proves nothing about remote storage`,
      }
    case 'other-host':
      if (question.takeover) return { act: 'fence', against: record.holder }
      if (closing) return { act: 'awaitClose', lockProves: question.clusterLocks, ...held }
      if (question.clusterLocks) return { act: 'awaitLock', ...held }
      if (awaited) return { act: 'awaitClose', lockProves: false, ...held }
      return { act: 'refuse', ...held }
  }
}

function refuseForIntent(intent: TakeoverIntent, question: OpeningQuestion): OpeningDecision {
  const { name, host } = intent.by
  const begun = `${name} (${host}) has begun to take it over since ${intent.since}`
  const code = 'held-by-other'
  if (isThisHost(question.intentAgainst)) {
    return { act: 'refuse', code, reason: `${begun}, from this host, which stays in standby` }
  }
  if (isThisHost(question.intentBy)) {
    return { act: 'refuse', code, reason: `this host has begun to take it over and did not finish: ask for it again` }
  }
  return { act: 'refuse', code, reason: begun }
}

/** Whether the newest generation was closed early: everything that may still be written is listed. */
export function handedEarly(record: OwnershipRecord): boolean {
  return record.state === 'closing' && record.draining.some(({ generation }) => generation === record.generation)
}

function heldBy({ holder, generation, state }: OwnershipRecord): string {
  return `${holder.name} (${holder.host}) has generation ${generation}, which is ${state}`
}

export type StartDecision =
  { readonly act: 'open' } | { readonly act: 'standby'; readonly reason: string } | { readonly act: 'finishClose' }

/** What a starting daemon does with an image by itself, where its configuration does not want it in standby. */
export function decideStart(question: OpeningQuestion, durability: Durability): StartDecision {
  const { newest } = question
  if (newest.kind === 'absent') return { act: 'open' }
  if (newest.kind === 'unreadable') return waitFor(decideOpening(question))
  const { record } = newest
  const isOut = !question.imageMatches || record.intent !== null || record.moved !== undefined
  if (isOut) return waitFor(decideOpening({ ...question, takeover: false }))
  const { closeReason, holder } = record
  const own = isThisHost(question.holder)
  switch (record.state) {
    case 'closed':
      if (closeReason === 'handover') return { act: 'standby', reason: `it was handed over by ${holder.name}` }
      if (own) return { act: 'open' }
      return {
        act: 'standby',
        reason: `${holder.name} (${holder.host}) has shut down, and opens it again when it starts`,
      }
    case 'closing':
      return question.holderFenced ? startOfFenced(record) : startOfClosing(question, closeReason, durability)
    case 'fenced':
      return startOfFenced(record)
    case 'opening':
    case 'open': {
      if (question.holderFenced) return startOfFenced(record)
      const decision = decideOpening(question)
      const mayOpen = own && (decision.act === 'open' || decision.act === 'awaitLock')
      return mayOpen ? { act: 'open' } : waitFor(decision)
    }
  }
}

function startOfFenced({ generation }: OwnershipRecord): StartDecision {
  return { act: 'standby', reason: `generation ${generation} was fenced; it is opened only when asked to be` }
}

/** The last run, or somebody else's, was closing it. */
function startOfClosing(
  question: OpeningQuestion,
  closeReason: CloseReason | null,
  durability: Durability,
): StartDecision {
  const { holder, rebootIsProof } = question
  const proved = holder === 'this-run' || holder === 'dead-run' || (holder === 'earlier-boot' && rebootIsProof)
  if (!proved) return waitFor(decideOpening(question))
  // What failed between the last sync and the crash nobody knows: that generation is never called closed.
  if (durability === 'sync') return { act: 'finishClose' }
  if (closeReason === 'shutdown') return { act: 'open' }
  return { act: 'standby', reason: 'the last run died while it closed, in writeback: nothing proves what it wrote' }
}

function waitFor(decision: OpeningDecision): StartDecision {
  return { act: 'standby', reason: 'reason' in decision ? decision.reason : 'another holder has it' }
}
