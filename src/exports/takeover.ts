/**
 * Taking an image from a holder that does not answer: the intent is recorded, the operator's command makes certain that
 * the holder cannot write, and the record is read again. Only while the intent is still the newest may the opening go on,
 * whatever the command took its time for. Where fencing fails the intent is withdrawn, and nothing has been opened.
 */

import { faultPoint } from '../fault-points/fault-point.ts'
import { Refusal } from '../foundation/refusal.ts'
import type { FenceReport } from '../interlock/receipt.ts'
import { fenceHost, fenceProblem } from '../ownership/fence.ts'
import type { OwnershipRecord, RecordHolder, RecordHome } from '../ownership/home.ts'
import { sequenceOf } from '../ownership/home.ts'
import type { ExportContext } from './export-context.ts'
import { OwnershipSide } from './ownership-side.ts'

export interface Fenced {
  /** Of the intent; it must still be the newest when the image is opened. */
  readonly sequence: number
  readonly against: RecordHolder
  readonly report: FenceReport
}

export async function takeOver(
  context: ExportContext,
  home: RecordHome,
  record: OwnershipRecord,
  by: RecordHolder,
  against: RecordHolder = record.holder,
): Promise<Fenced> {
  const problem = fenceProblem(context.fencing, against, by)
  if (problem !== null) throw problem
  await faultPoint('takeover: before the intent')
  const intent = { by, against, generation: record.generation, since: new Date().toISOString() }
  const intended = await home.compareAndSwap(record.sequence, { ...record, intent })
  if (!intended.won) throw OwnershipSide.heldBy('held-by-other', 'somebody else was first', intended.newest)
  await faultPoint('takeover: intent recorded')
  context.log.warn({ image: record.imageId, against, by }, 'takeover: the holder is fenced')
  const report = await fenceHost(context.fencing, against, by)
  await faultPoint('takeover: fenced')
  const { sequence } = intended.record
  if (report.exitStatus !== 0) {
    await withdraw(context, home, intended.record)
    const { command, exitStatus, output } = report
    const detail = `${against.name} (${against.host}) was not fenced: ${command} ended with ${exitStatus}: ${output.trim()}`
    throw new Refusal('takeover-failed', detail, { fence: report })
  }
  context.log.warn({ image: record.imageId, against, fence: report }, 'takeover: the holder has been fenced')
  const newest = await home.readNewest()
  if (sequenceOf(newest) !== sequence) {
    const reason = 'the record was changed while the holder was fenced: look at it, and ask again'
    throw OwnershipSide.heldBy('held-by-other', reason, newest)
  }
  return { sequence, against, report }
}

/** The holder was not harmed, so it is not kept out either. Best effort: an intent that stays keeps everybody out. */
async function withdraw(context: ExportContext, home: RecordHome, intended: OwnershipRecord): Promise<void> {
  try {
    await home.compareAndSwap(intended.sequence, { ...intended, intent: null })
  } catch (error) {
    context.log.error(
      { image: intended.imageId, error: String(error) },
      'the intent of a takeover could not be withdrawn',
    )
  }
}
