/**
 * What a fleet of 10,000 hosts with 100 exports each asks of etcd, reckoned from the size of records as this program
 * writes them, and from how often its watches ask. docs/operating.md shows the table; `npx tsx scripts/fleet-arithmetic.ts` writes it anew.
 */

import { LIMITS } from '../../src/config/limits.ts'
import type { RecordDraft } from '../../src/ownership/home.ts'
import { RECORD_VERSION } from '../../src/ownership/home.ts'
import { LOOK_INTERVAL_MS, PAUSE_MS_MAX, PAUSE_MS_MIN, STREAM_AGE_MS } from '../../src/ownership/etcd/watch.ts'
import { encodeRecord } from '../../src/ownership/record-format.ts'
import { draftOf, HOLDER, receiptOf } from './record-samples.ts'

export const HOSTS = 10_000
export const EXPORTS_PER_HOST = 100
export const HOSTS_PER_RACK = 40
/** `closing` and `closed` by the source, `opening` and `open` by the destination. */
export const WRITES_PER_HANDOVER = 4
/** Of a guest with a queue of this depth, caught by an early close. */
const RANGES_EARLY = 32
const ETCD_QUOTA_BYTES = 2 * 1024 ** 3
/**
 * The most that one node did in a second (Debian's etcd 3.4.23 by its gateway, on the loopback of a machine of two cores
 * that was busy with other tests; etcd and whoever asked shared them): what a fleet asks is compared with it.
 */
export const ONE_NODE = { swaps: 1_440, reads: 1_920, watches: 4_940 } as const
const EVACUATION_SECONDS = [10, 60, 600] as const

/** Identities as long as real ones. */
const BOOT = '3f0c2a5e-7d61-4b8e-9a53-1c6f0d2b8e47'
const HOLDER_OF_FLEET = { ...HOLDER, boot: BOOT, instance: 'c'.repeat(32), name: 'host-04711.rack-118.example.org' }
const IMAGE_PATH = '/srv/images/tenant-0042/3f0c2a5e-7d61-4b8e-9a53-1c6f0d2b8e47.raw'

export interface FleetFigures {
  readonly openBytes: number
  readonly closedBytes: number
  readonly earlyBytes: number
  readonly largestBytes: number
  readonly exports: number
  readonly restBytes: number
  readonly quotaPercent: number
  readonly rackHandovers: number
  readonly rackWrites: number
  readonly rackBytes: number
  readonly racks: number
  /** What is at rest, and an evacuation of each rack, none of it compacted. */
  readonly roundBytes: number
  readonly roundQuotaPercent: number
  /** Of all hosts at rest, in a second: one for each host by which it sees that its stream is alive. */
  readonly restReads: number
  /** Of all hosts at rest, in a second: streams made anew because of their age, with the watches on each. */
  readonly restStreams: number
  readonly restWatches: number
  /** Hosts at rest that keep the one node busy. */
  readonly restHostsMax: number
  /** How long it takes the one node to make the watches of all hosts, which it loses when it restarts. */
  readonly restartSeconds: number
}

export function fleetFigures(): FleetFigures {
  const openBytes = sizeOf({})
  const { fence: _fence, ...receipt } = receiptOf(4)
  const closed = {
    ...receipt,
    export: 'vda-tenant-0042',
    image: { ...receipt.image, path: IMAGE_PATH, size: 107_374_182_400 },
    holder: { host: HOLDER.host, boot: BOOT, instance: HOLDER_OF_FLEET.instance },
    aborted: [],
    indeterminate: [],
    nonce: 'd'.repeat(32),
    unsafe: [],
  }
  const closedBytes = sizeOf({ state: 'closed', closeReason: 'handover', receipt: closed })
  const earlyBytes = sizeOf({ state: 'closing', closeReason: 'handover', draining: [drainingOf(RANGES_EARLY)] })
  const largestBytes = sizeOf({ state: 'closing', closeReason: 'handover', draining: [drainingOf(LIMITS.holdsMax)] })
  const exports = HOSTS * EXPORTS_PER_HOST
  const restBytes = exports * openBytes
  const rackHandovers = HOSTS_PER_RACK * EXPORTS_PER_HOST
  // Three of the four writes are of an export without a receipt.
  const rackBytes = rackHandovers * ((WRITES_PER_HANDOVER - 1) * openBytes + closedBytes)
  const racks = HOSTS / HOSTS_PER_RACK
  const roundBytes = restBytes + racks * rackBytes
  return {
    openBytes,
    closedBytes,
    earlyBytes,
    largestBytes,
    exports,
    restBytes,
    quotaPercent: (100 * restBytes) / ETCD_QUOTA_BYTES,
    rackHandovers,
    rackWrites: rackHandovers * WRITES_PER_HANDOVER,
    rackBytes,
    racks,
    roundBytes,
    roundQuotaPercent: (100 * roundBytes) / ETCD_QUOTA_BYTES,
    ...standingFigures(),
  }
}

