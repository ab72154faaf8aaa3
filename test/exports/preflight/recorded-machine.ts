/**
 * A machine as it was recorded: texts of /proc and /sys by their paths, folders, links, and what ioctls and stats
 * answered. The walk asks it as it asks a real one; what was not recorded does not exist there.
 */

import type { BlockingCall, BlockingResultOf, BlockingRunner } from '../../../src/blocking/calls.ts'
import type { DirectFacts, PathFacts, SpaceFacts } from '../../../src/blocking/stack-probes.ts'
import { Preflight } from '../../../src/exports/preflight/preflight.ts'
import type { StackReport } from '../../../src/exports/verbs.ts'
import type { MapperTarget } from '../../../src/posix/device-mapper.ts'
import type { LoopBacking } from '../../../src/posix/loop-device.ts'

const ENOENT = -2

export interface Recording {
  /** Lines of /proc/self/mountinfo. */
  readonly mounts: readonly string[]
  /** Every file of /sys that exists, with its text. Folders follow from it. */
  readonly texts?: Readonly<Record<string, string>>
  readonly links?: Readonly<Record<string, string>>
  readonly stats?: Readonly<Record<string, Partial<PathFacts>>>
  readonly loops?: Readonly<Record<string, LoopBacking>>
  /** By 'major:minor'; a device that is not here may not be asked about. */
  readonly mappers?: Readonly<Record<string, readonly MapperTarget[]>>
  readonly direct?: DirectFacts
  readonly space?: SpaceFacts
}

/** Looks at a path of the recorded machine. */
export function lookAt(recording: Recording, path: string): Promise<StackReport> {
  return new Preflight(recordedRunner(recording)).check(path, { users: false, timeoutMs: 5_000 })
}

/** `stats` of a plain file that is all there. */
export function plainFile(device: string): Partial<PathFacts> {
  return { kind: 'file', device }
}

export function blockDevice(ownDevice: string): Partial<PathFacts> {
  return { kind: 'block', ownDevice, device: '0:5' }
}

export function recordedRunner(recording: Recording): BlockingRunner {
  return {
    run: <C extends BlockingCall>(call: C) => Promise.resolve(answer(recording, call) as BlockingResultOf<C['kind']>),
  }
}

function answer(recording: Recording, call: BlockingCall): unknown {
  switch (call.kind) {
    case 'each':
      return call.calls.map((one) => answer(recording, one))
    case 'readTexts':
      return call.paths.map((path) => textOf(recording, resolved(recording, path)))
    case 'listNames':
      return namesIn(recording, resolved(recording, call.path))
    case 'readLink':
      return recording.links?.[call.path] ?? ENOENT
    case 'resolvePath':
      return recording.stats?.[call.path] === undefined ? ENOENT : call.path
    case 'statPath':
      return statOf(recording, call.path)
    case 'statFileSystem':
      return recording.space ?? { type: 'ext4', freeBytes: 1e12, totalBytes: 1e12 }
    case 'probeDirect':
      return recording.direct ?? { works: true, alignmentBytes: 512, errno: 0 }
    case 'probeExtents':
      return { writtenBytes: 4096, unwrittenBytes: 0, encodedBytes: 0, sharedBytes: 0, count: 1, complete: true }
    case 'probeLoop':
      return recording.loops?.[call.path] ?? -13
    case 'probeMapper':
      return recording.mappers?.[`${call.major}:${call.minor}`] ?? -13
    default:
      throw new Error(`a walk asks for no '${call.kind}'`)
  }
}

function statOf(recording: Recording, path: string): PathFacts | number {
  const stats = recording.stats?.[path]
  if (stats === undefined) return ENOENT
  const nothing = { links: 1, inodeText: '7', ownDevice: '0:0', device: '0:0', modifiedNs: '0' } as const
  return { kind: 'file', sizeBytes: 4096, allocatedBytes: 4096, ...nothing, ...stats }
}

function textOf(recording: Recording, path: string): string | number {
  if (path === '/proc/self/mountinfo') return `${recording.mounts.join('\n')}\n`
  return recording.texts?.[path] ?? ENOENT
}

/** As the kernel resolves it: a link in /sys/dev/block first, then what goes up from there. */
function resolved(recording: Recording, path: string): string {
  const match = /^(\/sys\/dev\/block\/[\d:]+)(.*)$/u.exec(path)
  const link = match?.[1] === undefined ? undefined : recording.links?.[match[1]]
  const whole = link === undefined ? path : `/sys/dev/block/${link}${match?.[2] ?? ''}`
  const parts: string[] = []
  for (const part of whole.split('/').slice(1)) {
    if (part === '..') parts.pop()
    else parts.push(part)
  }
  return `/${parts.join('/')}`
}

function namesIn(recording: Recording, folder: string): readonly string[] | number {
  const inside = Object.keys(recording.texts ?? {}).filter((path) => path.startsWith(`${folder}/`))
  if (inside.length === 0) return ENOENT
  return [...new Set(inside.map((path) => path.slice(folder.length + 1).split('/')[0] ?? ''))]
}
