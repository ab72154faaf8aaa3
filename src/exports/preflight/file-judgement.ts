/**
 * What a file and its file system mean for a migration. Pure: facts in, words and findings out. A file system that is
 * not known here is a condition, never a pass.
 */

import type { DirectFacts, OpenUsers } from '../../blocking/stack-probes.ts'
import type { Finding } from './codes.ts'
import type { FileLayer, FileSystemLayer } from './facts.ts'
import { mountOption } from './mount-table.ts'

const LOCAL = new Set(['ext2', 'ext3', 'ext4', 'xfs', 'f2fs', 'jfs', 'reiserfs', 'vfat', 'exfat', 'ntfs3', 'nilfs2'])
const COPY_ON_WRITE = new Set(['btrfs', 'zfs', 'bcachefs'])
const CLUSTER = new Set(['gfs2', 'ocfs2', 'ceph', 'lustre', 'gpfs', 'panfs', 'beegfs', 'vmfs', 'orangefs'])
const MEMORY = new Set(['tmpfs', 'ramfs', 'hugetlbfs', 'devtmpfs'])
const NFS = new Set(['nfs', 'nfs4'])
const SMB = new Set(['cifs', 'smb3', 'smbfs'])
const OTHER_NETWORK = new Set(['9p', 'virtiofs', 'afs', 'coda'])

/** Whether the locks that keep two daemons apart are seen by other hosts. */
export type LockReach = 'this host' | 'every host' | 'unknown'

export function lockReach({ type, options }: FileSystemLayer): LockReach {
  if (NFS.has(type)) return hasLocalLocks(options) ? 'this host' : 'every host'
  if (CLUSTER.has(type)) return mountOption(options, 'localflocks') === null ? 'every host' : 'this host'
  if (LOCAL.has(type) || COPY_ON_WRITE.has(type) || MEMORY.has(type) || type === 'overlay') return 'this host'
  return 'unknown'
}

export function fileWords(file: FileLayer): string {
  const words = [`${file.path}, ${file.sizeBytes} bytes`]
  if (file.direct?.works === true) words.push(`direct I/O in blocks of ${file.direct.alignmentBytes}`)
  return words.join(', ')
}

export function fileSystemWords(layer: FileSystemLayer): string {
  const shown = layer.options.filter((option) => TELLING_OPTION.test(option))
  const options = shown.length === 0 ? '' : ` (${shown.join(',')})`
  return `${layer.type}${options} from ${layer.source} at ${layer.mountPoint}; locks reach ${lockReach(layer)}`
}

const TELLING_OPTION =
  /^(?:ro|sync|vers=.*|soft|softerr|hard|local_lock=.*|proto=.*|nolock|nobarrier|barrier.*|data=.*|volatile|cache=.*|compress.*|logdev=.*|fsync_mode=.*)$/u

export function judgeFile(file: FileLayer, free: { readonly freeBytes: number } | null): Finding[] {
  const findings: Finding[] = [...judgeDirect(file.path, file.direct), ...judgeUsers(file.path, file.users)]
  if (file.links > 1) {
    findings.push({
      code: 'hard-links',
      detail: `${file.path} has ${file.links} names: under another one it could be opened as another image`,
      mend: 'remove the other names',
    })
  }
  if (file.extents !== null) findings.push(...judgeExtents(file, file.extents))
  const missingBytes = Math.max(0, file.sizeBytes - file.allocatedBytes)
  if (free !== null && missingBytes > free.freeBytes) {
    findings.push({
      code: 'space-short',
      detail: `${file.path} may still need ${missingBytes} bytes, and its file system has ${free.freeBytes}`,
      mend: 'make room, or writes will fail with ENOSPC',
    })
  }
  return findings
}

export function judgeDirect(path: string, direct: DirectFacts | null): Finding[] {
  if (direct === null || direct.works) return []
  if (direct.errno === 0 || direct.errno === EINVAL) {
    return [
      {
        code: 'no-direct',
        detail: `${path} takes no direct I/O: writes would be acknowledged by the page cache`,
        mend: 'move it to a file system that takes O_DIRECT',
      },
    ]
  }
  return [
    {
      code: 'direct-unproved',
      detail: `whether ${path} takes direct I/O could not be tried: error ${direct.errno}`,
      mend: 'ask as a user who may read it',
    },
  ]
}

