/**
 * The ownership record of an image without a daemon, for `interlockctl record`: read and, where an operator asks for it,
 * repaired by the same code that daemons use, with the rights of this user. `PATH` is an image, whose record lies beside
 * it, or the folder of a record itself.
 */

import { realpathSync, statSync } from 'node:fs'
import { BlockingPool } from './blocking/blocking-pool.ts'
import { Refusal } from './foundation/refusal.ts'
import { DirectoryHome, FOLDER_SUFFIX } from './ownership/directory-home.ts'
import type { Newest, RecordHome } from './ownership/home.ts'
import { planRepair, readRecords, repairRecord } from './ownership/record-repair.ts'
import type { Repaired, RepairOptions, RepairPlan } from './ownership/record-repair.ts'

export type { Newest, OwnershipRecord, RecordHolder } from './ownership/home.ts'
export type { Repaired, RepairOptions, RepairPlan } from './ownership/record-repair.ts'

export interface LocalRecord {
  /** Where it is. */
  readonly place: string
  /** What is left of it, oldest first. */
  read(): Promise<readonly Newest[]>
  /** What `repair` would do. Throws the same refusals. */
  plan(options: RepairOptions): Promise<RepairPlan>
  repair(options: RepairOptions): Promise<Repaired>
}

/** Looks for the record, lends it to `use`, and leaves nothing running. Rejects with a Refusal where there is nothing. */
export async function withLocalRecord<T>(path: string, use: (record: LocalRecord) => Promise<T>): Promise<T> {
  const folder = folderOf(path)
  const threads = new BlockingPool('records', 1)
  const home: RecordHome = DirectoryHome.at(threads, folder)
  try {
    return await use({
      place: folder,
      read: () => readRecords(home),
      plan: async (options) => planRepair(await readRecords(home), options),
      repair: (options) => repairRecord(home, options),
    })
  } finally {
    await home.close()
    await threads.close()
  }
}

function folderOf(path: string): string {
  try {
    const realPath = realpathSync.native(path)
    return statSync(realPath).isDirectory() ? realPath : `${realPath}${FOLDER_SUFFIX}`
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    throw new Refusal('image-missing', `${path} is neither an image nor the folder of a record: ${why}`)
  }
}
