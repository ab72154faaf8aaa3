/**
 * Exports, requests, receipts and events as a person at a terminal wants to read them. Programs ask for JSON instead.
 * Text that came from elsewhere (descriptions, reasons) cannot move the cursor: control characters are shown as dots.
 */

import type { ClientStatus, ExportStatus, PhaseCounts, Receipt, RequestInspection } from '../client/index.ts'
import type { StreamEvent } from '../client/index.ts'
import { formatDurationMs, formatSizeBytes } from '../config/quantity.ts'
import { listing, table } from './table.ts'
import type { Column } from './table.ts'

const EXPORT_COLUMNS: readonly Column<ExportStatus>[] = [
  { heading: 'NAME', cell: ({ name }) => name },
  { heading: 'STATE', cell: ({ state }) => state },
  { heading: 'SIZE', right: true, cell: ({ size }) => formatSizeBytes(size) },
  { heading: 'GENERATION', right: true, cell: ({ generation }) => (generation === 0 ? '-' : String(generation)) },
  { heading: 'CLIENTS', right: true, cell: ({ clients }) => String(clients.length) },
  { heading: 'REQUESTS', right: true, cell: ({ outstanding }) => String(requestCount(outstanding)) },
  { heading: 'OLDEST', right: true, cell: ({ outstanding }) => oldest(outstanding) },
  { heading: 'ENGINE', cell: ({ engine }) => engine.kind },
  { heading: 'NOTE', cell: (status) => notesOf(status).join('; ') },
]

const REQUEST_COLUMNS: readonly Column<RequestInspection>[] = [
  { heading: 'CLIENT', right: true, cell: ({ clientId }) => String(clientId) },
  { heading: 'COOKIE', cell: ({ cookie }) => cookie },
  { heading: 'COMMAND', cell: ({ command }) => command.replace(/^NBD_CMD_/, '') },
  { heading: 'OFFSET', right: true, cell: ({ offset }) => String(offset) },
  { heading: 'LENGTH', right: true, cell: ({ length }) => String(length) },
  { heading: 'PHASE', cell: ({ phase }) => phase },
  { heading: 'AGE', right: true, cell: ({ ageMs }) => formatDurationMs(ageMs) },
  { heading: 'ORPHAN', cell: ({ orphan }) => (orphan ? 'orphan' : '') },
]

const CLIENT_COLUMNS: readonly Column<ClientStatus>[] = [
  { heading: 'CLIENT', right: true, cell: ({ id }) => String(id) },
  { heading: 'PEER', cell: ({ peer }) => printable(peer) },
  { heading: 'SINCE', cell: ({ since }) => since },
  { heading: 'REQUESTS', right: true, cell: ({ outstanding }) => String(requestCount(outstanding)) },
  { heading: 'WRITER', cell: ({ writer }) => (writer ? 'writer' : '') },
]

export function exportTable(exports: readonly ExportStatus[]): string {
  return exports.length === 0 ? 'no exports' : table(EXPORT_COLUMNS, exports)
}

export function requestTable(requests: readonly RequestInspection[]): string {
  return requests.length === 0 ? 'no requests' : table(REQUEST_COLUMNS, requests)
}

export function exportDetails(status: ExportStatus): string {
  const { holder, totals, outstanding } = status
  const reason = status.stateReason === null ? '' : ` (${printable(status.stateReason)})`
  const operations = `${totals.reads} reads, ${totals.writes} writes, ${totals.flushes} flushes, ${totals.trims} trims`
  const volume = `${formatSizeBytes(totals.bytesRead)} read, ${formatSizeBytes(totals.bytesWritten)} written`
  const details = listing([
    ['name', status.name],
    ['state', `${status.state}${reason}`],
    ['path', printable(status.path)],
    ['description', printable(status.description)],
    ['size', `${formatSizeBytes(status.size)} (${status.size} bytes), blocks of ${status.blockSize}`],
    ['access', `${status.readOnly ? 'read-only' : 'read-write'}, ${status.clientsMode} clients`],
    ['durability', `${status.durability}, ${status.cache} I/O`],
    ['engine', `${status.engine.kind} on worker ${status.worker} (${printable(status.engine.reason)})`],
    ['generation', status.generation === 0 ? 'never opened here' : String(status.generation)],
    ['holder', holder === null ? 'none' : `host ${holder.host}, boot ${holder.boot}, run ${holder.instance}`],
    ['nonce', status.nonce],
    ['unsafe', status.unsafe.map(printable).join(', ')],
    ['outstanding', outstandingLine(outstanding)],
    ['orphans', status.orphans === 0 ? null : `${status.orphans} writes whose connection is gone`],
    ['holds', status.holds.map((hold) => `${rangeText(hold)} of generation ${hold.generation}`).join(', ')],
    ['indeterminate', status.indeterminate.map(rangeText).join(', ')],
    ['totals', `${operations}; ${volume}; ${totals.errors} errors`],
    ['last receipt', status.lastReceipt === null ? null : receiptLine(status.lastReceipt)],
  ])
  return status.clients.length === 0 ? details : `${details}\n\n${table(CLIENT_COLUMNS, status.clients)}`
}

