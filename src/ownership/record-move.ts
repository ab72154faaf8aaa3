/**
 * Takes a closed record from one home to another, so that at no moment both of them open the image, and whoever still
 * looks at the old one is told where the record is.
 *
 *     the record as `arriving` at the new home ─▶ `gone` at the old one ─▶ the record itself at the new one
 *
 * Each step is a swap against what was read, so an opening in between wins over the move. Until the second step the old
 * home opens and the new one does not; after it neither does, until the third. A move that was interrupted anywhere is
 * finished by asking for it again.
 */

import { Refusal } from '../foundation/refusal.ts'
import type { HomeChange, Newest, OwnershipRecord, RecordDraft, RecordHome } from './home.ts'
import { sequenceOf } from './home.ts'

export interface RecordMove {
  readonly from: RecordHome
  readonly to: RecordHome
  /** The image's id at the new home. */
  readonly imageId: string
  /** ISO 8601, UTC. */
  readonly now: string
}

export interface MovedRecord {
  /** False: it was there already, and nothing had to be done. */
  readonly moved: boolean
  readonly generation: number
  readonly from: string
  readonly to: string
}

/** Rejects with a Refusal where the record is not closed, or another one is in the way; then it is where it was. */
export async function moveRecord(move: RecordMove): Promise<MovedRecord> {
  const { from, to, now } = move
  if (from.describe() === to.describe()) throw refused(`both homes are ${from.describe()}`)
  const source = readable(await from.readNewest(), from)
  const target = await to.readNewest()
  if (source === null) throw refused(`there is no record in ${from.describe()}`)
  const outcome = { generation: source.generation, from: from.describe(), to: to.describe() }
  if (source.moved?.direction === 'gone') return { ...outcome, moved: await finish(move, source, target, source.moved) }
  refuseUnlessAtRest(source, from)
  refuseUnlessFree(readable(target, to), source, to)
  const arriving: HomeChange = { direction: 'arriving', home: from.describe(), since: now }
  const arrived = await swapped(to, sequenceOf(target), { ...plain(source, move.imageId), moved: arriving })
  const gone: HomeChange = { direction: 'gone', home: to.describe(), since: now }
  await swapped(from, source.sequence, { ...source, moved: gone })
  await complete(move, arrived)
  return { ...outcome, moved: true }
}

/** The old home says that the record is gone. True: the last step was left to do. */
async function finish(
  move: RecordMove,
  source: OwnershipRecord,
  target: Newest,
  { home }: HomeChange,
): Promise<boolean> {
  const record = readable(target, move.to)
  const where = `the record has moved to ${home}`
  if (record === null) throw refused(`${where}, and there is none in ${move.to.describe()}`)
  if (record.moved?.direction === 'gone')
    throw refused(`${where}, and from ${move.to.describe()} to ${record.moved.home}`)
  if (record.generation < source.generation) {
    throw refused(`${where} with generation ${source.generation}; that in ${move.to.describe()} is of another life`)
  }
  if (record.moved === undefined) return false
  await complete(move, record)
  return true
}

/** Somebody may open at once: then it has been complete before. */
async function complete({ to, imageId }: RecordMove, arrived: OwnershipRecord): Promise<void> {
  const outcome = await to.compareAndSwap(arrived.sequence, plain(arrived, imageId))
  if (!outcome.won && outcome.superseded === null) throw changed(to)
}

async function swapped(home: RecordHome, expected: number, draft: RecordDraft): Promise<OwnershipRecord> {
  const outcome = await home.compareAndSwap(expected, draft)
  if (!outcome.won) throw changed(home)
  return outcome.record
}

/** As it is where nothing has moved. */
function plain(record: OwnershipRecord, imageId: string): RecordDraft {
  const { moved: _moved, ...rest } = record
  return { ...rest, imageId }
}

function refuseUnlessAtRest(record: OwnershipRecord, home: RecordHome): void {
  const { state, generation, holder, draining, intent, moved } = record
  const where = `the record in ${home.describe()}`
  if (moved !== undefined) {
    throw refused(`${where} was to come from ${moved.home}, and that move was not finished: ask for that one again`)
  }
  if (state !== 'closed') {
    throw refused(`${where} says that ${holder.name} has generation ${generation}, which is ${state}: 'close' it first`)
  }
  if (draining.length > 0) throw refused(`${where} names writes that are still draining`)
  if (intent !== null) throw refused(`${where} names a takeover that was begun and not finished`)
}

/** What the new home may have is an earlier move's, or a record that has gone from there before. */
function refuseUnlessFree(found: OwnershipRecord | null, source: OwnershipRecord, home: RecordHome): void {
  if (found === null) return
  if (found.moved?.direction === 'arriving') return
  if (found.moved !== undefined && found.generation <= source.generation) return
  const { generation, state, image } = found
  throw refused(`${home.describe()} has a record already: generation ${generation}, ${state}, of ${image.realPath}`)
}

function readable(newest: Newest, home: RecordHome): OwnershipRecord | null {
  switch (newest.kind) {
    case 'absent':
      return null
    case 'record':
      return newest.record
    case 'unreadable':
      throw new Refusal('record-unreadable', `the record in ${home.describe()} cannot be understood: ${newest.detail}`)
  }
}

function changed(home: RecordHome): Refusal {
  return refused(`the record in ${home.describe()} was changed meanwhile: look at it, and ask again`)
}

function refused(detail: string): Refusal {
  return new Refusal('wrong-state', detail)
}
