/** The report of an evacuation for a person: a line for each export, those that are not closed last, then the sum. */

import type { EvacuatedExport, EvacuationReport } from '../client/index.ts'
import { formatDurationMs, formatSizeBytes } from '../config/quantity.ts'
import type { DaemonEvacuation } from './evacuation.ts'
import { outstandingLine, printable } from './presentation.ts'
import { table } from './table.ts'
import type { Column } from './table.ts'

interface Line extends EvacuatedExport {
  /** Empty where there is one daemon only. */
  readonly control: string
}

const WORDS = { closed: 'closed', handedOver: 'handed over', idle: 'idle', notClosed: 'NOT CLOSED' } as const
const ORDER = ['idle', 'closed', 'handedOver', 'notClosed'] as const

const COLUMNS: readonly Column<Line>[] = [
  { heading: 'DAEMON', cell: ({ control }) => control },
  { heading: 'NAME', cell: (line) => line.export },
  { heading: 'OUTCOME', cell: ({ outcome }) => WORDS[outcome] },
  {
    heading: 'GENERATION',
    right: true,
    cell: ({ receipt, generation }) => numberOf(receipt?.generation ?? generation),
  },
  { heading: 'DRAINED', cell: ({ receipt }) => (receipt === null ? '' : drainedOf(receipt.drained)) },
  { heading: 'TOOK', right: true, cell: tookOf },
  { heading: 'NONCE', cell: ({ receipt }) => receipt?.nonce ?? '' },
  { heading: 'WHY', cell: ({ state, problem }) => (problem === null ? '' : `${state}: ${whyOf(problem)}`) },
]

export function evacuationText(evacuations: readonly DaemonEvacuation[]): string {
  const several = evacuations.length > 1
  const lines = evacuations.flatMap(({ control, report }) =>
    (report?.exports ?? []).map((one): Line => ({ ...one, control: several ? control : '' })),
  )
  const ordered = ORDER.flatMap((outcome) => lines.filter((line) => line.outcome === outcome))
  const sums = evacuations.flatMap(({ control, report, failure }) => {
    const sum = report === null ? `NOT EVACUATED: ${printable(failure ?? '')}` : sumOf(report)
    return several ? `${control}: ${sum}` : sum
  })
  return [...(ordered.length === 0 ? [] : [table(COLUMNS, ordered), '']), ...sums].join('\n')
}

function sumOf({ exports, complete, quiet, elapsedMs }: EvacuationReport): string {
  const counted = ORDER.map((outcome) => {
    const count = exports.filter((one) => one.outcome === outcome).length
    return count === 0 ? '' : `${count} ${WORDS[outcome]}`
  })
  const counts = counted.filter((words) => words !== '').join(', ')
  const verdict = quiet
    ? 'nothing of this daemon can reach a disk any more'
    : complete
      ? 'what was handed over still drains: run it again without --early before this host is switched off'
      : 'run it again for what is not closed'
  const said = `${exports.length} exports in ${formatDurationMs(elapsedMs)}: ${counts}; ${verdict}`
  return exports.length === 0 ? 'no exports' : said
}

function tookOf({ beganMs, endedMs }: EvacuatedExport): string {
  return beganMs === null || endedMs === null ? '' : formatDurationMs(endedMs - beganMs)
}

function drainedOf({ requests, bytes }: { readonly requests: number; readonly bytes: number }): string {
  return requests === 0 ? 'nothing' : `${requests} requests, ${formatSizeBytes(bytes)}`
}

function whyOf({ code, detail, outstanding }: NonNullable<EvacuatedExport['problem']>): string {
  const left = outstandingLine(outstanding)
  return `${code}: ${printable(detail)}${left === 'nothing' ? '' : `; left: ${left}`}`
}

function numberOf(generation: number): string {
  return generation === 0 ? '-' : String(generation)
}
