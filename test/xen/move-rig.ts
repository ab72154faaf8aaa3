/**
 * A guest of a real Xen that moves while many of its writes are in slow disks: saved, its disks handed over, and restored
 * over other daemons. It has a disk for each way of handing over, so that one journey shows them all; another is served by
 * qemu-nbd, which hands nothing over. What happened is kept for the tests to judge.
 *
 * Xen's dom0 stands for both hosts, one after the other. Their daemons run on this machine, where node is not emulated, and
 * reach a disk by ways of their own: see held-disk.ts. Only the ways of the one that is killed are the same, because the
 * lock by which it is taken over counts on one host alone.
 */

import { basename } from 'node:path'
import type { ExportStatus } from '../../src/exports/verbs.ts'
import type { Receipt } from '../../src/interlock/receipt.ts'
import { placeApart } from '../exports/ownership-rig.ts'
import { startDaemon } from '../support/daemon.ts'
import type { Daemon, DaemonOptions } from '../support/daemon.ts'
import { eventually } from '../support/eventually.ts'
import { startQemuNbd } from '../support/foreign-server.ts'
import { startHeldDisk } from '../support/held-disk.ts'
import type { HeldDisk, SharedDisk } from '../support/held-disk.ts'
import type { Scratch } from '../support/scratch.ts'
import { makeGuestSystem, startXenMachine } from '../support/xen-machine.ts'
import type { GuestSystem, XenMachine } from '../support/xen-machine.ts'

/** The guest's name for the disk of each way. */
export const DEVICES = { plain: 'xvda', aborted: 'xvdb', early: 'xvdc', killed: 'xvdd', qemu: 'xvde' } as const
export type Way = keyof typeof DEVICES
export type OurWay = Exclude<Way, 'qemu'>
/** Those that their source closes. */
const CLOSED_WAYS = ['plain', 'aborted', 'early'] as const satisfies readonly OurWay[]
export const OUR_WAYS = [...CLOSED_WAYS, 'killed'] as const satisfies readonly OurWay[]
const ALL_WAYS = Object.keys(DEVICES) as Way[]

/** Writes in flight on each disk when the guest is saved, each to a block of its own. */
export const WRITES = 24
/** QEMU's server takes no more at once from one connection. */
export const WRITES_OF_QEMU = 16
/** Of the disk whose unsubmitted writes are dropped: these wait, in the daemon, for earlier ones of the same blocks. */
export const WAITING_FIRST = 24
export const WAITING = 4
/** A block that none of them touches. */
export const BESIDE = 30
export const APART_BYTES = 65_536
const DISK_BYTES = 64 * APART_BYTES

/** What the blocks hold: written before the move, in flight while the guest moves, and written over that. */
export const BEFORE = 1
export const MOVING = 2
export const NEWER = 3

type Host = 'source' | 'destination'

const GUEST = 'guest'
const SOURCE_FILE = '/run/source.cfg'
const DESTINATION_FILE = '/run/destination.cfg'
/** An emulated machine on a busy one. */
const PATIENCE = { timeoutMs: 120_000, intervalMs: 200 }

export interface Move {
  readonly disks: Readonly<Record<Way, HeldDisk>>
  /** Of our exports when the guest had been saved. */
  readonly atSave: Readonly<Record<OurWay, ExportStatus>>
  /** Requests in the kernel's client of the disk that qemu-nbd serves, then. */
  readonly qemuInFlightAtSave: number
  /** Of the exports at the destination, while the old writes of that disk were still in it. */
  readonly whileHeld: Readonly<Record<Exclude<OurWay, 'aborted'>, ExportStatus>>
  /** What the guest had said when it had gone on, and the disk of the early way still had its old writes. */
  readonly saidWhileHeld: string
  /** Of the exports at the destination, when all was written. */
  readonly atEnd: Readonly<Record<OurWay, ExportStatus>>
  readonly receipts: Readonly<Record<Exclude<OurWay, 'killed'>, Receipt>>
  /** What the guest reads in the end. */
  readonly read: Readonly<Record<Way, readonly number[]>>
}

