/**
 * The report as text: plain columns for the terminal, and the tables of the document. Figures are medians; what was not
 * measured is a dash.
 */

import type { CloseSample } from './close-latency.ts'
import { CONTENDERS, CONTENDER_NAMES } from './contender.ts'
import type { ContenderName } from './contender.ts'
import type { RowResult } from './measurement.ts'
import type { Report } from './report.ts'
import { bestPeer, failuresOf, figureOf, ratioOf } from './report.ts'
import { STANDING_CONNECTIONS, UNREAD_REQUESTS } from './standing-cost.ts'
import { percentile } from './statistics.ts'

const MEBIBYTE = 1024 * 1024
const NONE = '–'
const DOCUMENT_NAMES = ['io_uring', 'file', 'bare', 'qemu-nbd', 'nbd-server', 'nbdkit'] as const

/** For the terminal: a line for each contender of each row. */
export function plainReport(report: Report): string {
  const lines = report.rows.flatMap((result) => ['', result.name, ...columns(rowLines(result))])
  return [...lines, ...extraLines(report).flat(), ''].join('\n')
}

function rowLines(result: RowResult): string[][] {
  const heading = ['', 'requests/s', 'MiB/s', 'p50 µs', 'p99 µs', 'p99.9 µs', 'CPU µs', 'MiB', 'io_uring is', 'file is']
  const measured = CONTENDER_NAMES.filter((name) => result.findings[name] !== undefined)
  return [
    heading,
    ...measured.map((name) => [
      nameWithVariant(result, name),
      whole(figureOf(result, name, 'requestsPerSecond')),
      whole(scaled(figureOf(result, name, 'bytesPerSecond'), 1 / MEBIBYTE)),
      whole(figureOf(result, name, 'p50Microseconds')),
      whole(figureOf(result, name, 'p99Microseconds')),
      whole(figureOf(result, name, 'p999Microseconds')),
      fixed(cpuOf(result, name), 1),
      whole(scaled(figureOf(result, name, 'residentBytes'), 1 / MEBIBYTE)),
      times(name === 'io_uring' ? null : ratioOf(result, 'io_uring', name)),
      times(name === 'file' ? null : ratioOf(result, 'file', name)),
    ]),
  ]
}

/** What was measured beside the rows, a table each. */
function extraLines(report: Report): string[][] {
  return [closeLines(report), standingLines(report), soakLines(report), failureLines(report)]
}

/** The server's time per request; of the bare file, fio's own. */
function cpuOf(result: RowResult, name: ContenderName): number | null {
  return figureOf(result, name, name === 'bare' ? 'clientCpuMicroseconds' : 'serverCpuMicroseconds')
}

function nameWithVariant(result: RowResult, name: ContenderName): string {
  const finding = result.findings[name]
  const variant = finding?.kind === 'measured' && finding.variant !== '' ? ` (aio=${finding.variant})` : ''
  const cached = finding?.kind === 'measured' && finding.cached && result.row.mode === 'direct' ? ', page cache' : ''
  return `${CONTENDERS[name].label}${variant}${cached}`
}

function closeLines(report: Report): string[] {
  if (report.close.length === 0) return []
  const lines = report.close.map(({ engine, ownership, load, samples }) => {
    const of = (field: Exclude<keyof CloseSample, 'requests'>, percent: number): string =>
      fixed(
        samples.length === 0
          ? null
          : percentile(
              samples.map((sample) => sample[field]),
              percent,
            ),
        2,
      )
    return [
      `${engine}, record: ${ownership}, ${load} load`,
      String(samples.length),
      ...[of('totalMs', 50), of('totalMs', 99), of('drainMs', 50), of('drainMs', 99)],
      ...[of('letGoMs', 50), of('beyondMs', 50), of('beyondMs', 99)],
      ...[of('exchangeMs', 50), of('exchangeMs', 99), of('keptFileMs', 50), of('keptFileMs', 99)],
    ]
  })
  const heading = [
    ...['', 'closes', 'p50 ms', 'p99 ms', 'drain p50', 'drain p99', 'let go p50', 'beyond p50', 'beyond p99'],
    ...['exchange p50', 'exchange p99', 'kept file p50', 'kept file p99'],
  ]
  return ['', 'close, from request to receipt, under durable 4 KiB writes at depth 32', ...columns([heading, ...lines])]
}

function standingLines(report: Report): string[] {
  if (report.standing.length === 0) return []
  const heading = ['', 'idle CPU µs/s', 'idle MiB', 'unread MiB', 'peak MiB']
  const lines = report.standing.map((cost) => [
    cost.contender,
    whole(cost.idleMicrosecondsPerSecond),
    whole(cost.idleResidentBytes / MEBIBYTE),
    whole(cost.unreadResidentBytes / MEBIBYTE),
    whole(cost.unreadResidentPeakBytes / MEBIBYTE),
  ])
  const title = `${STANDING_CONNECTIONS} connections, idle; then ${UNREAD_REQUESTS} reads of 1 MiB on each, never taken`
  return ['', title, ...columns([heading, ...lines])]
}

