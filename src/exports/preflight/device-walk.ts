/**
 * Down through block devices, by /sys and two ioctls: what each is made of, what its queue says, and what is under it.
 * A device is looked at once, however many ways lead to it, so a circle cannot hold the walk.
 */

import type { DeviceLayer, DeviceMake, LayerFacts, QueueFacts } from './facts.ts'
import type { Machine } from './machine.ts'
import { mountPointsOf } from './mount-table.ts'
import type { Mount } from './mount-table.ts'

export const LAYERS_MAX = 128
const SECTOR_BYTES = 512
const MILLISECONDS = 1000
const QUEUE_TEXTS = ['write_cache', 'fua', 'logical_block_size', 'physical_block_size'] as const
type QueueText = (typeof QUEUE_TEXTS)[number]

/** Asked for at once: an opening waits for each question. */
const DEVICE_TEXTS = ['size', 'ro', 'cache_type', 'device/vendor', 'device/model', 'device/transport'] as const
type DeviceText = (typeof DEVICE_TEXTS)[number]
/** Those of its queue are named as they are in the queue's folder. */
type DeviceTexts = Readonly<Record<DeviceText | QueueText, string | null>>

export interface DeviceWalk {
  readonly machine: Machine
  readonly mounts: readonly Mount[]
  readonly seen: Set<string>
  readonly add: (layer: LayerFacts) => void
  /** Goes on under a loop device. */
  readonly walkFile: (path: string, depth: number) => Promise<void>
}

type ImageParts = Pick<DeviceLayer, 'direct' | 'users'>

const NOT_THE_IMAGE: ImageParts = { direct: null, users: null }

/** `image` where the device is the image itself. */
export async function walkDevice(walk: DeviceWalk, device: string, depth: number, image?: ImageParts): Promise<void> {
  if (walk.seen.has(device) || walk.seen.size >= LAYERS_MAX) return
  walk.seen.add(device)
  const folder = `/sys/dev/block/${device}`
  const link = await walk.machine.link(folder)
  if (link === null) {
    walk.add({ depth, kind: 'unknown', what: `the block device ${device}, of which /sys knows nothing` })
    return
  }
  const entries = new Set(await walk.machine.names(folder))
  const sysName = link.slice(link.lastIndexOf('/') + 1)
  const texts = await readDevice(walk.machine, folder, entries)
  const below = await findMake({ machine: walk.machine, folder, link, sysName, device, entries, texts })
  walk.add({
    depth,
    kind: 'device',
    name: sysName.replaceAll('!', '/'),
    device,
    sizeBytes: texts.size === null ? null : Number(texts.size) * SECTOR_BYTES,
    readOnly: texts.ro === '1',
    queue: queueOf(texts),
    usedBy: image === undefined ? [] : await findUses(walk, folder, device, entries),
    ...(image ?? NOT_THE_IMAGE),
    make: below.make,
  })
  for (const lower of below.devices) await walkDevice(walk, lower, depth + 1)
  if (below.file !== null) await walk.walkFile(below.file, depth + 1)
}

interface Below {
  readonly make: DeviceMake
  readonly devices: readonly string[]
  readonly file: string | null
}

const bottom = (make: DeviceMake): Below => ({ make, devices: [], file: null })

interface Found {
  readonly machine: Machine
  readonly folder: string
  readonly link: string
  readonly sysName: string
  readonly device: string
  readonly entries: ReadonlySet<string>
  readonly texts: DeviceTexts
}

