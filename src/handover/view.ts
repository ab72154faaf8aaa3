/**
 * Both ends of a handover as they are seen at one moment: each either answers, with its status and with what it reads in
 * the ownership record, or does not. It looks and changes nothing; what follows from it is decided in standing.ts.
 */

import { ControlProblem, ControlUnreachable } from '../client/index.ts'
import type { ControlClient, ExportStatus, OwnershipAnswer, RecordSummary } from '../client/index.ts'
import { formatEndpoint } from '../foundation/endpoint.ts'
import type { End } from './ending.ts'
import { ask } from './errand.ts'

export interface Disk {
  /** Of the export, the same at both ends. */
  readonly name: string
  readonly source: ControlClient
  readonly destination: ControlClient
}

export type EndView = { readonly url: string } & (
  | { readonly answers: true; readonly status: ExportStatus; readonly ownership: OwnershipAnswer }
  /** `code` is the daemon's, such as `export-unknown`; null where nothing answered. */
  | { readonly answers: false; readonly code: string | null; readonly reason: string }
)

export type Answering = Extract<EndView, { readonly answers: true }>

export interface View {
  readonly name: string
  readonly source: EndView
  readonly destination: EndView
}

export interface LookOptions {
  readonly step: string
  readonly signal?: AbortSignal | undefined
  readonly patienceMs: number
}

export async function lookAt(disk: Disk, options: LookOptions): Promise<View> {
  const [source, destination] = await Promise.all([
    lookAtEnd(disk.name, disk.source, options),
    lookAtEnd(disk.name, disk.destination, options),
  ])
  return { name: disk.name, source, destination }
}

async function lookAtEnd(name: string, client: ControlClient, options: LookOptions): Promise<EndView> {
  const url = formatEndpoint(client.endpoint)
  try {
    return await ask(
      client,
      async (daemon, signal) => {
        // The record after the state: a state that is newer than the record would claim more than anybody has recorded.
        const status = await daemon.status(name, { signal })
        const ownership = await daemon.ownership(name, { signal })
        return { url, answers: true, status, ownership }
      },
      options,
    )
  } catch (error) {
    if (error instanceof ControlProblem) return { url, answers: false, code: error.code, reason: error.message }
    if (error instanceof ControlUnreachable) return { url, answers: false, code: null, reason: error.message }
    throw error
  }
}

/** The newest record that either end has read. */
export function newestRecord({ source, destination }: View): RecordSummary | null {
  const records = [source, destination].flatMap((end) => {
    const record = end.answers ? end.ownership.record : null
    return record === null ? [] : [record]
  })
  return records.sort((one, other) => other.sequence - one.sequence)[0] ?? null
}

/** One sentence for each end, and one for the record. */
export function tell(view: View): string[] {
  const record = newestRecord(view)
  return [
    tellEnd('source', view.source),
    tellEnd('destination', view.destination),
    ...(record === null
      ? []
      : [`the record says: generation ${record.generation}, ${record.state}, of ${record.holder.name}`]),
  ]
}

function tellEnd(end: End, view: EndView): string {
  if (!view.answers) return `${end} (${view.url}): ${view.reason}`
  const { state, stateReason, generation } = view.status
  const since = generation === 0 ? '' : `, generation ${generation}`
  return `${end} (${view.url}): ${state}${since}${stateReason === null ? '' : ` (${stateReason})`}`
}