const EINVAL = 22

export function judgeUsers(path: string, users: OpenUsers | null): Finding[] {
  if (users === null) return []
  const findings: Finding[] = []
  if (users.users.length > 0) {
    const who = users.users.map(({ pid, command }) => `${command} (${pid})`).join(', ')
    findings.push({
      code: 'open-elsewhere',
      detail: `${path} is open in ${who}`,
      mend: 'whoever has it open must not write to it',
    })
  }
  if (!users.complete) {
    findings.push({
      code: 'users-unknown',
      detail: `not every process could be asked whether it has ${path} open`,
      mend: 'ask as root',
    })
  }
  return findings
}

function judgeExtents(file: FileLayer, extents: NonNullable<FileLayer['extents']>): Finding[] {
  const findings: Finding[] = []
  const holes = file.sizeBytes - extents.writtenBytes - extents.unwrittenBytes
  const most = extents.complete ? '' : 'at least '
  if (extents.complete && holes > 0) {
    findings.push({
      code: 'sparse',
      detail: `${holes} of ${file.sizeBytes} bytes have no block yet: their first write is slower, and needs space`,
      mend: 'fallocate, or write the image once',
    })
  }
  if (extents.unwrittenBytes > 0) {
    findings.push({
      code: 'unwritten',
      detail: `${most}${extents.unwrittenBytes} bytes are allocated and were never written: their first write is slower`,
      mend: 'write the image once',
    })
  }
  if (extents.sharedBytes > 0) {
    findings.push({
      code: 'shared',
      detail: `${most}${extents.sharedBytes} bytes are shared with another file or a snapshot: their first write allocates`,
      mend: 'keep free space, or copy the image',
    })
  }
  return findings
}

export function judgeFileSystem(layer: FileSystemLayer): Finding[] {
  const findings: Finding[] = [...judgeType(layer)]
  if (barriersOff(layer.options)) {
    findings.push({
      code: 'no-barrier',
      detail: `${layer.mountPoint} is mounted so that it does not flush its disk`,
      mend: `mount -o remount,barrier ${layer.mountPoint}`,
    })
  }
  if (layer.options.includes('ro')) {
    findings.push({
      code: 'read-only',
      detail: `${layer.mountPoint} is mounted read-only`,
      mend: 'export the image read-only, or remount it',
    })
  }
  return findings
}

function judgeType(layer: FileSystemLayer): Finding[] {
  const { type, mountPoint, options } = layer
  if (MEMORY.has(type)) {
    return [
      {
        code: 'volatile-memory',
        detail: `${mountPoint} is memory of this host (${type}): everything in it is gone when the host is`,
        mend: 'move the image to a disk',
      },
    ]
  }
  if (LOCAL.has(type)) return [localFileSystem(layer)]
  if (COPY_ON_WRITE.has(type)) return [localFileSystem(layer), copyOnWrite(layer)]
  if (CLUSTER.has(type)) return [cluster(layer)]
  if (NFS.has(type)) return judgeNfs(mountPoint, options)
  if (SMB.has(type)) return judgeSmb(mountPoint, options)
  if (OTHER_NETWORK.has(type)) return [network(mountPoint, type)]
  if (type === 'overlay') return judgeOverlay(layer)
  if (type === 'ecryptfs') {
    return [
      {
        code: 'stacked-file-system',
        detail: `${mountPoint} encrypts into another file system and knows no direct I/O (${type})`,
        mend: 'put the image on the file system below, on an encrypted device',
      },
    ]
  }
  if (type === 'fuse' || type === 'fuseblk' || type.startsWith('fuse.')) {
    return [
      {
        code: 'fuse',
        detail: `${mountPoint} is served by a program (${type}): what a flush does is its business`,
        mend: 'it must answer a write to a file opened with O_DSYNC only when that is durable, and lose nothing when killed',
      },
    ]
  }
  return [
    {
      code: 'unknown-file-system',
      detail: `${mountPoint} is a file system that the preflight does not know (${type})`,
      mend: 'make sure that it answers a flush only when everything before is durable',
    },
  ]
}