async function findMake(found: Found): Promise<Below> {
  const { machine, folder, link, sysName, device, entries } = found
  if (entries.has('partition')) {
    const parent = link.split('/').at(-2) ?? ''
    const disk = await machine.texts(`${folder}/..`, ['dev'])
    return { make: { type: 'partition', of: parent }, devices: disk.dev === null ? [] : [disk.dev], file: null }
  }
  if (/^loop\d+$/u.test(sysName)) return findLoop(machine, folder, sysName, entries)
  if (entries.has('dm'))
    return { make: await findMapper(machine, folder, device), devices: await slaves(machine, folder), file: null }
  if (entries.has('md'))
    return { make: await findArray(machine, folder), devices: await slaves(machine, folder), file: null }
  if (/^bcache\d+$/u.test(sysName)) {
    const { cache_mode: modes } = await machine.texts(`${folder}/bcache`, ['cache_mode'])
    const make = { type: 'bcache', cacheMode: /\[(\w+)\]/u.exec(modes ?? '')?.[1] ?? null } as const
    return { make, devices: await slaves(machine, folder), file: null }
  }
  if (/^zram\d+$/u.test(sysName)) return bottom({ type: 'memory', driver: 'zram' })
  if (/^ram\d+$/u.test(sysName)) return bottom({ type: 'memory', driver: 'ram' })
  if (/^nbd\d+$/u.test(sysName)) return bottom(await findNbd(machine, folder, sysName))
  if (/^(?:rbd|drbd)\d+$/u.test(sysName)) return bottom({ type: 'remote', driver: sysName.replace(/\d+$/u, '') })
  const disk = await findDisk(found)
  if (disk !== null) return bottom(disk)
  const make = { type: 'other', driver: sysName.replace(/\d+$/u, '') } as const
  return { make, devices: await slaves(machine, folder), file: null }
}

async function slaves(machine: Machine, folder: string): Promise<readonly string[]> {
  const names = await machine.names(`${folder}/slaves`)
  if (names.length === 0) return []
  const devices = await machine.texts(
    `${folder}/slaves`,
    names.map((name) => `${name}/dev`),
  )
  return Object.values(devices).filter((device) => device !== null)
}

async function findLoop(machine: Machine, folder: string, name: string, entries: ReadonlySet<string>): Promise<Below> {
  if (!entries.has('loop')) return bottom({ type: 'loop', backingPath: null, direct: null, found: false })
  const path = (await machine.text(`${folder}/loop/backing_file`))?.replace(/\n$/u, '') ?? null
  const { dio } = await machine.texts(`${folder}/loop`, ['dio'])
  const direct = dio === null ? null : dio === '1'
  const found = path !== null && (await isBacking(machine, name, path))
  return { make: { type: 'loop', backingPath: path, direct, found }, devices: [], file: found ? path : null }
}

/** The path may be cut short, belong to another mount namespace, or be another file's by now. */
async function isBacking(machine: Machine, name: string, path: string): Promise<boolean> {
  const stats = await machine.ask(`stat of ${path}`, { kind: 'statPath', path })
  if (typeof stats === 'number') return false
  const device = `/dev/${name}`
  const backing = await machine.ask(`a look at ${device}`, { kind: 'probeLoop', path: device })
  // Where the device itself may not be opened, the path is all that is known.
  if (typeof backing === 'number') return true
  return backing.inodeText === stats.inodeText && (backing.device === stats.device || stats.device.startsWith('0:'))
}

async function findMapper(machine: Machine, folder: string, device: string): Promise<DeviceMake> {
  const { name, uuid } = await machine.texts(`${folder}/dm`, ['name', 'uuid'])
  const [major = 0, minor = 0] = device.split(':').map(Number)
  const targets = await machine.ask(`the targets of ${name ?? device}`, { kind: 'probeMapper', major, minor })
  return {
    type: 'mapper',
    mapperName: name ?? '',
    uuid: uuid ?? '',
    targets: typeof targets === 'number' ? null : targets,
  }
}

async function findArray(machine: Machine, folder: string): Promise<DeviceMake> {
  const texts = await machine.texts(`${folder}/md`, ['level', 'array_state', 'degraded', 'consistency_policy'])
  return {
    type: 'array',
    level: texts.level ?? '',
    state: texts.array_state ?? '',
    degraded: Number(texts.degraded ?? 0),
    consistency: texts.consistency_policy ?? '',
  }
}

/**
 * The kernel's own words for the timeout are in debugfs; the queue's are 30 s also where there is none. With several
 * connections, of which each has a queue, the queue's counts all the same: what is late is sent again over another one.
 */
const NBD_QUEUE_DEFAULT_MS = 30_000

async function findNbd(machine: Machine, folder: string, name: string): Promise<DeviceMake> {
  const { pid, 'queue/io_timeout': queue } = await machine.texts(folder, ['pid', 'queue/io_timeout'])
  const { timeout } = await machine.texts(`/sys/kernel/debug/nbd/${name}`, ['timeout'])
  const connections = (await machine.names(`${folder}/mq`)).length
  return { type: 'nbd', attached: pid !== null, timeoutMs: nbdTimeoutMs(timeout, queue, connections) }
}

