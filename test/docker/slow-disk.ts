/**
 * A witness disk for containers: slow or held, with a log of its own. The source reaches it through FUSE, the destination through
 * the same path or on the bytes below it, where neither sees the other's locks, as on two hosts. FUSE shows the disk to
 * the user who mounted it only, so such containers run as that user.
 */

import { basename, dirname } from 'node:path'
import type { ExportEntry } from '../support/daemon.ts'
import type { Scratch } from '../support/scratch.ts'
import { startWitnessDisk } from '../support/witness-disk.ts'
import type { WitnessDisk, WitnessDiskOptions } from '../support/witness-disk.ts'

export interface SlowDisk {
  readonly witness: WitnessDisk
  /** What a host needs that has the disk itself, or only the bytes below it. */
  readonly slow: SlowDiskPath
  readonly below: SlowDiskPath
}

interface SlowDiskPath {
  readonly exports: readonly ExportEntry[]
  /** Lines of the configuration file. */
  readonly settings: readonly string[]
  readonly words: readonly string[]
}

const RECORDS = ['[ownership]', 'kind = "directory"', 'directory = "/srv"']
/** Under the folder that both hosts mount as /srv. */
export const RECORD_FOLDER = 'disk'

export async function startSlowDisk(scratch: Scratch, options: WitnessDiskOptions): Promise<SlowDisk> {
  const witness = await startWitnessDisk(scratch, { ...options, sizeBytes: 16 * 1024 * 1024 })
  const user = ['--user', `${process.getuid?.() ?? 0}:${process.getgid?.() ?? 0}`]
  const reached = (path: string): SlowDiskPath => ({
    exports: [{ name: 'vda', path: `/disk/${basename(path)}`, image_id: RECORD_FOLDER }],
    settings: RECORDS,
    words: [...user, '--volume', `${dirname(path)}:/disk`],
  })
  return { witness, slow: reached(witness.path), below: reached(witness.backingPath) }
}