/** What idle hosts ask. */
function standingFigures() {
  const restReads = HOSTS / (LOOK_INTERVAL_MS / 1000)
  const restStreams = HOSTS / (STREAM_AGE_MS / 1000)
  const restWatches = restStreams * EXPORTS_PER_HOST
  return {
    restReads,
    restStreams,
    restWatches,
    restHostsMax: HOSTS / (restReads / ONE_NODE.reads + restWatches / ONE_NODE.watches),
    restartSeconds: (HOSTS * EXPORTS_PER_HOST) / ONE_NODE.watches,
  }
}

/** As it stands in docs/operating.md. */
export function fleetTable(): string {
  const figures = fleetFigures()
  const rows: [string, string][] = [
    ['what', 'how much'],
    ['record of an open export', `${figures.openBytes} bytes`],
    ['record of a closed one, with its receipt', `${figures.closedBytes} bytes`],
    [`record of an early close with ${RANGES_EARLY} writes in flight`, `${figures.earlyBytes} bytes`],
    [`the same with ${LIMITS.holdsMax} writes, the most there can be`, `${mebibytes(figures.largestBytes)} MiB`],
    [
      `records of ${thousands(HOSTS)} hosts with ${EXPORTS_PER_HOST} exports each`,
      `${thousands(figures.exports)} keys, ${mebibytes(figures.restBytes)} MiB`,
    ],
    ["the same, of etcd's default quota of 2 GiB", `${Math.round(figures.quotaPercent)} %`],
    [
      `evacuation of a rack: ${HOSTS_PER_RACK} hosts`,
      `${thousands(figures.rackHandovers)} handovers, ${thousands(figures.rackWrites)} writes, ${mebibytes(figures.rackBytes)} MiB`,
    ],
    ...EVACUATION_SECONDS.map((seconds): [string, string] => [
      `writes per second if it takes ${seconds} s`,
      thousands(Math.round(figures.rackWrites / seconds)),
    ]),
    [
      `all ${figures.racks} racks, one after the other, and nothing compacted`,
      `${thousands(figures.racks * figures.rackWrites)} writes, ${mebibytes(figures.roundBytes)} MiB with those at rest`,
    ],
    ['the same, of the default quota', `${Math.round(figures.roundQuotaPercent)} %`],
    ...standingRows(figures),
  ]
  const [left, right] = [0, 1].map((column) => Math.max(...rows.map((row) => (row[column] ?? '').length)))
  const line = ([what, much]: [string, string]) => `| ${what.padEnd(left ?? 0)} | ${much.padEnd(right ?? 0)} |`
  const rule = `| ${'-'.repeat(left ?? 0)} | ${'-'.repeat(right ?? 0)} |`
  const [heading, ...body] = rows.map(line)
  return [heading, rule, ...body].join('\n')
}

function standingRows(figures: FleetFigures): readonly [string, string][] {
  const { exports, restReads, restStreams, restWatches, restHostsMax, restartSeconds } = figures
  const perSecond = thousands(Math.round(exports / (STREAM_AGE_MS / 1000)))
  const pauses = [PAUSE_MS_MIN / 2, PAUSE_MS_MAX].map((pauseMs) => pauseMs / 1000)
  return [
    [`at rest: a read of each host every ${LOOK_INTERVAL_MS / 1000} s`, `${thousands(restReads)} reads per second`],
    [
      `at rest: the stream of each host made anew every ${STREAM_AGE_MS / 1000} s`,
      `${thousands(Math.round(restStreams))} streams, ${thousands(Math.round(restWatches))} watches per second`,
    ],
    ['hosts at rest that keep one node busy (below)', thousands(Number(restHostsMax.toPrecision(2)))],
    [
      `after a compaction: each quiet record is read, within ${STREAM_AGE_MS / 1000} s`,
      `${thousands(exports)} reads, ${perSecond} per second`,
    ],
    [
      `after a restart of etcd: all streams, after ${pauses.join(' to ')} s`,
      `${thousands(HOSTS)} streams, ${thousands(exports)} watches at once`,
    ],
    ['the same, of one node (below)', `${Number(restartSeconds.toPrecision(2))} s`],
  ]
}

function sizeOf(overrides: Partial<RecordDraft>): number {
  const image = { ...draftOf().image, realPath: IMAGE_PATH, inode: 104_857_612 }
  const draft = draftOf({ imageId: 'tenant-0042-vda', image, holder: HOLDER_OF_FLEET, ...overrides })
  return encodeRecord({ ...draft, version: RECORD_VERSION, sequence: 4711 }, 'e'.repeat(32)).length
}

/** Ranges far out in a large image. */
function drainingOf(count: number) {
  const ranges = Array.from({ length: count }, (_, index) => ({ offset: 100_000_000_000 + index * 8192, length: 4096 }))
  return { generation: 4, holder: HOLDER_OF_FLEET, ranges }
}

function mebibytes(bytes: number): string {
  return thousands(Number((bytes / 1024 ** 2).toPrecision(3)))
}

function thousands(value: number): string {
  return value.toLocaleString('en-US')
}
