/**
 * The ownership record of an image, looked at and repaired without a daemon, for `interlockctl record`. The record is read
 * and repaired by the same code that daemons use, with the rights of this user. `PATH` is an image, whose record lies beside
 * it, or the folder of a record itself; with a configuration the record is where that says.
 */

import { statSync } from 'node:fs'
import { BlockingPool } from './blocking/blocking-pool.ts'
import type { BlockingRunner } from './blocking/calls.ts'
import { hostOfThisProcess } from './config/defaults.ts'
import { checkConfigurationFile } from './config/load.ts'
import { Refusal } from './foundation/refusal.ts'
import { DirectoryHome, FOLDER_SUFFIX } from './ownership/directory-home.ts'
import type { Newest, RecordHome } from './ownership/home.ts'
import { planRepair, readRecords, repairRecord } from './ownership/record-repair.ts'
import type { Repaired, RepairOptions, RepairPlan } from './ownership/record-repair.ts'
import { imageIdIn, realPathOf, RecordHomes } from './record-homes.ts'

export type { Newest, OwnershipRecord, RecordHolder } from './ownership/home.ts'
export type { Repaired, RepairOptions, RepairPlan } from './ownership/record-repair.ts'

export interface RecordPlace {
  /** Absolute. */
  readonly path: string
  /** A configuration file of which only [ownership] is used, and the ids of its exports; null: beside the image. */
  readonly configuration: string | null
  /** In place of the id that the configuration gives the image. */
  readonly imageId: string | null
}

export interface LocalRecord {
  /** Where it is. */
  readonly place: string
  /** What is left of it, oldest first. */
  read(): Promise<readonly Newest[]>
  /** What `repair` would do. Throws the same refusals. */
  plan(options: RepairOptions): Promise<RepairPlan>
  repair(options: RepairOptions): Promise<Repaired>
}

/**
 * Looks for the record, lends it to `use`, and leaves nothing running. Rejects with a Refusal where there is nothing, and
 * with a ConfigurationError where the file has mistakes.
 */
export async function withLocalRecord<T>(place: RecordPlace, use: (record: LocalRecord) => Promise<T>): Promise<T> {
  const threads = new BlockingPool('records', 1)
  try {
    const { home, close } = homeOf(place, threads)
    try {
      return await use({
        place: home.describe(),
        read: () => readRecords(home),
        plan: async (options) => planRepair(await readRecords(home), options),
        repair: (options) => repairRecord(home, options),
      })
    } finally {
      await home.close()
      await close()
    }
  } finally {
    await threads.close()
  }
}

interface OpenedHome {
  readonly home: RecordHome
  readonly close: () => Promise<void>
}

function homeOf({ path, configuration, imageId }: RecordPlace, threads: BlockingRunner): OpenedHome {
  if (configuration === null) {
    return { home: DirectoryHome.at(threads, folderOf(path)), close: () => Promise.resolve() }
  }
  const configured = checkConfigurationFile(configuration, hostOfThisProcess())
  const { kind } = configured.ownership
  if (kind === 'none') throw new Refusal('bad-request', `${configuration}: kind "none" keeps no records`)
  const id = imageId ?? imageIdIn([configured], path)
  if (id === null) throw new Refusal('bad-request', `no export of ${configuration} is ${path}: give --image-id`)
  const homes = new RecordHomes(configured, threads, { info: () => undefined, warn: () => undefined }, 'visitor')
  const home = homes.homeOf(id)
  // A key of etcd is looked at on any host, also on one that does not see the image.
  if (kind === 'directory') home.locate(realPathOf(path))
  return { home, close: () => homes.close() }
}

/** That of an image beside it, or the folder of a record itself. */
function folderOf(path: string): string {
  const realPath = realPathOf(path)
  return statSync(realPath).isDirectory() ? realPath : `${realPath}${FOLDER_SUFFIX}`
}
