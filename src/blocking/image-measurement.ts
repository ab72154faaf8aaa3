/**
 * Opens an image and measures it, in one go and on one thread, because any step can hang on a dead image. What it finds
 * are facts; whether they can be served is decided by `exports/image.ts`. When it answers a fault, nothing stays open.
 *
 * The kind is looked at before the opening: to open a FIFO waits for a writer, to open a tape moves it. That the opened
 * file is the one looked at is checked afterwards.
 */

import { fstatSync, readFileSync, readlinkSync, realpathSync, statfsSync, statSync } from 'node:fs'
import type { BigIntStats } from 'node:fs'
import { basename, dirname } from 'node:path'
import { deviceReadOnly, deviceSizeBytes, logicalBlockBytes } from '../posix/block-device.ts'
import { closeDescriptor } from '../posix/descriptor.ts'
import { ERRNO } from '../posix/errno.ts'
import { fileSystemName } from '../posix/file-system.ts'
import { directAlignment, OPEN, openFile, pread } from '../posix/file.ts'
import { mapMemory, unmapMemory } from '../posix/mapping.ts'
import type { MappedMemory } from '../posix/mapping.ts'
import { answering } from './file-calls.ts'

export interface MeasureImage {
  readonly path: string
  readonly write: boolean
  /** O_DIRECT. Without it the alignment is not measured. */
  readonly direct: boolean
  /** O_DSYNC; only with `write`. */
  readonly dataSync: boolean
  /** Refuses a block device that somebody else uses; only with `write`. */
  readonly exclusive: boolean
}

export interface MeasuredImage {
  readonly descriptor: number
  readonly realPath: string
  readonly kind: 'file' | 'block'
  readonly sizeBytes: number
  /** What positions, lengths and memory of direct I/O must be multiples of; 512 without O_DIRECT. */
  readonly alignmentBytes: number
  /** 'major:minor': of the device itself, or of the one that the file is on. */
  readonly device: string
  /** As statfs and stat give it. Rounded where it needs more than 53 bits; `inodeText` is exact. */
  readonly inode: number
  readonly inodeText: string
  readonly links: number
  readonly fileSystem: string
  /** The name that hardware, device mapper or partition table gave the device, the same on every host; null for files. */
  readonly wwid: string | null
  readonly deviceReadOnly: boolean
}

/** Where it stopped. `kind` and `direct` are no failures of a call: it is another kind of file; it takes no direct I/O. */
export interface ImageFault {
  readonly step: 'resolve' | 'kind' | 'open' | 'measure' | 'direct' | 'changed'
  /** Positive; 0 for `kind`, `changed`, and `direct` where the kernel says so without an error. */
  readonly errno: number
  /** As far as it is known. */
  readonly realPath: string
  /** For `kind`: "a directory". For the rest the file system, or the device. */
  readonly what: string
}

export type ImageMeasurement = { readonly image: MeasuredImage } | { readonly fault: ImageFault }

const ALIGNMENT_BYTES_MIN = 512
const ALIGNMENT_BYTES_MAX = 65536

export function measureImage(call: MeasureImage): ImageMeasurement {
  const realPath = answering(() => realpathSync.native(call.path))
  if (typeof realPath === 'number') return fault('resolve', realPath, call.path, '')
  const before = answering(() => statSync(realPath, { bigint: true }))
  if (typeof before === 'number') return fault('resolve', before, realPath, '')
  const kind = before.isFile() ? 'file' : before.isBlockDevice() ? 'block' : null
  if (kind === null) return fault('kind', 0, realPath, kindName(before))

  const fileSystem = kind === 'block' ? 'block device' : fileSystemOf(realPath)
  const descriptor = openFile(realPath, openFlags(call, kind))
  if (descriptor < 0) {
    const noDirect = call.direct && descriptor === -ERRNO.EINVAL
    return fault(noDirect ? 'direct' : 'open', descriptor, realPath, fileSystem)
  }
  const measured = measureOpened(descriptor, call.direct, kind, realPath, fileSystem, before)
  if ('fault' in measured) closeDescriptor(descriptor)
  return measured
}

function openFlags(call: MeasureImage, kind: 'file' | 'block'): number {
  let flags = (call.write ? OPEN.readWrite : OPEN.readOnly) | OPEN.noFollow
  if (call.direct) flags |= OPEN.direct
  if (call.write && call.dataSync) flags |= OPEN.dataSync
  // Without O_CREAT this flag means something for block devices only.
  if (call.write && call.exclusive && kind === 'block') flags |= OPEN.exclusive
  return flags
}

