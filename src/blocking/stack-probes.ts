/**
 * The questions that the preflight asks of the machine, each a call that may hang on a dead mount: names, links, small
 * texts of /sys and /proc, statfs, extents, a direct read, who has a file open. All of them only look. None throws: a
 * failure is a negative errno. What the answers mean is judged in exports/preflight/.
 */

import { readdirSync, readFileSync, readlinkSync, realpathSync, statfsSync, statSync } from 'node:fs'
import type { StatsBase } from 'node:fs'
import { closeDescriptor } from '../posix/descriptor.ts'
import { mapperTargets } from '../posix/device-mapper.ts'
import type { MapperTarget } from '../posix/device-mapper.ts'
import { fileExtents } from '../posix/file-extents.ts'
import type { FileExtents } from '../posix/file-extents.ts'
import { ERRNO } from '../posix/errno.ts'
import { fileSystemName } from '../posix/file-system.ts'
import { OPEN, openFile } from '../posix/file.ts'
import { deviceNumber, loopBacking } from '../posix/loop-device.ts'
import type { LoopBacking } from '../posix/loop-device.ts'
import { answering, listDirectory } from './file-calls.ts'
import { measureImage } from './image-measurement.ts'

interface OnPath {
  readonly path: string
}

export interface PathFacts {
  readonly kind: 'file' | 'block' | 'directory' | 'other'
  readonly sizeBytes: number
  readonly allocatedBytes: number
  readonly links: number
  readonly inodeText: string
  /** 'major:minor' of the file system. */
  readonly device: string
  /** 'major:minor' of the device that this is, where it is one. */
  readonly ownDevice: string
  readonly modifiedNs: string
}

export interface SpaceFacts {
  readonly type: string
  readonly freeBytes: number
  readonly totalBytes: number
}

/** Whether a direct read of the first block works, and with which alignment. */
export interface DirectFacts {
  readonly works: boolean
  readonly alignmentBytes: number
  /** Positive; 0 where there was none. */
  readonly errno: number
}

export interface OpenUser {
  readonly pid: number
  readonly command: string
}

export interface OpenUsers {
  readonly users: readonly OpenUser[]
  /** False where not every process could be looked at. */
  readonly complete: boolean
}

export interface ProbeParameters {
  /** Small files; the first 4 Mi characters of each. */
  readonly readTexts: { readonly paths: readonly string[] }
  readonly readLink: OnPath
  /** The first `countMax` of them, in no order. */
  readonly listNames: OnPath & { readonly countMax: number }
  readonly resolvePath: OnPath
  readonly statPath: OnPath
  readonly statFileSystem: OnPath
  readonly probeDirect: OnPath
  readonly probeExtents: OnPath
  readonly probeLoop: OnPath
  readonly probeMapper: { readonly major: number; readonly minor: number }
  /** Processes other than this one that have the path open, by its name. */
  readonly listUsers: OnPath & { readonly processDirectory: string; readonly withinMs: number }
}

export interface ProbeResults {
  readonly readTexts: readonly (string | number)[]
  readonly readLink: string | number
  readonly listNames: readonly string[] | number
  readonly resolvePath: string | number
  readonly statPath: PathFacts | number
  readonly statFileSystem: SpaceFacts | number
  readonly probeDirect: DirectFacts
  readonly probeExtents: FileExtents | number
  readonly probeLoop: LoopBacking | number
  readonly probeMapper: readonly MapperTarget[] | number
  readonly listUsers: OpenUsers
}

export type ProbeKind = keyof ProbeParameters
export type ProbeCall = { [K in ProbeKind]: { readonly kind: K } & ProbeParameters[K] }[ProbeKind]

const TEXT_LENGTH_MAX = 4 * 1024 * 1024

export function probe(call: ProbeCall): ProbeResults[ProbeKind] {
  switch (call.kind) {
    case 'readTexts':
      return call.paths.map(readText)
    case 'readLink':
      return answering(() => readlinkSync(call.path))
    case 'listNames':
      return listNames(call.path, call.countMax)
    case 'resolvePath':
      return answering(() => realpathSync.native(call.path))
    case 'statPath':
      return statPath(call.path)
    case 'statFileSystem':
      return statFileSystem(call.path)
    case 'probeDirect':
      return probeDirect(call.path)
    case 'probeExtents':
      return onOpened(call.path, 'file', fileExtents)
    case 'probeLoop':
      return onOpened(call.path, 'block', loopBacking)
    case 'probeMapper':
      return mapperTargets(call.major, call.minor)
    case 'listUsers':
      return listUsers(call.path, call.processDirectory, call.withinMs)
  }
}

