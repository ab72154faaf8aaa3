/**
 * What an export sees of its image and of its record, for whoever compares two ends of a handover. The record is read from
 * its home now, not remembered. Its fingerprint is made of the random token of the opening that it names and of its
 * sequence: two daemons that give the same one have read the same record in the same place, and a copy of the records
 * made earlier gives another one as soon as the holder has renewed the original.
 */

import { createHash } from 'node:crypto'
import { Refusal } from '../foundation/refusal.ts'
import { RECEIPT_VERSION } from '../interlock/receipt.ts'
import type { OwnershipRecord } from '../ownership/home.ts'
import { RECORD_VERSION } from '../ownership/home.ts'
import { isThisHost } from '../ownership/kinship.ts'
import type { ExportContext } from './export-context.ts'
import type { HostedExport } from './hosted-export.ts'
import type { OwnershipReport, RecordSummary } from './verbs.ts'

export async function reportOwnership(context: ExportContext, hosted: HostedExport): Promise<OwnershipReport> {
  const { definition, facts, ownership } = hosted
  const { home } = ownership
  const newest = facts === null ? ({ kind: 'absent' } as const) : await ownership.readNewest()
  return {
    export: hosted.name,
    declaredId: definition.imageId,
    image:
      facts === null
        ? null
        : {
            realPath: facts.realPath,
            kind: facts.kind,
            device: facts.device,
            inode: facts.inode,
            wwid: facts.wwid,
            sizeBytes: facts.sizeBytes,
          },
    home: { kind: home.kind, shared: home.shared, place: home.describe() },
    formats: { record: RECORD_VERSION, receipt: RECEIPT_VERSION },
    record: newest.kind === 'record' ? await summaryOf(context, newest.record) : null,
    unreadable: newest.kind === 'unreadable' ? newest.detail : null,
  }
}

/** Where the record is of our opening and that is open: written once more, unchanged but for its sequence. */
export async function renewRecord(hosted: HostedExport): Promise<void> {
  const { keeper } = hosted.ownership
  if (hosted.definition.readOnly || hosted.state !== 'open' || keeper.own === null) return
  // Whoever has the record instead is seen by the report that follows.
  try {
    await keeper.change((record) =>
      record.state === 'open' || record.state === 'opening' ? { ...record, state: 'open' } : null,
    )
  } catch (error) {
    // And so is one that cannot be understood.
    if (!(error instanceof Refusal) || error.code !== 'record-unreadable') throw error
  }
}

async function summaryOf(context: ExportContext, record: OwnershipRecord): Promise<RecordSummary> {
  const { sequence, generation, state, closeReason, holder, draining, intent, receipt } = record
  const { host, boot, instance, name } = holder
  return {
    sequence,
    generation,
    state,
    closeReason,
    holder: { host, boot, instance, name },
    heldHere: isThisHost(await context.host.kinship(holder)),
    draining: draining.map((entry) => entry.generation),
    takeoverBy: intent === null ? null : intent.by.name,
    receiptNonce: receipt?.nonce ?? null,
    fingerprint: createHash('sha256')
      .update(JSON.stringify([record.imageId, generation, sequence, holder.openToken]))
      .digest('hex')
      .slice(0, 32),
  }
}