function measureOpened(
  descriptor: number,
  direct: boolean,
  kind: 'file' | 'block',
  realPath: string,
  fileSystem: string,
  before: BigIntStats,
): ImageMeasurement {
  const stats = answering(() => fstatSync(descriptor, { bigint: true }))
  if (typeof stats === 'number') return fault('measure', stats, realPath, fileSystem)
  if (stats.dev !== before.dev || stats.ino !== before.ino || stats.rdev !== before.rdev) {
    return fault('changed', 0, realPath, fileSystem)
  }
  const sizeBytes = kind === 'block' ? deviceSizeBytes(descriptor) : Number(stats.size)
  if (sizeBytes < 0) return fault('measure', sizeBytes, realPath, fileSystem)
  const readOnly = kind === 'block' ? deviceReadOnly(descriptor) : 0
  if (readOnly < 0) return fault('measure', readOnly, realPath, fileSystem)
  const alignmentBytes = direct ? measureAlignment(descriptor, kind) : ALIGNMENT_BYTES_MIN
  if (alignmentBytes <= 0) {
    // EINVAL and "says so itself" are about direct I/O; anything else is a disk that cannot be read.
    const noDirect = alignmentBytes === 0 || alignmentBytes === -ERRNO.EINVAL
    return fault(noDirect ? 'direct' : 'measure', alignmentBytes, realPath, fileSystem)
  }
  const device = deviceNumber(kind === 'block' ? stats.rdev : stats.dev)
  return {
    image: {
      descriptor,
      realPath,
      kind,
      sizeBytes,
      alignmentBytes,
      device,
      inode: Number(stats.ino),
      inodeText: stats.ino.toString(),
      links: Number(stats.nlink),
      fileSystem,
      wwid: kind === 'block' ? worldWideIdentity(device) : null,
      deviceReadOnly: readOnly === 1,
    },
  }
}

/** Proved by reading, whatever was declared: bytes, 0 where the kernel says that there is no direct I/O, or -errno. */
function measureAlignment(descriptor: number, kind: 'file' | 'block'): number {
  let declared = kind === 'block' ? logicalBlockBytes(descriptor) : directAlignment(descriptor)
  if (declared === -ERRNO.ENODATA) declared = ALIGNMENT_BYTES_MIN
  if (declared <= 0) return declared
  const memory = mapMemory(2 * ALIGNMENT_BYTES_MAX)
  try {
    return smallestReadable(descriptor, memory, Math.max(declared, ALIGNMENT_BYTES_MIN))
  } finally {
    unmapMemory(memory)
  }
}

function smallestReadable(descriptor: number, memory: MappedMemory, smallestBytes: number): number {
  let result = -ERRNO.EINVAL
  for (let bytes = smallestBytes; bytes <= ALIGNMENT_BYTES_MAX; bytes *= 2) {
    // The memory lies at an odd multiple, so that its alignment is tried along with that of the length.
    result = pread(descriptor, memory.address + BigInt(bytes), bytes, 0)
    if (result >= 0) return bytes
    if (result !== -ERRNO.EINVAL) return result
  }
  return result
}

function fileSystemOf(path: string): string {
  const facts = answering(() => statfsSync(path))
  return typeof facts === 'number' ? 'unknown file system' : fileSystemName(facts.type)
}

/** What tells an image from any other on this host. */
export type ImageMark = Pick<MeasuredImage, 'realPath' | 'kind' | 'device' | 'inodeText'>

/** 0 where the descriptor is of that image, -ESTALE where it is of another one, or another -errno. */
export function checkImage(descriptor: number, { kind, device, inodeText }: ImageMark): number {
  const stats = answering(() => fstatSync(descriptor, { bigint: true }))
  if (typeof stats === 'number') return stats
  const same =
    kind === 'block'
      ? stats.isBlockDevice() && deviceNumber(stats.rdev) === device
      : stats.isFile() && deviceNumber(stats.dev) === device && stats.ino.toString() === inodeText
  return same ? 0 : -ERRNO.ESTALE
}

/** The numbers as the kernel packs them into 64 bits for user land. */
function deviceNumber(packed: bigint): string {
  const major = ((packed >> 8n) & 0xfffn) | ((packed >> 32n) & 0xffff_f000n)
  const minor = (packed & 0xffn) | ((packed >> 12n) & 0xffff_ff00n)
  return `${major}:${minor}`
}

function worldWideIdentity(device: string): string | null {
  const folder = `/sys/dev/block/${device}`
  const named = attribute(`${folder}/dm/uuid`) ?? attribute(`${folder}/wwid`) ?? attribute(`${folder}/device/wwid`)
  if (named !== null) return named
  const partition = attribute(`${folder}/partition`)
  if (partition === null) return null
  const target = answering(() => readlinkSync(folder))
  if (typeof target === 'number') return null
  const disk = attribute(`/sys/class/block/${basename(dirname(target))}/dev`)
  const diskIdentity = disk === null || disk === device ? null : worldWideIdentity(disk)
  return diskIdentity === null ? null : `${diskIdentity}-part${partition}`
}

/** A file of sysfs without its line end; null where it is missing, unreadable or empty. */
function attribute(path: string): string | null {
  const text = answering(() => readFileSync(path, 'utf8'))
  if (typeof text === 'number') return null
  const trimmed = text.trim()
  return trimmed === '' ? null : trimmed
}

function kindName(stats: BigIntStats): string {
  if (stats.isDirectory()) return 'a directory'
  if (stats.isCharacterDevice()) return 'a character device'
  if (stats.isFIFO()) return 'a FIFO'
  if (stats.isSocket()) return 'a socket'
  return 'a special file'
}

function fault(step: ImageFault['step'], errno: number, realPath: string, what: string): ImageMeasurement {
  return { fault: { step, errno: Math.abs(errno), realPath, what } }
}