interface Hosts {
  readonly source: Daemon
  /** A second daemon of the source, for the disk whose daemon dies. */
  readonly doomed: Daemon
  readonly destination: Daemon
}

export async function moveGuest(scratch: Scratch): Promise<Move> {
  const system = await makeGuestSystem(scratch)
  const disks = {} as Record<Way, SharedDisk>
  for (const way of ALL_WAYS) disks[way] = await startHeldDisk(scratch, DISK_BYTES)
  const hosts = await startDaemons(scratch, disks)
  const xen = await startXenMachine(scratch)
  const attached = await attachDisks(scratch, disks.qemu, xen, hosts)
  scratch.defer('writes that are held back', () => {
    for (const { disk } of Object.values(disks)) disk.release()
  })
  await startGuest(xen, system, hosts, attached)
  const journey = new Journey(xen, hosts, basename(attached.source.qemu ?? ''), {
    ...{ plain: disks.plain.disk, aborted: disks.aborted.disk, early: disks.early.disk },
    ...{ killed: disks.killed.disk, qemu: disks.qemu.disk },
  })
  await journey.fillDisks()
  return journey.move()
}

async function startDaemons(scratch: Scratch, disks: Readonly<Record<Way, SharedDisk>>): Promise<Hosts> {
  const { ownership, settings: ownershipSettings } = placeApart(scratch)
  const exportOf = async (way: OurWay, host: string) => ({
    ...{ name: way, image_id: way, path: await disks[way].mount(host) },
  })
  const start = (exports: DaemonOptions['exports'], stateDirectory: string): Promise<Daemon> =>
    startDaemon(scratch, {
      ...{ exports, ownership, ownershipSettings, stateDirectory },
      ...{ engine: 'io_uring', standby: true, tcp: false },
    })
  const exportsOf = (host: string) => Promise.all(CLOSED_WAYS.map((way) => exportOf(way, host)))
  const ofBoth = await exportOf('killed', 'both')
  const stateDirectory = scratch.directory('destination')
  const source = await start(await exportsOf('source'), scratch.directory('source'))
  const doomed = await start([ofBoth], stateDirectory)
  const destination = await start([...(await exportsOf('destination')), ofBoth], stateDirectory)
  return { source, doomed, destination }
}

/** Where a disk is attached in dom0: at each host before it is opened there, which serves reads and parks writes. */
type Attached = Readonly<Record<Host, Partial<Record<Way, string>>>>

async function attachDisks(scratch: Scratch, shared: SharedDisk, xen: XenMachine, hosts: Hosts): Promise<Attached> {
  const attached: Record<Host, Partial<Record<Way, string>>> = { source: {}, destination: {} }
  let devices = 0
  const attach = async (host: Host, way: Way, socketPath: string): Promise<void> => {
    devices += 1
    const device = `/dev/nbd${devices}`
    const name = way === 'qemu' ? 'vda' : way
    await xen.machine.check(`nbd-client -unix ${await xen.lend(socketPath)} -name ${name} ${device}`)
    attached[host][way] = device
  }
  const { source, doomed, destination } = hosts
  for (const way of CLOSED_WAYS) await source.open(way)
  await doomed.open('killed')
  for (const way of CLOSED_WAYS) await attach('source', way, source.nbdPath)
  await attach('source', 'killed', doomed.nbdPath)
  for (const way of OUR_WAYS) if (way !== 'plain') await attach('destination', way, destination.nbdPath)
  for (const host of ['source', 'destination'] as const) {
    const { path } = await startQemuNbd(scratch, await shared.mount(host), 'vda', 'directsync', { locking: false })
    await attach(host, 'qemu', path)
  }
  return attached
}

