/**
 * The walk from an image down to the hardware or the network. It gathers facts and decides nothing; it opens read-only
 * and never writes. It can be looked at while it goes: a file system that does not answer is known by its mount alone.
 */

import { normalize } from 'node:path/posix'
import type { PathFacts } from '../../blocking/stack-probes.ts'
import { walkDevice } from './device-walk.ts'
import type { DeviceWalk } from './device-walk.ts'
import type { FileLayer, FileSystemLayer, LayerFacts, StackFacts, StackFault } from './facts.ts'
import { Machine } from './machine.ts'
import { mountOf, mountOption, parseMountTable } from './mount-table.ts'
import type { Mount } from './mount-table.ts'
import type { Questions } from './questions.ts'

const USERS_WITHIN_MS = 400

export interface WalkOptions {
  /** Also looks through all processes for those that have the image open. */
  readonly users: boolean
  readonly now: () => number
}

export class StackWalk {
  readonly path: string
  readonly done: Promise<void>
  readonly #machine: Machine
  readonly #options: WalkOptions
  readonly #layers: LayerFacts[] = []
  readonly #devices: DeviceWalk
  #mounts: readonly Mount[] = []
  #realPath: string | null = null
  #fault: StackFault | null = null
  #finished = false

  constructor(questions: Questions, path: string, options: WalkOptions) {
    this.path = path
    this.#machine = new Machine(questions, options.now)
    this.#options = options
    this.#devices = {
      machine: this.#machine,
      mounts: this.#mounts,
      seen: new Set(),
      add: (layer) => {
        this.#layers.push(layer)
      },
      walkFile: (file, depth) => this.#walkFile(file, depth),
    }
    this.done = this.#walk().finally(() => {
      this.#finished = true
    })
  }

  /** What is known by now. */
  get facts(): StackFacts {
    return {
      path: this.path,
      realPath: this.#realPath,
      fault: this.#fault,
      layers: [...this.#layers],
      waiting: this.#finished ? null : (this.#machine.waiting ?? { what: 'the rest of the walk', sinceMs: 0 }),
    }
  }

  async #walk(): Promise<void> {
    this.#mounts = parseMountTable((await this.#machine.text('/proc/self/mountinfo')) ?? '')
    const apparent = mountOf(this.#mounts, normalize(this.path))
    if (apparent !== null) this.#layers.push({ depth: 0, ...fileSystemOf(apparent) })
    const realPath = await this.#machine.ask(`the path ${this.path}`, { kind: 'resolvePath', path: this.path })
    if (typeof realPath === 'number') {
      this.#stop({ step: 'resolve', errno: -realPath, what: '' })
      return
    }
    this.#realPath = realPath
    const stats = await this.#machine.ask(`stat of ${realPath}`, { kind: 'statPath', path: realPath })
    if (typeof stats === 'number') {
      this.#stop({ step: 'resolve', errno: -stats, what: '' })
      return
    }
    // What was only apparent gives way to what is known.
    this.#layers.length = 0
    if (stats.kind === 'file') await this.#walkImageFile(realPath, stats)
    else if (stats.kind === 'block') await this.#walkImageDevice(realPath, stats)
    else this.#stop({ step: 'kind', errno: 0, what: stats.kind === 'directory' ? 'a directory' : 'a special file' })
  }

  #stop(fault: StackFault): void {
    this.#layers.length = 0
    this.#fault = fault
  }

  async #walkImageFile(path: string, stats: PathFacts): Promise<void> {
    const direct = await this.#machine.ask(`a direct read of ${path}`, { kind: 'probeDirect', path })
    const extents = await this.#machine.ask(`the extents of ${path}`, { kind: 'probeExtents', path })
    const users = await this.#users(path)
    this.#layers.push({
      depth: 0,
      ...fileOf(path, stats),
      direct,
      extents: typeof extents === 'number' ? null : extents,
      users,
    })
    await this.#walkUnder(path, stats, 1)
  }

  async #walkImageDevice(path: string, stats: PathFacts): Promise<void> {
    const direct = await this.#machine.ask(`a direct read of ${path}`, { kind: 'probeDirect', path })
    const users = await this.#users(path)
    await walkDevice({ ...this.#devices, mounts: this.#mounts }, stats.ownDevice, 0, { direct, users })
  }

  async #users(path: string): Promise<FileLayer['users']> {
    if (!this.#options.users) return null
    return this.#machine.ask(`a look at who has ${path} open`, {
      kind: 'listUsers',
      path,
      processDirectory: '/proc',
      withinMs: USERS_WITHIN_MS,
    })
  }

  /** A file under the image: what a loop device or an overlay is made of. */
  async #walkFile(path: string, depth: number): Promise<void> {
    const stats = await this.#machine.ask(`stat of ${path}`, { kind: 'statPath', path })
    if (typeof stats === 'number') {
      this.#layers.push({ depth, kind: 'unknown', what: `${path}, which cannot be looked at` })
      return
    }
    if (stats.kind === 'block') {
      await walkDevice({ ...this.#devices, mounts: this.#mounts }, stats.ownDevice, depth)
      return
    }
    this.#layers.push({ depth, ...fileOf(path, stats) })
    await this.#walkUnder(path, stats, depth + 1)
  }

  /** The file system of a path, and what is under that. */
  async #walkUnder(path: string, stats: PathFacts, depth: number): Promise<void> {
    const mount = mountOf(this.#mounts, path)
    if (mount === null) {
      this.#layers.push({ depth, kind: 'unknown', what: `the file system of ${path}, which no mount table names` })
      return
    }
    // Known before it is asked, and completed once it has answered.
    const index = this.#layers.push({ depth, ...fileSystemOf(mount) }) - 1
    const space = await this.#machine.ask(`statfs of ${path}`, { kind: 'statFileSystem', path })
    const upperPath = mount.type === 'overlay' ? upperPathOf(mount, path) : null
    const overlay = mount.type === 'overlay' ? await this.#overlayPlace(mount, upperPath, stats) : null
    this.#layers[index] = {
      depth,
      ...fileSystemOf(mount),
      space: typeof space === 'number' ? null : space,
      overlay,
    }
    if (overlay === 'upper' && upperPath !== null) await this.#walkFile(upperPath, depth + 1)
    else await this.#walkMount(mount, depth + 1)
  }

  async #walkMount(mount: Mount, depth: number): Promise<void> {
    const devices = { ...this.#devices, mounts: this.#mounts }
    if (mount.type === 'btrfs') {
      for (const device of await this.#btrfsDevices(mount)) await walkDevice(devices, device, depth)
      return
    }
    if (mount.type === 'ecryptfs') {
      const stats = await this.#machine.ask(`stat of ${mount.source}`, { kind: 'statPath', path: mount.source })
      if (typeof stats !== 'number') await this.#walkUnder(mount.source, stats, depth)
      return
    }
    if (!mount.device.startsWith('0:')) {
      await walkDevice(devices, mount.device, depth)
      // A log on a device of its own takes part in every durable answer.
      for (const name of ['logdev', 'rtdev']) {
        const path = mountOption(mount.options, name)
        if (path !== null && path !== '') await this.#walkFile(path, depth)
      }
      return
    }
    if (!mount.source.startsWith('/dev/')) return
    const stats = await this.#machine.ask(`stat of ${mount.source}`, { kind: 'statPath', path: mount.source })
    if (typeof stats !== 'number' && stats.kind === 'block') await walkDevice(devices, stats.ownDevice, depth)
  }

  /** Every device of the file system; the mount names only one. */
  async #btrfsDevices(mount: Mount): Promise<readonly string[]> {
    const stats = await this.#machine.ask(`stat of ${mount.source}`, { kind: 'statPath', path: mount.source })
    if (typeof stats === 'number' || stats.kind !== 'block') return []
    for (const identity of await this.#machine.names('/sys/fs/btrfs')) {
      const folder = `/sys/fs/btrfs/${identity}/devices`
      const names = await this.#machine.names(folder)
      if (names.length === 0) continue
      const texts = await this.#machine.texts(
        folder,
        names.map((name) => `${name}/dev`),
      )
      const devices = Object.values(texts).filter((device) => device !== null)
      if (devices.includes(stats.ownDevice)) return devices
    }
    return [stats.ownDevice]
  }

  /** Whether an opening for writing would copy the file to the upper layer first. */
  async #overlayPlace(
    mount: Mount,
    upperPath: string | null,
    stats: PathFacts,
  ): Promise<NonNullable<FileSystemLayer['overlay']>> {
    const folder = mountOption(mount.options, 'upperdir')
    if (folder === null || upperPath === null) return 'unknown'
    const reachable = await this.#machine.ask(`stat of ${folder}`, { kind: 'statPath', path: folder })
    if (typeof reachable === 'number') return 'unknown'
    const upper = await this.#machine.ask(`stat of ${upperPath}`, { kind: 'statPath', path: upperPath })
    if (typeof upper === 'number') return 'lower'
    // The folder of that name may be another mount namespace's.
    return upper.sizeBytes === stats.sizeBytes && upper.modifiedNs === stats.modifiedNs ? 'upper' : 'unknown'
  }
}

function upperPathOf(mount: Mount, path: string): string | null {
  const folder = mountOption(mount.options, 'upperdir')
  if (folder === null) return null
  const within = path.slice(mount.mountPoint === '/' ? 0 : mount.mountPoint.length)
  return normalize(`${folder}/${mount.root}/${within}`)
}

function fileOf(path: string, stats: PathFacts): FileLayer {
  const { sizeBytes, allocatedBytes, links } = stats
  return { kind: 'file', path, sizeBytes, allocatedBytes, links, direct: null, extents: null, users: null }
}

function fileSystemOf(mount: Mount): FileSystemLayer {
  const { type, source, mountPoint, device, options } = mount
  return { kind: 'fileSystem', type, source, mountPoint, device, options, space: null, overlay: null }
}