/**
 * Not opened by node:fs, which makes an Error of each file that is missing: no device has all of them. Read from one end to
 * the other, for debugfs has files that cannot be read at a position.
 */
function readText(path: string): string | number {
  const descriptor = openFile(path, OPEN.readOnly)
  if (descriptor < 0) return descriptor
  const text = answering(() => readFileSync(descriptor, 'utf8'))
  closeDescriptor(descriptor)
  return typeof text === 'string' ? text.slice(0, TEXT_LENGTH_MAX) : text
}

function listNames(path: string, countMax: number): readonly string[] | number {
  const names = listDirectory(path)
  return typeof names === 'number' ? names : names.slice(0, countMax)
}

function statPath(path: string): PathFacts | number {
  const stats = answering(() => statSync(path, { bigint: true }))
  if (typeof stats === 'number') return stats
  return {
    kind: kindOf(stats),
    sizeBytes: Number(stats.size),
    allocatedBytes: Number(stats.blocks) * 512,
    links: Number(stats.nlink),
    inodeText: stats.ino.toString(),
    device: deviceNumber(stats.dev),
    ownDevice: deviceNumber(stats.rdev),
    modifiedNs: stats.mtimeNs.toString(),
  }
}

function kindOf(stats: StatsBase<bigint>): PathFacts['kind'] {
  if (stats.isFile()) return 'file'
  if (stats.isBlockDevice()) return 'block'
  return stats.isDirectory() ? 'directory' : 'other'
}

function statFileSystem(path: string): SpaceFacts | number {
  const facts = answering(() => statfsSync(path))
  if (typeof facts === 'number') return facts
  const { type, bavail, blocks, bsize } = facts
  return { type: fileSystemName(type), freeBytes: bavail * bsize, totalBytes: blocks * bsize }
}

function probeDirect(path: string): DirectFacts {
  const measured = measureImage({ path, write: false, direct: true, dataSync: false, exclusive: false })
  if ('fault' in measured) return { works: false, alignmentBytes: 0, errno: measured.fault.errno }
  closeDescriptor(measured.image.descriptor)
  return { works: true, alignmentBytes: measured.image.alignmentBytes, errno: 0 }
}

/** The kind is looked at before the opening: to open a tape moves it. */
function onOpened<T>(path: string, kind: PathFacts['kind'], ask: (descriptor: number) => T | number): T | number {
  const stats = answering(() => statSync(path, { bigint: true }))
  if (typeof stats === 'number') return stats
  if (kindOf(stats) !== kind) return -ERRNO.EINVAL
  const descriptor = openFile(path, OPEN.readOnly | OPEN.nonBlocking)
  if (descriptor < 0) return descriptor
  const answer = ask(descriptor)
  closeDescriptor(descriptor)
  return answer
}

/** By the names of the links in /proc, which are read without touching what they lead to. */
function listUsers(path: string, processDirectory: string, withinMs: number): OpenUsers {
  const users: OpenUser[] = []
  let complete = true
  const deadlineMs = performance.now() + withinMs
  const processes = answering(() => readdirSync(processDirectory))
  if (typeof processes === 'number') return { users, complete: false }
  for (const name of processes) {
    if (!/^\d+$/u.test(name) || Number(name) === process.pid) continue
    if (performance.now() > deadlineMs) return { users, complete: false }
    const opened = holdsOpen(`${processDirectory}/${name}/fd`, path, deadlineMs)
    if (opened === null) complete = false
    if (opened === true) {
      const command = readText(`${processDirectory}/${name}/comm`)
      users.push({ pid: Number(name), command: typeof command === 'string' ? command.trim() : '' })
    }
  }
  return { users, complete }
}

/** Null where it cannot be told: no permission, or no time left. A process that ended meanwhile holds nothing. */
function holdsOpen(directory: string, path: string, deadlineMs: number): boolean | null {
  const descriptors = answering(() => readdirSync(directory))
  if (typeof descriptors === 'number') return descriptors === -2 || descriptors === -3 ? false : null
  for (const descriptor of descriptors) {
    if (performance.now() > deadlineMs) return null
    if (answering(() => readlinkSync(`${directory}/${descriptor}`)) === path) return true
  }
  return false
}
