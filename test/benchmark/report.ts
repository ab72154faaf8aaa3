/**
 * Everything that one run of the benchmark found, as it is written to JSON, and the figures that are read off it: the
 * median of each contender, and ours against theirs, round by round. How it looks is in table.ts and chart.ts.
 */

import { cpus, release, totalmem, loadavg } from 'node:os'
import type { CloseLatency } from './close-latency.ts'
import { CONTENDERS, CONTENDER_NAMES } from './contender.ts'
import type { ContenderName } from './contender.ts'
import type { Finding, RowResult, Sample } from './measurement.ts'
import type { Soak } from './soak.ts'
import type { StandingCost } from './standing-cost.ts'
import { median, medianRatio } from './statistics.ts'

export interface Machine {
  readonly processor: string
  readonly cores: number
  readonly memoryBytes: number
  readonly kernel: string
  readonly node: string
  /** Load averages when the run began: above the number of cores, the figures say little. */
  readonly load: readonly number[]
}

export interface Report {
  readonly version: 1
  readonly began: string
  readonly machine: Machine
  readonly programs: Readonly<Record<string, string>>
  readonly runs: number
  readonly seconds: number
  readonly imageBytes: number
  readonly rows: readonly RowResult[]
  readonly close: readonly CloseLatency[]
  readonly standing: readonly StandingCost[]
  readonly soak: readonly Soak[]
  /** What could not be measured outside the rows. */
  readonly failures: readonly string[]
}

export function describeMachine(): Machine {
  const [first] = cpus()
  return {
    processor: first?.model.trim() ?? 'unknown',
    cores: cpus().length,
    memoryBytes: totalmem(),
    kernel: release(),
    node: process.version,
    load: loadavg(),
  }
}

type SampleField = keyof Sample

/** The median of one figure of one contender; null when it was not measured or has no such figure. */
export function figureOf(result: RowResult, name: ContenderName, field: SampleField): number | null {
  const finding = result.findings[name]
  if (finding?.kind !== 'measured') return null
  const values = finding.samples.flatMap((sample) => sample[field] ?? [])
  return values.length === 0 ? null : median(values)
}

/** How many times their requests per second ours are; the median over the rounds. */
export function ratioOf(result: RowResult, ours: ContenderName, theirs: ContenderName): number | null {
  const rates = (finding: Finding | undefined): number[] =>
    finding?.kind === 'measured' ? finding.samples.map((sample) => sample.requestsPerSecond) : []
  const [our, their] = [rates(result.findings[ours]), rates(result.findings[theirs])]
  return our.length === 0 || their.length === 0 ? null : medianRatio(our, their)
}

/**
 * The other server that did best in this row, among those that do the same thing: where durability is not asked for, a
 * server that answers out of the page cache does less.
 */
export function bestPeer(result: RowResult): ContenderName | null {
  const fair = CONTENDER_NAMES.filter((name) => {
    const { ours } = CONTENDERS[name]
    const finding = result.findings[name]
    if (ours || name === 'bare' || finding?.kind !== 'measured') return false
    return result.row.mode === 'durable' || !finding.cached
  })
  let best: ContenderName | null = null
  let bestRate = 0
  for (const name of fair) {
    const rate = figureOf(result, name, 'requestsPerSecond') ?? 0
    if (rate > bestRate) [best, bestRate] = [name, rate]
  }
  return best
}

export function failuresOf(report: Report): string[] {
  const ofRows = report.rows.flatMap(({ name, findings }) =>
    Object.entries(findings).flatMap(([contender, finding]) =>
      finding.kind === 'failed' ? [`${name}: ${contender}: ${finding.reason}`] : [],
    ),
  )
  return [...ofRows, ...report.failures]
}
