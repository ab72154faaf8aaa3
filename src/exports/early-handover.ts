/**
 * What is particular to handing over early, at both ends: when a close may be early, and how a destination lets go of a
 * predecessor's writes on somebody's word. The word is a proof: the receipt of that generation, or that its holder was
 * fenced. The ordinary end of it (the entry goes, the lock comes free) is the predecessor's own business.
 */

import { Refusal } from '../foundation/refusal.ts'
import type { Receipt } from '../interlock/receipt.ts'
import type { DrainingEntry } from '../ownership/home.ts'
import { fenceHost, fenceProblem } from '../ownership/fence.ts'
import type { ExportContext } from './export-context.ts'
import type { HostedExport } from './hosted-export.ts'

/** Throws where the export cannot be handed over before it is quiet. */
export function refuseEarly({ name, definition, ownership, predecessor }: HostedExport): void {
  const reason = (): string | null => {
    if (definition.readOnly) return 'it is read-only: there is nothing to hand over'
    if (!ownership.home.shared) return 'there is no shared record to hand its unfinished writes over in'
    if (definition.durability === 'writeback') return 'in writeback an answered write may not be durable yet'
    const [draining] = predecessor.entries
    if (draining === undefined) return null
    return `generation ${draining.generation}, handed over early itself, is still draining`
  }
  const why = reason()
  if (why !== null) throw new Refusal('early-refused', `export '${name}' cannot be closed early: ${why}`)
}

export async function clearPredecessors(
  context: ExportContext,
  hosted: HostedExport,
  proof: { readonly receipt: Receipt | null; readonly takeover: boolean },
): Promise<void> {
  const { entries } = hosted.predecessor
  if (entries.length === 0) throw new Refusal('wrong-state', `export '${hosted.name}' holds nothing back`)
  for (const entry of entries) await prove(context, hosted, entry, proof)
}

async function prove(
  context: ExportContext,
  hosted: HostedExport,
  entry: DrainingEntry,
  { receipt, takeover }: { readonly receipt: Receipt | null; readonly takeover: boolean },
): Promise<void> {
  const { generation, holder } = entry
  const who = `generation ${generation} of ${holder.name} (${holder.host})`
  if (receipt !== null) {
    const other = ofAnother(receipt, hosted, entry)
    if (other !== null) {
      throw new Refusal('receipt-mismatch', `the receipt is of ${other}: writes are held back for ${who}`)
    }
  } else if (takeover) {
    const { identity } = context.host
    const problem = fenceProblem(context.fencing, holder, identity)
    if (problem !== null) throw problem
    const report = await fenceHost(context.fencing, holder, identity)
    context.log.warn({ export: hosted.name, against: holder, fence: report }, 'clear: the predecessor was fenced')
    if (report.exitStatus !== 0) {
      const { command, exitStatus, output } = report
      const detail = `${who} was not fenced: ${command} ended with ${exitStatus}: ${output.trim()}`
      throw new Refusal('takeover-failed', detail, { fence: report })
    }
  } else {
    throw new Refusal('receipt-required', `${who} may still write: bring its receipt, or have it fenced`)
  }
  await hosted.predecessor.clear(generation)
}

/** What it is a receipt of, where it is not that of the entry; null where it is. A run closes many images. */
function ofAnother(receipt: Receipt, { name, definition, facts }: HostedExport, entry: DrainingEntry): string | null {
  const { host, boot, instance } = receipt.holder
  const { holder } = entry
  if (host !== holder.host || boot !== holder.boot || instance !== holder.instance) return 'another run or host'
  if (receipt.generation !== entry.generation) return `generation ${receipt.generation}`
  if (receipt.export !== name) return `export '${receipt.export}'`
  const isMeasured = definition.imageId === null && facts?.kind === 'file'
  if (isMeasured && receipt.image.inode !== facts.inode) return 'another image'
  return null
}
