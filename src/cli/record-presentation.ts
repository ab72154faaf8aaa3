/**
 * Ownership records for a person at a terminal: one line for each, with what is wrong with those that cannot be
 * understood, then the newest in full. Programs get the records themselves.
 */

import type { Newest, OwnershipRecord, RecordHolder, Repaired, RepairPlan } from '../local-record.ts'
import { printable, receiptDetails } from './presentation.ts'
import { listing, table } from './table.ts'
import type { Column } from './table.ts'

export type ShownRecord =
  | { readonly sequence: number; readonly valid: true; readonly record: OwnershipRecord }
  | { readonly sequence: number; readonly valid: false; readonly detail: string }

/** As programs get it. */
export interface ShownRecords {
  readonly place: string
  /** Oldest first. */
  readonly records: readonly ShownRecord[]
}

export function shownRecords(place: string, records: readonly Newest[]): ShownRecords {
  return { place, records: records.flatMap(shownRecord) }
}

const COLUMNS: readonly Column<ShownRecord>[] = [
  { heading: 'RECORD', right: true, cell: ({ sequence }) => String(sequence) },
  { heading: 'VALID', cell: ({ valid }) => (valid ? 'yes' : 'NO') },
  { heading: 'STATE', cell: (shown) => (shown.valid ? shown.record.state : '') },
  { heading: 'GENERATION', right: true, cell: (shown) => (shown.valid ? String(shown.record.generation) : '') },
  { heading: 'HOLDER', cell: (shown) => (shown.valid ? holderText(shown.record.holder) : '') },
  { heading: 'NOTE', cell: (shown) => (shown.valid ? notesOf(shown.record).join('; ') : printable(shown.detail)) },
]

export function recordDetails({ place, records }: ShownRecords): string {
  const newest = records.at(-1)
  if (newest === undefined) return `no records in ${printable(place)}`
  const verdict = newest.valid
    ? newestDetails(newest.record)
    : `the newest record, ${newest.sequence}, cannot be understood: nobody opens the image before it is repaired`
  return `${table(COLUMNS, records)}\n\n${verdict}`
}

export function planDetails({ on, from, draft }: RepairPlan): string {
  return (
    `would write record ${on + 1} on top of the unreadable ${on}: ${draft.state}, generation ${draft.generation}, ` +
    `carried on from record ${from.sequence} of ${holderText(from.holder)}`
  )
}

export function repairedDetails({ record, from, aside }: Repaired): string {
  const { sequence, state, generation } = record
  return [
    `record ${sequence} is the newest now: ${state}, generation ${generation}, carried on from record ${from.sequence}`,
    aside === null ? 'the unreadable record is still there' : `the unreadable record is kept as ${printable(aside)}`,
    state === 'closed'
      ? "'open' opens it, on any host"
      : `whoever opens it needs the ordinary proof that the writes of ${holderText(record.holder)} are over`,
  ].join('\n')
}

function newestDetails(record: OwnershipRecord): string {
  const { image, holder, intent, draining, cleared, receipt } = record
  const details = listing([
    ['image id', printable(record.imageId)],
    ['image', `${printable(image.realPath)} (${image.wwid === null ? `inode ${image.inode}` : printable(image.wwid)})`],
    ['links', image.links > 1 ? `${image.links} hard links, adopted` : null],
    ['state', record.closeReason === null ? record.state : `${record.state} for ${record.closeReason}`],
    ['generation', String(record.generation)],
    ['holder', `${holderText(holder)}, boot ${holder.boot}, run ${holder.instance}`],
    ['takeover', intent === null ? null : `by ${holderText(intent.by)} since ${intent.since}`],
    ['draining', draining.map((entry) => `generation ${entry.generation} of ${holderText(entry.holder)}`).join(', ')],
    ['cleared', cleared === null ? null : `generation ${cleared.generation} by ${cleared.by}`],
  ])
  return receipt === null ? details : `${details}\n\nreceipt\n${receiptDetails(receipt)}`
}

function shownRecord(newest: Newest): readonly ShownRecord[] {
  switch (newest.kind) {
    case 'absent':
      return []
    case 'unreadable':
      return [{ sequence: newest.sequence, valid: false, detail: newest.detail }]
    case 'record':
      return [{ sequence: newest.record.sequence, valid: true, record: newest.record }]
  }
}

function notesOf({ closeReason, receipt, intent, draining, state, cleared }: OwnershipRecord): string[] {
  return [
    ...(closeReason === null ? [] : [`for ${closeReason}`]),
    ...(receipt === null ? [] : [`at ${receipt.closedAt}`]),
    ...(state === 'closed' && receipt === null ? ['without a receipt'] : []),
    ...(intent === null ? [] : [`takeover by ${printable(intent.by.name)}`]),
    ...(cleared === null ? [] : [`generation ${cleared.generation} cleared by ${cleared.by}`]),
    ...draining.map(({ generation, ranges }) => `generation ${generation} drains ${ranges.length} ranges`),
  ]
}

function holderText({ name, host }: RecordHolder): string {
  return `${printable(name)} (${host.slice(0, 8)})`
}