/** debugfs counts in ticks of an unknown length, but 0 is 0. */
function nbdTimeoutMs(debugText: string | null, queueText: string | null, connections: number): number | null {
  const queueMs = queueText === null ? null : Number(queueText)
  if (connections > 1) return queueMs ?? NBD_QUEUE_DEFAULT_MS
  if (debugText !== null && Number(debugText) === 0) return 0
  if (debugText !== null) return queueMs ?? MILLISECONDS
  return queueMs === null || queueMs === NBD_QUEUE_DEFAULT_MS ? null : queueMs
}

async function findDisk({ machine, folder, link, sysName: name, texts }: Found): Promise<DeviceMake | null> {
  if (link.includes('/devices/virtual/') && !name.startsWith('nvme')) return null
  const model = [texts['device/vendor'], texts['device/model']].filter(Boolean).join(' ')
  const transport = scsiTransport(link)
  const disk = { type: 'disk', model, transport, ownCache: null } as const
  if (/^vd[a-z]+$/u.test(name)) return { ...disk, bus: 'virtio', model: '', ownCache: texts.cache_type }
  if (/^xvd[a-z]+$/u.test(name)) return { ...disk, bus: 'xen' }
  if (/^mmcblk\d+/u.test(name)) return { ...disk, bus: 'mmc' }
  if (/^hd[a-z]+$/u.test(name)) return { ...disk, bus: 'ata' }
  if (/^(?:sd[a-z]+|sr\d+)$/u.test(name)) {
    const [address] = await machine.names(`${folder}/device/scsi_disk`)
    const cache = address === undefined ? null : await machine.text(`${folder}/device/scsi_disk/${address}/cache_type`)
    return { ...disk, bus: 'scsi', ownCache: cache?.trim() ?? null }
  }
  if (name.startsWith('nvme')) {
    const carrier = texts['device/transport']
    return { ...disk, bus: 'nvme', transport: carrier === null || carrier === 'pcie' ? 'local' : 'fabrics' }
  }
  return null
}

/** By what the kernel names the way to a target: a session of iSCSI, a remote port of Fibre Channel. */
function scsiTransport(link: string): 'local' | 'iscsi' | 'fibre-channel' {
  if (link.includes('/session')) return 'iscsi'
  return link.includes('/rport-') ? 'fibre-channel' : 'local'
}

/** A partition has the queue of its disk. */
async function readDevice(machine: Machine, folder: string, entries: ReadonlySet<string>): Promise<DeviceTexts> {
  const queue = entries.has('partition') ? '../queue' : 'queue'
  const inQueue = QUEUE_TEXTS.map((name) => `${queue}/${name}` as const)
  const texts = await machine.texts(folder, [...DEVICE_TEXTS, ...inQueue])
  return {
    ...texts,
    write_cache: texts[`${queue}/write_cache`],
    fua: texts[`${queue}/fua`],
    logical_block_size: texts[`${queue}/logical_block_size`],
    physical_block_size: texts[`${queue}/physical_block_size`],
  }
}

function queueOf(texts: DeviceTexts): QueueFacts {
  return {
    writeCache: texts.write_cache,
    forceUnitAccess: texts.fua === null ? null : texts.fua === '1',
    logicalBlockBytes: texts.logical_block_size === null ? null : Number(texts.logical_block_size),
    physicalBlockBytes: texts.physical_block_size === null ? null : Number(texts.physical_block_size),
  }
}

function mountUses(mounts: readonly Mount[], device: string): string[] {
  return mountPointsOf(mounts, device).map((mountPoint) => `the mount ${mountPoint}`)
}

/** Devices made of it or of its partitions, and mounts of either. */
async function findUses(
  walk: DeviceWalk,
  folder: string,
  device: string,
  entries: ReadonlySet<string>,
): Promise<readonly string[]> {
  const uses = mountUses(walk.mounts, device)
  uses.push(...(await walk.machine.names(`${folder}/holders`)))
  for (const entry of entries) {
    const part = await walk.machine.texts(`${folder}/${entry}`, ['partition', 'dev'])
    if (part.partition === null || part.dev === null || entries.has('partition')) continue
    uses.push(...mountUses(walk.mounts, part.dev))
    uses.push(...(await walk.machine.names(`${folder}/${entry}/holders`)))
  }
  return uses
}