function soakLines(report: Report): string[] {
  const [first] = report.soak
  if (first === undefined) return []
  const heading = ['', 'requests', 'connections', 'MiB early', 'MiB late', 'MiB peak', 'descriptors before', 'after']
  const lines = report.soak.map((soak) => [
    `interlockd, ${soak.engine}`,
    whole(soak.requests),
    whole(soak.connections),
    ...[soak.residentEarlyBytes, soak.residentLateBytes, soak.residentPeakBytes].map((bytes) =>
      whole(bytes / MEBIBYTE),
    ),
    String(soak.descriptorsBefore),
    String(soak.descriptorsAfter),
  ])
  return [
    '',
    `${whole(first.seconds)} s at depth 64, over connections that come and go`,
    ...columns([heading, ...lines]),
  ]
}

function failureLines(report: Report): string[] {
  const failures = failuresOf(report)
  return failures.length === 0 ? [] : ['', 'not measured:', ...failures.map((failure) => `  ${failure}`)]
}

/** For the document: Markdown between its markers. */
export function documentReport(report: Report): string {
  const { machine } = report
  const mebibytes = Math.round(report.imageBytes / MEBIBYTE)
  return [
    `Measured ${report.began.slice(0, 10)} on ${machine.cores} cores (${machine.processor}), Linux ${machine.kernel}, ` +
      `Node ${machine.node}; ${Object.values(report.programs).join(', ')}. Medians of ${report.runs} alternating runs ` +
      `of ${report.seconds} s on an image of ${mebibytes} MiB; load average at the start ${fixed(machine.load[0] ?? 0, 1)}.`,
    '',
    'Requests per second. The last two columns compare interlockd with io_uring, run by run. *Italic*: through the page',
    'cache, in a row that asks for direct I/O, so not counted as best peer.',
    '',
    ...markdown([
      ['row', ...DOCUMENT_NAMES.map((name) => CONTENDERS[name].label), 'of bare', 'best peer'],
      ...report.rows.map(rateCells),
    ]),
    '',
    'Latency (p50 / p99 / p99.9) and processor time of the server per request, in microseconds; resident memory in MiB.',
    '',
    ...markdown([['row', 'contender', 'p50', 'p99', 'p99.9', 'CPU', 'memory'], ...report.rows.flatMap(detailCells)]),
    ...extraLines(report).flatMap(fenced),
  ].join('\n')
}

function rateCells(result: RowResult): string[] {
  const peer = bestPeer(result)
  return [
    result.name,
    ...DOCUMENT_NAMES.map((name) => {
      const rate = whole(figureOf(result, name, 'requestsPerSecond'))
      const finding = result.findings[name]
      const apart = finding?.kind === 'measured' && finding.cached && result.row.mode === 'direct'
      return apart ? `*${rate}*` : rate
    }),
    times(ratioOf(result, 'io_uring', 'bare')),
    peer === null ? NONE : `${times(ratioOf(result, 'io_uring', peer))} ${CONTENDERS[peer].label}`,
  ]
}

function detailCells(result: RowResult): string[][] {
  return DOCUMENT_NAMES.filter((name) => result.findings[name]?.kind === 'measured').map((name) => [
    result.name,
    nameWithVariant(result, name),
    whole(figureOf(result, name, 'p50Microseconds')),
    whole(figureOf(result, name, 'p99Microseconds')),
    whole(figureOf(result, name, 'p999Microseconds')),
    fixed(cpuOf(result, name), 1),
    whole(scaled(figureOf(result, name, 'residentBytes'), 1 / MEBIBYTE)),
  ])
}

function fenced(lines: readonly string[]): string[] {
  return lines.length === 0 ? [] : ['', '```', ...lines.slice(1), '```']
}

/** The first column to the left, figures to the right. */
function columns(rows: readonly (readonly string[])[]): string[] {
  const widths = widthsOf(rows)
  return rows.map((cells) =>
    `  ${cells.map((cell, index) => (index === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[index] ?? 0))).join('  ')}`.trimEnd(),
  )
}

function markdown(rows: readonly (readonly string[])[]): string[] {
  const widths = widthsOf(rows)
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell, index) => (index === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[index] ?? 0))).join(' | ')} |`
  const rule = widths.map((width, index) => (index === 0 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`))
  const [heading = [], ...rest] = rows
  return [line(heading), line(rule), ...rest.map(line)]
}

function widthsOf(rows: readonly (readonly string[])[]): number[] {
  const widths: number[] = []
  for (const cells of rows) cells.forEach((cell, index) => (widths[index] = Math.max(widths[index] ?? 3, cell.length)))
  return widths
}

function whole(value: number | null): string {
  return value === null ? NONE : Math.round(value).toLocaleString('en-US')
}

function fixed(value: number | null, digits: number): string {
  return value === null ? NONE : value.toFixed(digits)
}

function times(value: number | null): string {
  return value === null ? NONE : `${value.toFixed(2)}x`
}

function scaled(value: number | null, by: number): number | null {
  return value === null ? null : value * by
}
