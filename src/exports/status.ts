/** What `GET /v1/exports/{name}` says of an export: the control plane's view, completed by the data plane's counts. */

import { XENBUS_STATE } from '../interlock/lifecycle.ts'
import type { ExportInspection, PhaseCounts } from '../plane-link/reports.ts'
import type { ExportContext } from './export-context.ts'
import type { HostedExport } from './hosted-export.ts'
import type { ExportDefinition, ExportStatus } from './verbs.ts'

const NOTHING: PhaseCounts = { parsed: 0, admitted: 0, held: 0, submitted: 0, cleared: 0, bytes: 0, oldestMs: 0 }

/** Of an export that lives on no worker. */
const NO_INSPECTION: ExportInspection = {
  clients: [],
  outstanding: NOTHING,
  orphans: 0,
  indeterminate: [],
  holds: [],
  totals: { reads: 0, writes: 0, flushes: 0, trims: 0, bytesRead: 0, bytesWritten: 0, errors: 0 },
}

export async function describeExport(context: ExportContext, hosted: HostedExport): Promise<ExportStatus> {
  const { definition, facts } = hosted
  const record = hosted.ownership.newest
  const inspection = await inspect(hosted)
  const nowMs = Date.now()
  return {
    name: hosted.name,
    path: definition.path,
    description: definition.description,
    size: facts?.sizeBytes ?? 0,
    blockSize: facts?.alignmentBytes ?? 0,
    state: hosted.state,
    xenbusState: XENBUS_STATE[hosted.state],
    stateReason: hosted.stateReason,
    generation: hosted.generation,
    readOnly: definition.readOnly,
    durability: definition.durability,
    cache: definition.cache,
    clientsMode: definition.clients,
    unsafe: [...unsafeCodes(definition), ...context.stacks.unsafeCodes(hosted.name)],
    engine: hosted.data.placement?.engine ?? context.engine,
    worker: hosted.data.placement?.worker.index ?? hosted.workerIndex,
    holder:
      record === null ? null : { host: record.holder.host, boot: record.holder.boot, instance: record.holder.instance },
    clients: inspection.clients.map((client) => ({
      id: client.clientId,
      peer: client.peer,
      since: new Date(nowMs - client.sinceMs).toISOString(),
      writer: client.writer,
      outstanding: rounded(client.outstanding),
    })),
    outstanding: rounded(inspection.outstanding),
    orphans: inspection.orphans,
    holds: inspection.holds,
    heldForMs: Math.round(hosted.predecessor.heldForMs),
    clearedBy: hosted.state === 'open' || hosted.state === 'closing' ? (record?.cleared?.by ?? null) : null,
    indeterminate: inspection.indeterminate,
    totals: inspection.totals,
    nonce: hosted.nonce,
    lastReceipt: hosted.lastReceipt,
  }
}

async function inspect(hosted: HostedExport): Promise<ExportInspection> {
  if (hosted.data.placement?.worker.alive !== true) return NO_INSPECTION
  // A worker that dies meanwhile has nothing more to tell; the export's state will say so.
  return hosted.data.inspect().catch(() => NO_INSPECTION)
}

/** What makes a migration of this export unsafe, as far as its definition tells. */
function unsafeCodes(definition: ExportDefinition): readonly string[] {
  const codes: string[] = []
  if (definition.cache === 'buffered') codes.push('buffered')
  if (definition.clients === 'shared' && !definition.readOnly) codes.push('shared-clients')
  return codes
}

function rounded(counts: PhaseCounts): PhaseCounts {
  return { ...counts, oldestMs: Math.round(counts.oldestMs) }
}
