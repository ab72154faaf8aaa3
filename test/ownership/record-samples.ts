/**
 * Ownership records for tests: a complete one of each state, made by the types and not by the code under test. Whatever
 * a test is about it overrides; the rest is the same everywhere.
 */

import type { Receipt } from '../../src/interlock/receipt.ts'
import type { DrainingEntry, ImageIdentity, RecordDraft, RecordHolder } from '../../src/ownership/home.ts'

export const HOLDER: RecordHolder = {
  host: 'a'.repeat(32),
  boot: 'boot-a',
  instance: 'run-a',
  openToken: '1'.repeat(32),
  name: 'alpha',
}
export const OTHER: RecordHolder = {
  host: 'b'.repeat(32),
  boot: 'boot-b',
  instance: 'run-b',
  openToken: '2'.repeat(32),
  name: 'beta',
}
export const IMAGE: ImageIdentity = {
  realPath: '/srv/vda.raw',
  kind: 'file',
  device: '8:1',
  inode: 12,
  wwid: null,
  links: 1,
}
export const DRAINING: DrainingEntry = { generation: 3, holder: OTHER, ranges: [{ offset: 4096, length: 8192 }] }

export function receiptOf(generation: number): Receipt {
  return {
    version: 1,
    export: 'vda',
    image: { path: IMAGE.realPath, size: 512, device: IMAGE.device, inode: IMAGE.inode },
    generation,
    holder: { host: HOLDER.host, boot: HOLDER.boot, instance: HOLDER.instance },
    state: 'closed',
    closedAt: '2026-01-01T00:00:00.000Z',
    durability: 'sync',
    drained: { requests: 2, writes: 1, bytes: 4096 },
    aborted: [{ client: 1, cookie: '00000000000000ff', command: 'NBD_CMD_WRITE', offset: 0, length: 4096 }],
    indeterminate: [{ offset: 4096, length: 4096 }],
    reason: 'handover',
    nonce: 'n',
    clearedBy: 'drain',
    fence: { command: '/sbin/fence', plug: '7', exitStatus: 0, output: 'off\n' },
    elapsedMs: { drain: 0.25, sync: 1, record: 2, total: 3.25 },
  }
}

export function draftOf(overrides: Partial<RecordDraft> = {}): RecordDraft {
  return {
    imageId: 'vda',
    image: IMAGE,
    generation: 4,
    state: 'open',
    holder: HOLDER,
    closeReason: null,
    receipt: null,
    draining: [],
    intent: null,
    cleared: null,
    ...overrides,
  }
}
