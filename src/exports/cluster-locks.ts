/**
 * Where an operator's `cluster_locks = true` cannot be true: that a free lock of another host proves its writes to be over.
 * NFS and SMB let go of the locks of a process that was killed, or whose lease expired, with its writes still on their
 * way; and what is in a page cache is written whenever the kernel likes. Elsewhere the operator's word is taken.
 */

import { Refusal } from '../foundation/refusal.ts'
import type { ImageFacts } from './image.ts'
import type { ExportDefinition } from './verbs.ts'

/** By the names of `posix/file-system.ts`. */
const UNLOCKED_EARLY: ReadonlySet<string> = new Set(['nfs', 'cifs', 'smb2'])

export function refuseVoidClusterLocks(
  { name, path, clusterLocks, cache }: Pick<ExportDefinition, 'name' | 'path' | 'clusterLocks' | 'cache'>,
  { fileSystem }: Pick<ImageFacts, 'fileSystem'>,
): void {
  if (!clusterLocks) return
  if (cache === 'buffered') {
    throw new Refusal(
      'cluster-locks',
      `export '${name}' has cluster_locks, which say nothing of a page cache: drop one`,
    )
  }
  if (UNLOCKED_EARLY.has(fileSystem)) {
    throw new Refusal(
      'cluster-locks',
      `export '${name}' has cluster_locks, and ${path} is on ${fileSystem}, which lets go of locks before writes are ` +
        'over: drop cluster_locks, and configure a [fence]',
    )
  }
}