/** At the destination the script attaches one disk, and has its source close it. */
async function startGuest(xen: XenMachine, system: GuestSystem, hosts: Hosts, attached: Attached): Promise<void> {
  const { source, destination } = hosts
  const disk = (way: Way, device: string): string => `script=block-attached,vdev=${DEVICES[way]},target=${device}`
  const disksOf = (host: Host): string[] =>
    ALL_WAYS.flatMap((way) => {
      const device = attached[host][way]
      return device === undefined ? [] : [disk(way, device)]
    })
  const target = [
    'plain',
    `control=unix:${await xen.lend(destination.controlPath)}`,
    `nbd=unix:${await xen.lend(destination.nbdPath)}`,
    `from=unix:${await xen.lend(source.controlPath)}`,
    'timeout=35',
  ]
  const scripted = `script=block-interlock,vdev=${DEVICES.plain},target=${target.join(',')}`
  await xen.configure(GUEST, SOURCE_FILE, system, disksOf('source'))
  await xen.configure(GUEST, DESTINATION_FILE, system, [scripted, ...disksOf('destination')])
  await xen.machine.check(`xl create ${SOURCE_FILE}`, 240_000)
  await xen.untilSaid(GUEST, /writer ready/u, 240_000)
}

class Journey {
  readonly #xen: XenMachine
  readonly #hosts: Hosts
  readonly #qemuDevice: string
  readonly #disks: Readonly<Record<Way, HeldDisk>>

  constructor(xen: XenMachine, hosts: Hosts, qemuDevice: string, disks: Readonly<Record<Way, HeldDisk>>) {
    this.#xen = xen
    this.#qemuDevice = qemuDevice
    this.#hosts = hosts
    this.#disks = disks
  }

  /** Every disk has its writes in flight, held back in it. */
  async fillDisks(): Promise<void> {
    const { source, doomed } = this.#hosts
    for (const way of ALL_WAYS) await this.#tell(way, 'write', 0, WRITES, BEFORE)
    for (const way of ALL_WAYS) await this.#untilAnswered(way, 0, BEFORE)
    for (const way of ALL_WAYS) {
      this.#disks[way].hold(way === 'killed' ? 'both' : 'source')
      await this.#tell(way, 'write', 0, WRITES, MOVING, NEWER)
    }
    await this.#tell('aborted', 'write', WAITING_FIRST, WAITING, BEFORE)
    const submitted = async (daemon: Daemon, way: OurWay, count: number): Promise<void> => {
      const what = `${count} writes of ${way} in flight`
      await eventually(what, async () => (await daemon.status(way)).outstanding.submitted === count, PATIENCE)
    }
    await submitted(source, 'plain', WRITES)
    await submitted(source, 'early', WRITES)
    await submitted(doomed, 'killed', WRITES)
    await submitted(source, 'aborted', WRITES + WAITING)
    await this.#tell('aborted', 'write', WAITING_FIRST, WAITING, MOVING)
    const waiting = async (): Promise<boolean> => (await source.status('aborted')).outstanding.held === WAITING
    await eventually('writes that wait in the daemon', waiting, PATIENCE)
    await eventually('writes under qemu-nbd', async () => (await this.#inFlightUnderQemu()) === WRITES, PATIENCE)
  }

  async move(): Promise<Move> {
    const { source, doomed, destination } = this.#hosts
    await this.#xen.machine.check(`xl save ${GUEST} /run/saved`, 240_000)
    const qemuInFlightAtSave = await this.#inFlightUnderQemu()
    const atSave = { ...(await statuses(source, CLOSED_WAYS)), ...(await statuses(doomed, ['killed'])) }
    const aborted = await this.#closeAborting()
    const killed = await this.#takeOver()
    await source.close('early', { early: true })
    await destination.open('early')
    const plain = await this.#restore()
    for (const way of ['plain', 'aborted', 'killed', 'qemu'] as const) await this.#untilAnswered(way, 0, NEWER)
    await this.#tell('early', 'write', BESIDE, 1, NEWER)
    await this.#untilAnswered('early', BESIDE, NEWER)
    const early = await destination.status('early')
    const saidWhileHeld = await this.#xen.console(GUEST)
    this.#disks.early.release()
    this.#disks.qemu.release()
    await this.#untilAnswered('early', 0, NEWER)
    const { receipt: plainReceipt } = await source.close('plain')
    const { receipt: earlyReceipt } = await source.close('early', { timeoutMs: 120_000 })
    await eventually('the old writes under qemu-nbd', () => oldOnDisk(this.#disks.qemu) >= WRITES_OF_QEMU, PATIENCE)
    return {
      ...{ disks: this.#disks, atSave, qemuInFlightAtSave, saidWhileHeld },
      whileHeld: { plain, early, killed },
      atEnd: await statuses(destination, OUR_WAYS),
      receipts: { plain: plainReceipt, aborted, early: earlyReceipt },
      read: await this.#readByGuest(),
    }
  }

  /** Closed, and only then opened: the guest is nowhere meanwhile. */
  async #closeAborting(): Promise<Receipt> {
    const { source, destination } = this.#hosts
    const closed = source.close('aborted', { unsubmitted: 'abort', timeoutMs: 120_000 })
    closed.catch(() => undefined)
    await untilState(source, 'aborted', 'closing')
    this.#disks.aborted.release()
    const { receipt } = await closed
    await destination.open('aborted')
    return receipt
  }

  /** The source's daemon dies, and another one of its host opens. Returns what that said while it waited. */
  async #takeOver(): Promise<ExportStatus> {
    const { doomed, destination } = this.#hosts
    doomed.program.signal('SIGKILL')
    const opened = destination.open('killed', { timeoutMs: 120_000 })
    opened.catch(() => undefined)
    const waiting = await untilState(destination, 'killed', 'opening')
    this.#disks.killed.release()
    await opened
    return waiting
  }

  /** The script hands over while the guest is restored, and waits for the disk. */
  async #restore(): Promise<ExportStatus> {
    const { source, destination } = this.#hosts
    const restored = this.#xen.machine.check(`xl restore ${DESTINATION_FILE} /run/saved`, 240_000)
    restored.catch(() => undefined)
    await Promise.race([untilState(source, 'plain', 'closing'), restored])
    const waiting = await destination.status('plain')
    this.#disks.plain.release()
    await restored
    return waiting
  }

  #tell(way: Way, verb: string, ...numbers: number[]): Promise<void> {
    return this.#xen.tell(GUEST, [verb, DEVICES[way], ...numbers].join(' '))
  }

  /** The guest has had the answer to all of these writes, and none failed. */
  async #untilAnswered(way: Way, first: number, number: number): Promise<void> {
    const said = new RegExp(`${DEVICES[way]} answered ${first} ${number} (\\d+)`, 'u')
    const [, errors] = await this.#xen.untilSaid(GUEST, said, 240_000)
    if (errors !== '0') throw new Error(`${errors} writes of ${way} failed in the guest`)
  }

