/**
 * What a block device in the stack means for a migration. Pure: facts in, words and findings out. A kind of device that
 * is not known here is a condition, never a pass.
 */

import { unreachable } from '../../foundation/assert.ts'
import type { Finding } from './codes.ts'
import type { DeviceLayer, DeviceMake } from './facts.ts'

type MakeOf<T extends DeviceMake['type']> = Extract<DeviceMake, { readonly type: T }>

/** One phrase for what the device is. */
export function deviceWords({ name, make }: DeviceLayer): string {
  const path = `/dev/${name}`
  switch (make.type) {
    case 'partition':
      return `${path}, a partition of ${make.of}`
    case 'loop':
      return `${path}, a loop device${make.direct === null ? '' : make.direct ? ' with direct I/O' : ', buffered'}`
    case 'mapper':
      return `${path}, device mapper${make.mapperName === '' ? '' : ` '${make.mapperName}'`}: ${targetWords(make)}`
    case 'array':
      return `${path}, an md array of level ${make.level} (${make.state})`
    case 'bcache':
      return `${path}, bcache in mode ${make.cacheMode ?? 'unknown'}`
    case 'memory':
      return `${path}, memory of this host (${make.driver})`
    case 'nbd':
      return `${path}, a network block device${nbdTimeoutWords(make)}`
    case 'disk':
      return `${path}, a disk (${[make.bus, make.model].filter((part) => part !== '').join(', ')})`
    case 'remote':
      return `${path}, a network block device (${make.driver})`
    case 'other':
      return `${path}, of a kind that is not known here (${make.driver})`
    default:
      return unreachable(make)
  }
}

export function judgeDevice(layer: DeviceLayer): Finding[] {
  return [...judgeMake(layer), ...judgeUse(layer)]
}

function judgeMake(layer: DeviceLayer): Finding[] {
  const { make } = layer
  const path = `/dev/${layer.name}`
  switch (make.type) {
    case 'partition':
      return []
    case 'loop':
      return judgeLoop(path, make)
    case 'mapper':
      return judgeMapper(path, make)
    case 'array':
      return judgeArray(path, make)
    case 'bcache':
      return [judgeCache(path, make.cacheMode)]
    case 'memory':
      return [
        {
          code: 'volatile-memory',
          detail: `${path} is memory of this host: everything in it is gone when the host is`,
          mend: 'move the image to a disk',
        },
      ]
    case 'nbd':
      return judgeNbd(path, make)
    case 'disk':
      return judgeDisk(path, layer, make)
    case 'remote':
      return [remote(path, make.driver)]
    case 'other':
      return [
        {
          code: 'unknown-device',
          detail: `${path} is of a kind that the preflight does not know (${make.driver})`,
          mend: 'make sure that it completes a write only when nothing of it is on its way any more, and obeys a flush',
        },
      ]
    default:
      return unreachable(make)
  }
}

function judgeUse(layer: DeviceLayer): Finding[] {
  const findings: Finding[] = []
  const path = `/dev/${layer.name}`
  if (layer.usedBy.length > 0) {
    findings.push({
      code: 'in-use',
      detail: `${path} is in use by ${layer.usedBy.join(', ')}`,
      mend: 'unmount it, or take it out of the device that it is part of',
    })
  }
  if (layer.readOnly) {
    findings.push({
      code: 'read-only',
      detail: `${path} takes no writes`,
      mend: 'export it read-only, or make it writable (blockdev --setrw)',
    })
  }
  return findings
}

function judgeLoop(path: string, make: MakeOf<'loop'>): Finding[] {
  const findings: Finding[] = []
  if (make.direct === false) {
    findings.push({
      code: 'loop-buffered',
      detail: `${path} is buffered: it acknowledges before the disk does`,
      mend: `losetup --direct-io=on ${path}, or serve ${make.backingPath ?? 'its file'} itself`,
    })
  }
  if (!make.found || make.direct === null) {
    findings.push({
      code: 'loop-backing-unknown',
      detail: `what ${path} is made of cannot be reached from here${make.backingPath === null ? '' : ` (${make.backingPath})`}`,
      mend: 'check the file that it is made of where it can be seen, or serve that file itself',
    })
  }
  return findings
}

/** Targets that pass a write and a flush on and complete neither early. */
const TRANSPARENT_TARGETS = new Set([
  ...['linear', 'striped', 'crypt', 'integrity', 'raid', 'mirror', 'unstriped', 'delay', 'era', 'switch', 'ebs'],
  ...['log-writes', 'snapshot-origin'],
])

function judgeMapper(path: string, make: MakeOf<'mapper'>): Finding[] {
  const { targets } = make
  if (targets === null) {
    return [
      {
        code: 'unknown-target',
        detail: `what ${path} does with a write cannot be asked without the right to`,
        mend: 'ask as root, or look at dmsetup table',
      },
    ]
  }
  const byType = new Map(targets.map((target) => [target.type, target]))
  return [...byType.values()].flatMap(({ type, status }) => judgeTarget(path, type, status))
}

