/**
 * Everything that a preflight can say, by its code. The codes are stable: scripts decide by them, `--allow-unsafe` and
 * receipts carry them, and docs/preflight.md explains each (a test sees to that). A code has one severity wherever it
 * occurs: `note` changes nothing, `condition` has to be true for the migration to be safe, `unsafe` is refused by `open`
 * unless the operator names it.
 */

import type { StackSeverity } from '../verbs.ts'

export const STACK_CODES = {
  // Not safe: what was answered can be lost, or an old write can land after a newer one.
  'loop-buffered': 'unsafe',
  'volatile-memory': 'unsafe',
  'nfs-soft': 'unsafe',
  'smb-soft': 'unsafe',
  'nbd-timeout': 'unsafe',
  'cache-writeback': 'unsafe',
  'no-barrier': 'unsafe',
  'flush-disabled': 'unsafe',
  'overlay-volatile': 'unsafe',
  'overlay-copy-up': 'unsafe',
  'no-direct': 'unsafe',
  'in-use': 'unsafe',

  // Safe on a condition that the machine cannot check.
  'local-file-system': 'condition',
  'cluster-file-system': 'condition',
  'network-file-system': 'condition',
  'nfs-server': 'condition',
  'local-locks': 'condition',
  fuse: 'condition',
  overlay: 'condition',
  'stacked-file-system': 'condition',
  'copy-on-write': 'condition',
  'unknown-file-system': 'condition',
  'unknown-device': 'condition',
  'unknown-target': 'condition',
  'loop-backing-unknown': 'condition',
  'virtual-disk': 'condition',
  'remote-device': 'condition',
  'nbd-timeout-unknown': 'condition',
  'thin-pool': 'condition',
  snapshot: 'condition',
  multipath: 'condition',
  'local-cache': 'condition',
  array: 'condition',
  'array-degraded': 'condition',
  'hard-links': 'condition',
  'open-elsewhere': 'condition',
  'users-unknown': 'condition',
  'space-short': 'condition',
  'read-only': 'condition',
  'direct-unproved': 'condition',
  'not-answering': 'condition',

  // Worth knowing.
  sparse: 'note',
  unwritten: 'note',
  shared: 'note',
} as const satisfies Record<string, StackSeverity>

/** What outlives a reboot of this host, or might: what it had submitted may still be on its way there. */
export const REMOTE_CODES: readonly StackCode[] = [
  ...(['remote-device', 'multipath', 'network-file-system', 'cluster-file-system', 'nfs-server'] as const),
  ...(['unknown-device', 'unknown-target', 'loop-backing-unknown', 'not-answering'] as const),
]

export type StackCode = keyof typeof STACK_CODES

export function isStackCode(text: string): text is StackCode {
  return Object.hasOwn(STACK_CODES, text)
}

/**
 * Unsafe, and already refused by the opening itself, which can tell better: a file without direct I/O unless the
 * configuration asks for buffered I/O by name, a device in use by O_EXCL.
 */
export const REFUSED_ELSEWHERE: readonly StackCode[] = ['no-direct', 'in-use']

export interface Finding {
  readonly code: StackCode
  /** What is the matter here, with the names of this machine. */
  readonly detail: string
  /** What to do about it. */
  readonly mend: string
}