function localFileSystem({ mountPoint, type }: FileSystemLayer): Finding {
  return {
    code: 'local-file-system',
    detail: `${mountPoint} (${type}) belongs to one host: its locks reach no other`,
    mend: 'move to another daemon of this host only, or unmount it here before it is mounted there',
  }
}

function copyOnWrite({ mountPoint, type }: FileSystemLayer): Finding {
  return {
    code: 'copy-on-write',
    detail: `${mountPoint} (${type}) writes to a new place each time and may send direct I/O through the page cache`,
    mend: 'keep free space; durability = "sync" is needed',
  }
}

function cluster({ mountPoint, type }: FileSystemLayer): Finding {
  return {
    code: 'cluster-file-system',
    detail: `${mountPoint} (${type}) is shared among hosts by its own protocol`,
    mend: 'a host that it expels must be fenced before its locks are given away',
  }
}

function network(mountPoint: string, type: string): Finding {
  return {
    code: 'network-file-system',
    detail: `${mountPoint} (${type}) is another machine's file system`,
    mend: 'that machine must answer a flush only when everything before is durable',
  }
}

function hasLocalLocks(options: readonly string[]): boolean {
  const local = mountOption(options, 'local_lock')
  return options.includes('nolock') || local === 'all' || local === 'posix'
}

function judgeNfs(mountPoint: string, options: readonly string[]): Finding[] {
  const findings: Finding[] = [
    {
      code: 'nfs-server',
      detail: `${mountPoint} is NFS ${mountOption(options, 'vers') ?? ''}: what is durable is decided by its server`,
      mend: "the server's export must be 'sync', and its disks must keep what was flushed",
    },
  ]
  if (options.includes('soft') || options.includes('softerr')) {
    findings.push({
      code: 'nfs-soft',
      detail: `${mountPoint} is mounted soft: a write is reported as failed while a copy of it still travels`,
      mend: `mount it hard (mount -o remount cannot change that: unmount, then mount -o hard)`,
    })
  }
  if (hasLocalLocks(options)) {
    findings.push({
      code: 'local-locks',
      detail: `the locks of ${mountPoint} stay on this host`,
      mend: 'two hosts are kept apart by the ownership record alone; mount it without local_lock and nolock',
    })
  }
  return findings
}

function judgeSmb(mountPoint: string, options: readonly string[]): Finding[] {
  const findings = [network(mountPoint, 'SMB')]
  if (!options.includes('hard')) {
    findings.push({
      code: 'smb-soft',
      detail: `${mountPoint} is mounted soft: a write is reported as failed while a copy of it still travels`,
      mend: 'mount it hard',
    })
  }
  return findings
}

function judgeOverlay(layer: FileSystemLayer): Finding[] {
  const { mountPoint, options } = layer
  if (options.includes('volatile') || mountOption(options, 'fsync') === 'volatile') {
    return [
      {
        code: 'overlay-volatile',
        detail: `${mountPoint} is an overlay that ignores every flush (volatile)`,
        mend: 'mount it without that option, or put the image on a file system of its own',
      },
    ]
  }
  if (layer.overlay === 'lower') {
    return [
      {
        code: 'overlay-copy-up',
        detail: `the image is in a lower layer of ${mountPoint}: to open it for writing makes another file of it`,
        mend: 'serve the file from the lower layer itself, or copy it to a file system of its own',
      },
    ]
  }
  return [
    {
      code: 'overlay',
      detail: `${mountPoint} is an overlay: what is under its upper layer ${layer.overlay === 'upper' ? 'counts' : 'cannot be seen from here'}`,
      mend: 'put the image on a file system of its own (in a container: a volume)',
    },
  ]
}

function barriersOff(options: readonly string[]): boolean {
  return options.includes('nobarrier') || options.includes('barrier=0') || options.includes('fsync_mode=nobarrier')
}
