/**
 * How long a close takes, while fio has requests in flight: from the request to the control API until its receipt. The
 * part that the receipt calls `drain` is the slowest request in flight, which no server can shorten; what is beyond it is
 * ours, and on a machine where fio takes whatever processor time there is, also the waiting for a core. The light load
 * leaves the cores to the daemon. After each close the export is opened again, and fio goes on without noticing.
 *
 * A close can be no faster than what it is made of: an exchange over the control socket, and a receipt that is durable
 * before it is given. So both are timed beside it, at the same moments: a question about the export by the same client,
 * and a file that this program replaces durably, on the disk where the daemon keeps its receipts.
 */

import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { createFile, renameFile, syncDirectory } from '../../src/blocking/file-calls.ts'
import { startDaemon } from '../support/daemon.ts'
import type { Daemon, EngineName } from '../support/daemon.ts'
import { startProgram } from '../support/foreign-program.ts'
import type { Scratch } from '../support/scratch.ts'
import { requirePeer } from '../../scripts/peers.mjs'
import { EXPORT_NAME, exportEntry } from './contender.ts'
import { fioArguments } from './fio.ts'
import type { Row } from './row.ts'

export interface CloseSample {
  readonly totalMs: number
  readonly drainMs: number
  readonly beyondMs: number
  /** Of `beyondMs`: letting go of the file and proving that nobody has it, by the receipt. */
  readonly letGoMs: number
  readonly requests: number
  /** A question about the export, and its answer. */
  readonly exchangeMs: number
  /** A small file replaced, and durable with its name. */
  readonly keptFileMs: number
}

export interface CloseLatency {
  readonly engine: EngineName
  readonly ownership: 'none' | 'directory'
  readonly load: CloseLoad
  readonly samples: CloseSample[]
}

export type CloseLoad = keyof typeof LOADS

/** As much as the server answers, or so little that both cores are idle most of the time. */
const LOADS = {
  full: { inFlight: 8, extraArguments: [] },
  light: { inFlight: 1, extraArguments: ['--rate_iops=400'] },
} as const

const ROW: Row = {
  pattern: 'write',
  block: '4k',
  depth: 32,
  connections: 1,
  image: 'written',
  transport: 'unix',
  mode: 'durable',
}
const PAUSE_MS = { least: 20, spread: 40 }
const SECONDS_PER_ROUND = 0.5
const KEPT_FILE_BYTES = 800

export async function measureClose(
  scratch: Scratch,
  engine: EngineName,
  ownership: CloseLatency['ownership'],
  load: CloseLoad,
  image: { readonly path: string; readonly sizeBytes: number },
  rounds: number,
): Promise<CloseLatency> {
  const daemon = await startDaemon(scratch, { engine, ownership, exports: [exportEntry(image.path, ROW)] })
  const seconds = 5 + rounds * SECONDS_PER_ROUND
  const { inFlight, extraArguments } = LOADS[load]
  const fioLoad = fioArguments(ROW, { uri: daemon.uri(EXPORT_NAME) }, seconds, image.sizeBytes)
  const fio = startProgram(scratch, requirePeer('fio'), [...fioLoad, ...extraArguments])
  await daemon.untilInFlight(EXPORT_NAME, inFlight, 20_000)
  const folder = scratch.directory('kept-file')
  const samples: CloseSample[] = []
  for (let round = 0; round < rounds && fio.running; round += 1) {
    await sleep(PAUSE_MS.least + Math.random() * PAUSE_MS.spread)
    const close = await closeOnce(daemon, ownership)
    const exchangeMs = await exchangeOnce(daemon)
    samples.push({ ...close, exchangeMs, keptFileMs: keepFileOnce(folder) })
  }
  await fio.stop('SIGINT')
  return { engine, ownership, load, samples }
}

async function closeOnce(
  daemon: Daemon,
  ownership: CloseLatency['ownership'],
): Promise<Omit<CloseSample, 'exchangeMs' | 'keptFileMs'>> {
  const began = performance.now()
  const { receipt } = await daemon.close(EXPORT_NAME)
  const totalMs = performance.now() - began
  // Where no record is kept, the source's own receipt takes the handover back.
  await daemon.open(EXPORT_NAME, ownership === 'none' ? { receipt } : {})
  const { drain: drainMs, record: letGoMs } = receipt.elapsedMs
  return { totalMs, drainMs, beyondMs: totalMs - drainMs, letGoMs, requests: receipt.drained.requests }
}

async function exchangeOnce(daemon: Daemon): Promise<number> {
  const began = performance.now()
  await daemon.ask('GET', `/exports/${EXPORT_NAME}`)
  return performance.now() - began
}

function keepFileOnce(folder: string): number {
  const began = performance.now()
  const written = join(folder, 'written')
  const results = [
    createFile(written, Buffer.alloc(KEPT_FILE_BYTES, 0x20), 0o600),
    renameFile(written, join(folder, 'kept')),
    syncDirectory(folder),
  ]
  if (results.some((result) => result < 0))
    throw new Error(`a file in ${folder} could not be replaced: ${results.join(', ')}`)
  return performance.now() - began
}
