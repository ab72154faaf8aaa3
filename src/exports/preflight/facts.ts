/**
 * What a walk down from an image found, layer by layer, as plain data: no judgement and nothing that is not a fact. Null
 * says that the machine did not tell. A walk that is still under way, or that hangs, has found less, and says what it
 * waits for.
 */

import type { DirectFacts, OpenUsers, SpaceFacts } from '../../blocking/stack-probes.ts'
import type { FileExtents } from '../../posix/file-extents.ts'
import type { MapperTarget } from '../../posix/device-mapper.ts'

export interface StackFacts {
  readonly path: string
  readonly realPath: string | null
  /** Why there is nothing to walk. */
  readonly fault: StackFault | null
  /** From the image down; a layer's own lower layers follow it and are deeper. */
  readonly layers: readonly LayerFacts[]
  readonly waiting: Waiting | null
}

export interface StackFault {
  readonly step: 'resolve' | 'kind'
  /** Positive; 0 for `kind`. */
  readonly errno: number
  readonly what: string
}

export interface Waiting {
  /** "statfs of /srv/vda.raw". */
  readonly what: string
  readonly sinceMs: number
}

export type LayerFacts = { readonly depth: number } & (FileLayer | FileSystemLayer | DeviceLayer | UnknownLayer)

export interface FileLayer {
  readonly kind: 'file'
  readonly path: string
  readonly sizeBytes: number
  readonly allocatedBytes: number
  readonly links: number
  /** Of the image itself; null for a file that only lies under it. */
  readonly direct: DirectFacts | null
  readonly extents: FileExtents | null
  readonly users: OpenUsers | null
}

export interface FileSystemLayer {
  readonly kind: 'fileSystem'
  /** As the mount table says: `ext4`, `nfs4`, `fuse.sshfs`. */
  readonly type: string
  readonly source: string
  readonly mountPoint: string
  readonly device: string
  /** Of the mount and of the file system, as the kernel prints them. */
  readonly options: readonly string[]
  /** Null until it answered. */
  readonly space: SpaceFacts | null
  /** Only of overlay: where the bytes of the file really are. */
  readonly overlay: 'upper' | 'lower' | 'unknown' | null
}

export interface DeviceLayer {
  readonly kind: 'device'
  /** As under /dev; may hold any character but NUL. */
  readonly name: string
  /** 'major:minor'. */
  readonly device: string
  readonly sizeBytes: number | null
  readonly readOnly: boolean
  readonly queue: QueueFacts
  /** What is made of it: names of devices, and where it is mounted. Only of an image that is itself a device. */
  readonly usedBy: readonly string[]
  /** Of the image itself. */
  readonly direct: DirectFacts | null
  readonly users: OpenUsers | null
  readonly make: DeviceMake
}

export interface QueueFacts {
  /** `write back` means that the device keeps writes in memory until it is told to flush. */
  readonly writeCache: string | null
  readonly forceUnitAccess: boolean | null
  readonly logicalBlockBytes: number | null
  readonly physicalBlockBytes: number | null
}

export type DeviceMake =
  | { readonly type: 'partition'; readonly of: string }
  | {
      readonly type: 'loop'
      readonly backingPath: string | null
      readonly direct: boolean | null
      readonly found: boolean
    }
  | {
      readonly type: 'mapper'
      readonly mapperName: string
      readonly uuid: string
      /** Null where this user may not ask. */
      readonly targets: readonly MapperTarget[] | null
    }
  | {
      readonly type: 'array'
      readonly level: string
      readonly state: string
      readonly degraded: number
      readonly consistency: string
    }
  | { readonly type: 'bcache'; readonly cacheMode: string | null }
  | { readonly type: 'memory'; readonly driver: 'zram' | 'ram' }
  | {
      readonly type: 'nbd'
      /** 0 is none; null where the kernel does not tell. */
      readonly timeoutMs: number | null
      readonly attached: boolean
    }
  | {
      readonly type: 'disk'
      readonly bus: 'virtio' | 'xen' | 'scsi' | 'nvme' | 'mmc' | 'ata'
      readonly model: string
      /** Reached over a network: iSCSI, Fibre Channel, NVMe over Fabrics. */
      readonly transport: 'local' | 'iscsi' | 'fibre-channel' | 'fabrics'
      /** What the disk itself says of its cache, where that can be asked apart from the queue. */
      readonly ownCache: string | null
    }
  | { readonly type: 'remote'; readonly driver: string }
  | { readonly type: 'other'; readonly driver: string }

export interface UnknownLayer {
  readonly kind: 'unknown'
  readonly what: string
}