  async #inFlightUnderQemu(): Promise<number> {
    const said = await this.#xen.machine.check(`cat /sys/block/${this.#qemuDevice}/inflight`)
    return Number(said.trim().split(/\s+/u)[1])
  }

  async #readByGuest(): Promise<Record<Way, number[]>> {
    const read = {} as Record<Way, number[]>
    for (const way of ALL_WAYS) await this.#tell(way, 'read', 0, WRITES)
    for (const way of ALL_WAYS) {
      const [, numbers = ''] = await this.#xen.untilSaid(
        GUEST,
        new RegExp(`${DEVICES[way]} holds 0 (.*)\n`, 'u'),
        120_000,
      )
      read[way] = numbers.split(' ').map(Number)
    }
    return read
  }
}

async function untilState(daemon: Daemon, way: OurWay, state: string): Promise<ExportStatus> {
  const reached = async (): Promise<ExportStatus | false> => {
    const status = await daemon.status(way)
    return status.state === state && status
  }
  return eventually(`${way} is ${state}`, reached, PATIENCE)
}

async function statuses<W extends OurWay>(daemon: Daemon, ways: readonly W[]): Promise<Record<W, ExportStatus>> {
  const found = {} as Record<W, ExportStatus>
  for (const way of ways) found[way] = await daemon.status(way)
  return found
}

/** Blocks that hold what was in flight while the guest moved, though newer writes were answered. */
export function oldOnDisk(disk: HeldDisk): number {
  return numbersOnDisk(disk).filter((number) => number === MOVING).length
}

export function numbersOnDisk(disk: HeldDisk): (number | undefined)[] {
  return Array.from({ length: WRITES }, (_, index) => disk.numberAt(index * APART_BYTES))
}