export function receiptDetails(receipt: Receipt): string {
  const { drained, elapsedMs, indeterminate, aborted } = receipt
  const steps = `drain ${ms(elapsedMs.drain)}, sync ${ms(elapsedMs.sync)}, record ${ms(elapsedMs.record)}`
  return listing([
    ['closed', `${receipt.export}, generation ${receipt.generation}, for ${receipt.reason}`],
    ['image', `${printable(receipt.image.path)}, ${formatSizeBytes(receipt.image.size)}`],
    ['drained', `${drained.requests} requests, ${drained.writes} of them writes, ${formatSizeBytes(drained.bytes)}`],
    ['aborted', aborted.length === 0 ? null : `${aborted.length} requests that never reached the disk`],
    ['indeterminate', indeterminate.map(rangeText).join(', ')],
    ['cleared by', receipt.clearedBy],
    ['took', `${ms(elapsedMs.total)} (${steps})`],
    ['nonce', receipt.nonce],
  ])
}

export function outstandingLine(outstanding: PhaseCounts): string {
  const count = requestCount(outstanding)
  if (count === 0) return 'nothing'
  const { parsed, admitted, held, submitted, cleared } = outstanding
  const phases = Object.entries({ parsed, admitted, held, submitted, cleared })
    .filter(([, requests]) => requests > 0)
    .map(([phase, requests]) => `${requests} ${phase}`)
  const requests = count === 1 ? '1 request' : `${count} requests`
  return `${requests} (${phases.join(', ')}), ${formatSizeBytes(outstanding.bytes)}, oldest ${oldest(outstanding)}`
}

export function eventLine(event: StreamEvent): string {
  if (event.kind === 'ready') return 'watching'
  if (event.kind === 'missed') return 'some events were missed'
  return `${event.at}  ${event.export}  ${happening(event)}`
}

/** Text from elsewhere, on one line and without power over the terminal. */
export function printable(text: string): string {
  return text.replace(/\p{Cc}/gu, '·')
}

function happening(event: Exclude<StreamEvent, { kind: 'ready' | 'missed' }>): string {
  switch (event.kind) {
    case 'transition':
      return `${event.from} -> ${event.to}${event.reason === null ? '' : `: ${printable(event.reason)}`}`
    case 'drain':
      return `${event.step}: ${outstandingLine(event.outstanding)} after ${formatDurationMs(event.elapsedMs)}`
    case 'receipt':
      return `receipt: ${receiptLine(event.receipt)}`
    case 'client':
      return `client ${event.clientId} ${event.change}: ${printable(event.detail)}`
    case 'fault':
      return `FAULT: ${printable(event.detail)}`
    case 'hold':
      return `writes ${event.change === 'released' ? 'were' : 'are'} held back for generation ${event.generation}, ${formatDurationMs(event.heldMs)}`
    case 'record':
      return `record ${event.change === 'waiting' ? 'WAITS' : 'written'}: ${printable(event.detail)}`
    case 'added':
    case 'removed':
      return event.kind
  }
}

function receiptLine({ generation, reason, closedAt, drained, elapsedMs }: Receipt): string {
  return `generation ${generation} closed for ${reason} at ${closedAt}, ${drained.requests} requests drained, ${ms(elapsedMs.total)}`
}

function notesOf(status: ExportStatus): string[] {
  const waiting = status.holds.reduce((total, hold) => total + hold.waiting, 0)
  return [
    ...(status.stateReason === null ? [] : [printable(status.stateReason)]),
    ...(status.readOnly ? ['read-only'] : []),
    ...(status.orphans > 0 ? [`${status.orphans} orphans`] : []),
    ...(status.holds.length > 0 ? [`${status.holds.length} ranges held, ${waiting} writes wait`] : []),
    ...(status.indeterminate.length > 0 ? [`${status.indeterminate.length} ranges indeterminate`] : []),
    ...(status.unsafe.length > 0 ? [`not safe to migrate: ${status.unsafe.map(printable).join(', ')}`] : []),
  ]
}

function requestCount({ parsed, admitted, held, submitted, cleared }: PhaseCounts): number {
  return parsed + admitted + held + submitted + cleared
}

function oldest(outstanding: PhaseCounts): string {
  return requestCount(outstanding) === 0 ? '' : formatDurationMs(outstanding.oldestMs)
}

function rangeText({ offset, length }: { readonly offset: number; readonly length: number }): string {
  return `${offset}+${length}`
}

function ms(durationMs: number): string {
  return `${durationMs.toFixed(1)} ms`
}
