/**
 * Measures rows: for each, every contender in turn, and that several times over (A B C A B C), so that whatever the
 * machine does meanwhile falls on all alike. Each measurement starts its server anew on the same file, warms it up, and
 * then counts. A contender that cannot run is a finding with its reason, and does not keep the others from running.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { Scratch } from '../support/scratch.ts'
import type { BenchmarkImage } from './benchmark-image.ts'
import type { Contender, ContenderName } from './contender.ts'
import { runFio } from './fio.ts'
import type { FioResult } from './fio.ts'
import { usageOf } from './process-usage.ts'
import { rowName } from './row.ts'
import type { Row } from './row.ts'

export interface Sample extends FioResult {
  /** User and system time of the server's processes per request; null for the bare file. */
  readonly serverCpuMicroseconds: number | null
  readonly residentBytes: number | null
  readonly residentPeakBytes: number | null
}

export type Finding =
  | { readonly kind: 'measured'; readonly variant: string; readonly cached: boolean; readonly samples: Sample[] }
  | { readonly kind: 'failed'; readonly reason: string }

export interface RowResult {
  readonly name: string
  readonly row: Row
  readonly findings: Partial<Record<ContenderName, Finding>>
}

export interface MeasurementOptions {
  readonly image: BenchmarkImage
  readonly contenders: readonly Contender[]
  readonly runs: number
  readonly seconds: number
  readonly say: (text: string) => void
  readonly signal: AbortSignal
}

const WARM_UP_SECONDS_MAX = 1.5
const TRIAL_SECONDS_MAX = 1
/** Overhead of one measurement beyond its seconds: starting, stopping, fio's own start. */
const OVERHEAD_SECONDS = 1.5

export async function measureRow(row: Row, options: MeasurementOptions): Promise<RowResult> {
  const findings: Partial<Record<ContenderName, Finding>> = {}
  for (let run = 1; run <= options.runs; run += 1) {
    for (const contender of options.contenders) {
      options.signal.throwIfAborted()
      const before = findings[contender.name]
      if (before?.kind === 'failed') continue
      try {
        const finding = before ?? {
          kind: 'measured',
          variant: await bestVariant(contender, row, options),
          cached: contender.cached(row.mode),
          samples: [],
        }
        const sample = await measureOnce(contender, finding.variant, row, options, options.seconds)
        finding.samples.push(sample)
        findings[contender.name] = finding
        options.say(`${rowName(row)} ${run}/${options.runs} ${contender.name} ${finding.variant} ${brief(sample)}`)
      } catch (error) {
        options.signal.throwIfAborted()
        findings[contender.name] = { kind: 'failed', reason: reasonOf(error) }
        options.say(`${rowName(row)} ${contender.name} failed: ${reasonOf(error)}`)
      }
    }
  }
  return { name: rowName(row), row, findings }
}

/** About how long the rows will take. */
export function estimateSeconds(
  rows: number,
  options: Pick<MeasurementOptions, 'contenders' | 'runs' | 'seconds'>,
): number {
  const trials = options.contenders.flatMap((contender) => (contender.variants.length > 1 ? contender.variants : []))
  const trialSeconds = trials.length * (2 * Math.min(options.seconds, TRIAL_SECONDS_MAX) + OVERHEAD_SECONDS)
  const each = options.seconds + warmUpSeconds(options.seconds) + OVERHEAD_SECONDS
  return rows * (trialSeconds + options.runs * options.contenders.length * each)
}

async function bestVariant(contender: Contender, row: Row, options: MeasurementOptions): Promise<string> {
  let best = contender.variants[0] ?? ''
  if (contender.variants.length === 1) return best
  let bestRate = -1
  let failure: unknown
  for (const variant of contender.variants) {
    options.signal.throwIfAborted()
    try {
      const seconds = Math.min(options.seconds, TRIAL_SECONDS_MAX)
      const { requestsPerSecond } = await measureOnce(contender, variant, row, options, seconds)
      if (requestsPerSecond > bestRate) [best, bestRate] = [variant, requestsPerSecond]
    } catch (error) {
      failure = error
    }
  }
  if (bestRate < 0) throw failure
  return best
}

async function measureOnce(
  contender: Contender,
  variant: string,
  row: Row,
  options: MeasurementOptions,
  seconds: number,
): Promise<Sample> {
  const { image } = options
  const scratch = new Scratch()
  const path = await image.prepare(row.image)
  const dispose = (): void => void scratch.dispose()
  options.signal.addEventListener('abort', dispose)
  try {
    const { target, pid } = await contender.start(scratch, path, row, variant)
    // On an image that is not written yet a warm-up would use up what is to be measured: it stays at the very beginning.
    const warmUpBytes = row.image === 'written' ? image.sizeBytes : Math.floor(image.sizeBytes / 16)
    await runFio(row, target, warmUpSeconds(seconds), warmUpBytes)
    const before = pid === null ? null : usageOf(pid)
    const load = runFio(row, target, seconds, image.sizeBytes)
    const during = sleep(seconds * 800).then(() => (pid === null ? null : usageOf(pid)))
    const [result, usage] = await Promise.all([load, during])
    const after = pid === null ? null : usageOf(pid)
    const cpu = before === null || after === null ? null : after.cpuMicroseconds - before.cpuMicroseconds
    return {
      ...result,
      serverCpuMicroseconds: cpu === null ? null : cpu / result.requests,
      residentBytes: usage?.residentBytes ?? null,
      residentPeakBytes: usage?.residentPeakBytes ?? null,
    }
  } finally {
    options.signal.removeEventListener('abort', dispose)
    await scratch.dispose()
  }
}

function warmUpSeconds(seconds: number): number {
  return Math.min(seconds, WARM_UP_SECONDS_MAX)
}

function brief(sample: Sample): string {
  const cpu = sample.serverCpuMicroseconds === null ? '' : `, ${sample.serverCpuMicroseconds.toFixed(1)} µs CPU`
  return `${Math.round(sample.requestsPerSecond)}/s, p99 ${Math.round(sample.p99Microseconds)} µs${cpu}`
}

/** The first line of what went wrong, and of what caused it. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const [line = ''] = error.message.split('\n')
  const detail = /io_uring[^"\n]*/u.exec(error.message.slice(line.length))?.[0]
  return detail === undefined ? line : `${line} ${detail}`
}
