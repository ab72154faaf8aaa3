/**
 * A fleet on two hosts: hundreds of exports on one daemon, a second one that waits in standby for the same images, and a
 * guest on each export. Most images are plain files. Some are witness disks, whose bytes the second host reaches below
 * the disk, so that neither is held up by the other's path; they come first, where whoever goes in order meets them first.
 */

import { closeSync, openSync, readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import type { EvacuationReport, ExportStatus } from '../../src/client/index.ts'
import { eachAtOnce } from '../../src/foundation/at-once.ts'
import { startDaemon } from '../support/daemon.ts'
import type { Daemon, DaemonOptions, ExportEntry } from '../support/daemon.ts'
import { eventually } from '../support/eventually.ts'
import type { Outcome } from '../support/foreign-program.ts'
import { connectFrontend } from '../support/nbd-frontend.ts'
import type { Scratch } from '../support/scratch.ts'
import { VerifiedWriter } from '../support/verified-writer.ts'
import { startWitnessDisk } from '../support/witness-disk.ts'
import type { WitnessDisk, WitnessDiskOptions } from '../support/witness-disk.ts'

const BLOCK_BYTES = 4_096
const BLOCKS = 32
export const IMAGE_BYTES = BLOCKS * BLOCK_BYTES
const LANES = 2
/** One after the other: a witness disk has one write in it at a time. */
const LANES_ON_WITNESS = 1
const PAUSE_MS = 400
const AT_ONCE = 16
const PATIENCE_MS = 60_000
const READY_TIMEOUT_MS = 180_000
const EVACUATION_TIMEOUT_MS = 240_000
/** At least, and by a timer: a close that does not end keeps its place for 5 s. */
const PLACE_KEPT_MS = 4_900

export interface Volume {
  readonly name: string
  /** As the first host is given it. */
  readonly path: string
  /** Where its bytes are, and where the second host finds them. */
  readonly bytesPath: string
  readonly disk: WitnessDisk | null
}

export interface Fleet {
  readonly volumes: readonly Volume[]
  readonly disks: readonly WitnessDisk[]
  readonly source: Daemon
  readonly destination: Daemon
}

export interface FleetOptions {
  readonly count: number
  /** How many of them are witness disks. */
  readonly witnesses: number
  readonly witness: WitnessDiskOptions
  readonly engine?: DaemonOptions['engine']
}

export async function startFleet(scratch: Scratch, options: FleetOptions): Promise<Fleet> {
  const volumes = await makeVolumes(scratch, options)
  const records = { ownershipSettings: [`directory = ${JSON.stringify(scratch.directory('records'))}`] }
  const engine = options.engine === undefined ? {} : { engine: options.engine }
  const host = (pathOf: (volume: Volume) => string, standby: boolean): Promise<Daemon> =>
    startFleetDaemon(scratch, entriesOf(volumes, pathOf), { ...records, ...engine, standby })
  const source = await host(({ path }) => path, false)
  const destination = await host(({ bytesPath }) => bytesPath, true)
  return { volumes, disks: volumes.flatMap(({ disk }) => disk ?? []), source, destination }
}

/** Every export has its image, and is open where it does not wait in standby: a daemon is ready before that. */
export async function startFleetDaemon(
  scratch: Scratch,
  exports: readonly ExportEntry[],
  options: Partial<DaemonOptions> = {},
): Promise<Daemon> {
  const settings = ['workers = 2', ...(options.settings ?? [])]
  const fleet = { ownership: 'directory', tcp: false, readyTimeoutMs: READY_TIMEOUT_MS } as const
  const daemon = await startDaemon(scratch, { ...fleet, exports, ...options, settings })
  const wanted = options.standby === true ? 'standby' : 'open'
  const begun = async (): Promise<boolean> => {
    const states = await exportsOf(daemon)
    return states.filter(({ state, size }) => state === wanted && size > 0).length === exports.length
  }
  await eventually(`${exports.length} exports to be ${wanted}`, begun, { timeoutMs: READY_TIMEOUT_MS, intervalMs: 500 })
  return daemon
}

export async function exportsOf(daemon: Daemon): Promise<readonly ExportStatus[]> {
  const { exports } = await daemon.ask<{ readonly exports: readonly ExportStatus[] }>('GET', '/exports')
  return exports
}

/** Images that are written in full. */
export function makeImages(scratch: Scratch, count: number): { readonly name: string; readonly path: string }[] {
  const directory = scratch.directory('fleet')
  return Array.from({ length: count }, (_, index) => {
    const name = `volume-${String(index).padStart(3, '0')}`
    const path = join(directory, `${name}.raw`)
    const file = openSync(path, 'wx')
    writeSync(file, Buffer.alloc(IMAGE_BYTES))
    closeSync(file)
    return { name, path }
  })
}

async function makeVolumes(scratch: Scratch, { count, witnesses, witness }: FleetOptions): Promise<Volume[]> {
  const disks = await Promise.all(
    Array.from({ length: witnesses }, () => startWitnessDisk(scratch, { sizeBytes: IMAGE_BYTES, ...witness })),
  )
  return [
    ...disks.map((disk, index) => ({ name: `slow-${index}`, path: disk.path, bytesPath: disk.backingPath, disk })),
    ...makeImages(scratch, count - witnesses).map(({ name, path }) => ({ name, path, bytesPath: path, disk: null })),
  ]
}

function entriesOf(volumes: readonly Volume[], pathOf: (volume: Volume) => string): ExportEntry[] {
  return volumes.map((volume) => ({ name: volume.name, path: pathOf(volume), image_id: volume.name }))
}

/** `interlockctl evacuate`, and its report. */
export async function evacuate(
  daemon: Daemon,
  ...words: string[]
): Promise<{ readonly outcome: Outcome; readonly report: EvacuationReport }> {
  const outcome = await daemon.ctl(['evacuate', ...words], EVACUATION_TIMEOUT_MS)
  const { daemons } = JSON.parse(outcome.stdout) as { readonly daemons: readonly EvacuationReport[] }
  const [report] = daemons
  if (report === undefined) throw new Error(`no report: ${outcome.stdout}${outcome.stderr}`)
  return { outcome, report }
}

/** Whether no close waited for another one. */
export function beganTogether({ exports }: EvacuationReport): boolean {
  const firstEndMs = Math.min(...exports.map(({ endedMs }) => endedMs ?? Infinity))
  return exports.every(({ beganMs }) => beganMs !== null && beganMs <= firstEndMs)
}

/** Whether each close began when the one before it had ended, or had kept its place for long. */
export function beganInTurn({ exports }: EvacuationReport): boolean {
  let freeMs = 0
  return exports.every(({ beganMs, endedMs }) => {
    if (beganMs === null || beganMs < freeMs) return false
    freeMs = Math.min(endedMs ?? Infinity, beganMs + PLACE_KEPT_MS)
    return true
  })
}

/** A guest on each export, the connections of others beside it, and what each block must hold. */
export class Guests {
  readonly #scratch: Scratch
  readonly #fleet: Fleet
  readonly writers: ReadonlyMap<Volume, VerifiedWriter>

  constructor(scratch: Scratch, fleet: Fleet) {
    this.#scratch = scratch
    this.#fleet = fleet
    this.writers = new Map(
      fleet.volumes.map((volume) => {
        const lanes = volume.disk === null ? LANES : LANES_ON_WITNESS
        return [volume, new VerifiedWriter(scratch, BLOCKS, lanes, { exportName: volume.name, pauseMs: PAUSE_MS })]
      }),
    )
  }

  /** All write at the source; those on witness disks last, and each of the slow ones has a write in it. */
  async begin(slow: readonly WitnessDisk[] = this.#fleet.disks): Promise<void> {
    const { volumes, disks, source } = this.#fleet
    const plain = volumes.filter(({ disk }) => disk === null)
    await this.moveTo(source, plain)
    await this.progress(2, plain)
    for (const disk of disks)
      if (disk.log.inDisk().length > 0) throw new Error('a disk is busy before its guest writes')
    await this.moveTo(
      source,
      volumes.filter(({ disk }) => disk !== null),
    )
    await eventually('a write in each slow disk', () => slow.every(hasWrite), { timeoutMs: PATIENCE_MS })
  }

  /** Connections that read once and then stay. */
  async addReaders(daemon: Daemon, perExport: number): Promise<void> {
    const names = this.#fleet.volumes
      .filter(({ disk }) => disk === null)
      .flatMap(({ name }) => Array.from({ length: perExport }, () => name))
    await eachAtOnce(names, AT_ONCE, async (name) => {
      const reader = await connectFrontend(this.#scratch, daemon.address, name)
      await reader.read(0, BLOCK_BYTES, PATIENCE_MS)
    })
  }

  async moveTo(daemon: Daemon, volumes = this.#fleet.volumes): Promise<void> {
    await eachAtOnce(volumes, AT_ONCE, (volume) => this.#of(volume).moveTo(daemon.address))
  }

  async progress(count: number, volumes = this.#fleet.volumes): Promise<void> {
    await Promise.all(volumes.map((volume) => this.#of(volume).progress(count)))
  }

  async settle(): Promise<void> {
    await Promise.all([...this.writers.values()].map((writer) => writer.settle(PATIENCE_MS)))
  }

  /** Read through the daemon, before any guest writes there. */
  async badBlocksServedBy(daemon: Daemon, volumes = this.#fleet.volumes): Promise<string[]> {
    const bad: string[] = []
    await eachAtOnce(volumes, AT_ONCE, async (volume) => {
      const reader = await connectFrontend(this.#scratch, daemon.address, volume.name)
      bad.push(...this.#of(volume).badBlocksIn(await reader.read(0, IMAGE_BYTES, PATIENCE_MS)))
      await reader.disconnect()
    })
    return bad
  }

  /** In the bytes of the images themselves. */
  badBlocks(): string[] {
    return [...this.writers].flatMap(([{ bytesPath }, writer]) => writer.badBlocks(bytesPath))
  }

  get answers(): number {
    return [...this.writers.values()].reduce((total, { answers }) => total + answers, 0)
  }

  #of(volume: Volume): VerifiedWriter {
    const writer = this.writers.get(volume)
    if (writer === undefined) throw new Error(`${volume.name} has no guest`)
    return writer
  }
}

function hasWrite({ log }: WitnessDisk): boolean {
  return log.inDisk().some(({ kind }) => kind === 'Write')
}

export async function openAll(daemon: Daemon, volumes: readonly Volume[]): Promise<void> {
  await eachAtOnce(volumes, AT_ONCE, async ({ name }) => {
    await daemon.ask('POST', `/exports/${name}/open`, { timeoutMs: PATIENCE_MS }, 2 * PATIENCE_MS)
  })
}

/** Every byte of every image. */
export function contentOf(volumes: readonly Volume[]): ReadonlyMap<string, Buffer> {
  return new Map(volumes.map(({ name, bytesPath }) => [name, readFileSync(bytesPath)]))
}

/** The images in which something has changed since. */
export function changedSince(before: ReadonlyMap<string, Buffer>, volumes: readonly Volume[]): string[] {
  const now = contentOf(volumes)
  return volumes
    .map(({ name }) => name)
    .filter((name) => before.get(name)?.equals(now.get(name) ?? Buffer.alloc(0)) !== true)
}