function judgeTarget(path: string, type: string, status: string): Finding[] {
  if (TRANSPARENT_TARGETS.has(type)) return []
  switch (type) {
    case 'thin':
    case 'thin-pool':
      return [
        {
          code: 'thin-pool',
          detail: `${path} takes its blocks from a thin pool${status.includes('out_of_data_space') ? ', which is full' : ''}`,
          mend: 'the pool must not run full, and may be active on one host at a time',
        },
      ]
    case 'snapshot':
    case 'snapshot-merge':
      return [
        {
          code: 'snapshot',
          detail: `${path} is a snapshot, which is lost when its store is full`,
          mend: 'the store must not run full, and may be active on one host at a time',
        },
      ]
    case 'multipath':
      return [
        {
          code: 'multipath',
          detail: `${path} sends a write again on another path when one fails`,
          mend: 'its transports must abort a command before they report its path as failed',
        },
      ]
    case 'cache':
      return [judgeCache(path, cacheModeOf(status))]
    case 'writecache':
      return [judgeCache(path, 'writeback')]
    default:
      return [
        {
          code: 'unknown-target',
          detail: `${path} has a target that the preflight does not know (${type})`,
          mend: 'make sure that it completes a write only when nothing of it is on its way any more, and obeys a flush',
        },
      ]
  }
}

/** dm-cache names its mode among the features in its status. */
function cacheModeOf(status: string): string | null {
  return /\b(writeback|writethrough|passthrough)\b/u.exec(status)?.[1] ?? null
}

function judgeCache(path: string, mode: string | null): Finding {
  if (mode === 'writethrough' || mode === 'passthrough' || mode === 'writearound' || mode === 'none') {
    return {
      code: 'local-cache',
      detail: `${path} keeps copies of the disk on this host (${mode})`,
      mend: 'drop the cache before this host reads the image again after another one has written it',
    }
  }
  return {
    code: 'cache-writeback',
    detail: `${path} acknowledges when its cache has a write, before the disk has it (${mode ?? 'mode unknown'})`,
    mend: 'switch the cache to writethrough and wait until nothing is dirty',
  }
}

function judgeArray(path: string, make: MakeOf<'array'>): Finding[] {
  const findings: Finding[] = [
    {
      code: 'array',
      detail: `${path} is put together by this host`,
      mend: 'it may be assembled on one host at a time',
    },
  ]
  if (make.degraded > 0) {
    findings.push({
      code: 'array-degraded',
      detail: `${path} lacks ${make.degraded} of its members`,
      mend: 'replace them before moving what is on it',
    })
  }
  return findings
}

function judgeNbd(path: string, make: MakeOf<'nbd'>): Finding[] {
  const findings = [remote(path, 'nbd')]
  if (make.timeoutMs === null) {
    findings.push({
      code: 'nbd-timeout-unknown',
      detail: `whether ${path} gives up on a request after a while cannot be seen (debugfs is not mounted or not readable)`,
      mend: 'it must be attached without a timeout, over one connection (nbd-client without -t and -C)',
    })
  } else if (make.timeoutMs > 0) {
    findings.push({
      code: 'nbd-timeout',
      detail: `${path} gives up on a request after ${Math.round(make.timeoutMs / 1000)} s while the server may still carry it out`,
      mend: 'attach it without a timeout, over one connection (nbd-client without -t and -C)',
    })
  }
  return findings
}

function judgeDisk(path: string, layer: DeviceLayer, make: MakeOf<'disk'>): Finding[] {
  const findings: Finding[] = []
  if (make.ownCache === 'write back' && layer.queue.writeCache === 'write through') {
    findings.push({
      code: 'flush-disabled',
      detail: `${path} has a volatile cache, and the kernel was told not to flush it`,
      mend: `echo 'write back' > /sys/block/${layer.name.replaceAll('/', '!')}/queue/write_cache`,
    })
  }
  if (make.transport !== 'local') findings.push(remote(path, make.transport))
  if (make.bus === 'virtio' || make.bus === 'xen' || VIRTUAL_MODELS.test(make.model)) {
    findings.push({
      code: 'virtual-disk',
      detail: `${path} is the disk of a virtual machine: only its host knows what a flush does`,
      mend: 'the host must pass flushes on (not cache=unsafe)',
    })
  }
  return findings
}

const VIRTUAL_MODELS = /\b(?:QEMU|VMware|Msft|VBOX|Virtual|Google|Amazon)\b/iu

function remote(path: string, transport: string): Finding {
  return {
    code: 'remote-device',
    detail: `${path} is reached over a network (${transport})`,
    mend: 'a request that is reported as failed must not be carried out later, and a flush must reach the disk there',
  }
}

function nbdTimeoutWords({ timeoutMs }: MakeOf<'nbd'>): string {
  if (timeoutMs === null) return ''
  return timeoutMs === 0 ? ' without a timeout' : ` with a timeout of ${Math.round(timeoutMs / 1000)} s`
}

function targetWords({ targets, uuid }: MakeOf<'mapper'>): string {
  if (targets === null) return uuid === '' ? 'targets unknown' : `targets unknown (${uuid.split('-')[0] ?? ''})`
  return [...new Set(targets.map(({ type }) => type))].join(', ')
}
