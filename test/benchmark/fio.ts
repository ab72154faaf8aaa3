/**
 * fio as the client of every server, by its NBD engine, and as the limit, by its io_uring engine on the bare file. One
 * run is one process; what it says is read from its JSON.
 */

import { requirePeer } from '../../scripts/peers.mjs'
import { runChecked } from '../support/foreign-program.ts'
import type { Row } from './row.ts'

/** Where the load goes: an NBD server, or the file itself. */
export type Target = { readonly uri: string } | { readonly path: string }

export interface FioResult {
  readonly requests: number
  readonly requestsPerSecond: number
  readonly bytesPerSecond: number
  readonly p50Microseconds: number
  readonly p99Microseconds: number
  readonly p999Microseconds: number
  /** User and system time of fio itself, per request. */
  readonly clientCpuMicroseconds: number
}

const SYNC_PATTERNS = { write: 'randwrite', read: 'randread', mixed: 'randrw' } as const
const PATIENCE_MS = 60_000

export function fioArguments(row: Row, target: Target, seconds: number, imageBytes: number): string[] {
  const bare = [
    ...['--ioengine=io_uring', '--direct=1'],
    ...(row.mode === 'durable' && row.pattern !== 'read' ? ['--sync=dsync'] : []),
  ]
  return [
    ...['--name=load', '--output-format=json', '--group_reporting', '--unified_rw_reporting=mixed'],
    ...['--percentile_list=50:99:99.9', '--time_based', `--runtime=${Math.round(seconds * 1000)}ms`],
    ...['--thread', '--randrepeat=0', '--norandommap', '--random_generator=tausworthe64'],
    ...[`--rw=${SYNC_PATTERNS[row.pattern]}`, `--bs=${row.block}`, `--iodepth=${row.depth}`],
    ...[`--numjobs=${row.connections}`, `--size=${imageBytes}`],
    ...('uri' in target ? ['--ioengine=nbd', `--uri=${target.uri}`] : [...bare, `--filename=${target.path}`]),
  ]
}

export async function runFio(row: Row, target: Target, seconds: number, imageBytes: number): Promise<FioResult> {
  const outcome = await runChecked(requirePeer('fio'), fioArguments(row, target, seconds, imageBytes), {
    timeoutMs: seconds * 1000 + PATIENCE_MS,
  })
  return readFioReport(outcome.stdout)
}

interface FioReport {
  readonly jobs: readonly {
    readonly error: number
    readonly job_runtime: number
    readonly usr_cpu: number
    readonly sys_cpu: number
    readonly mixed: {
      readonly iops: number
      readonly bw_bytes: number
      readonly total_ios: number
      readonly clat_ns: { readonly percentile?: Readonly<Record<string, number>> }
    }
  }[]
}

/** fio's JSON; the nbd engine puts a line of its own before it. */
export function readFioReport(text: string): FioResult {
  const report = JSON.parse(text.slice(text.indexOf('{'))) as FioReport
  const [job] = report.jobs
  if (job === undefined || report.jobs.length > 1) throw new Error('fio reports its jobs as one group')
  if (job.error !== 0) throw new Error(`fio ended with error ${job.error}`)
  const { mixed } = job
  const percentileOf = (percent: string): number => {
    const nanoseconds = mixed.clat_ns.percentile?.[percent]
    if (nanoseconds === undefined) throw new Error(`fio did not say what ${percent} percent of the requests took`)
    return nanoseconds / 1000
  }
  const cpuMilliseconds = ((job.usr_cpu + job.sys_cpu) / 100) * job.job_runtime
  return {
    requests: mixed.total_ios,
    requestsPerSecond: mixed.iops,
    bytesPerSecond: mixed.bw_bytes,
    p50Microseconds: percentileOf('50.000000'),
    p99Microseconds: percentileOf('99.000000'),
    p999Microseconds: percentileOf('99.900000'),
    clientCpuMicroseconds: (cpuMilliseconds * 1000) / mixed.total_ios,
  }
}
