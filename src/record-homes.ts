/**
 * The homes of the records as the configuration wants them: one for each image, of one kind. What homes of a kind share
 * (the client of an etcd cluster, and its stream) is made once and ends with `close`.
 */

import { realpathSync } from 'node:fs'
import type { BlockingRunner } from './blocking/calls.ts'
import type { Configuration } from './config/configuration.ts'
import { Refusal } from './foundation/refusal.ts'
import { DirectoryHome } from './ownership/directory-home.ts'
import type { DirectoryWatch } from './ownership/directory-watch.ts'
import { EtcdClient } from './ownership/etcd/client.ts'
import type { EtcdLog, EtcdSettings } from './ownership/etcd/settings.ts'
import { EtcdWatch } from './ownership/etcd/watch.ts'
import { EtcdHome } from './ownership/etcd-home.ts'
import type { RecordHome } from './ownership/home.ts'
import { UnsharedHome } from './ownership/none.ts'
import { RecordsDirectory } from './ownership/records-directory.ts'
import type { RecordsUse } from './ownership/records-directory.ts'

interface Cluster {
  readonly client: EtcdClient
  readonly watch: EtcdWatch
  readonly prefix: string
}

export class RecordHomes {
  readonly #shared: boolean
  readonly #records: BlockingRunner
  readonly #cluster: Cluster | null
  /** Null where the records lie beside their images. */
  readonly #directory: RecordsDirectory | null
  readonly #directoryWatch: DirectoryWatch

  constructor(
    { ownership, stateDirectory }: Pick<Configuration, 'ownership' | 'stateDirectory'>,
    records: BlockingRunner,
    log: EtcdLog,
    use: RecordsUse,
  ) {
    this.#shared = ownership.kind !== 'none'
    this.#records = records
    this.#directoryWatch = DirectoryHome.watchBy(records)
    this.#cluster = ownership.kind === 'etcd' ? clusterOf(ownership, records, log) : null
    const directory = ownership.kind === 'directory' ? ownership.directory : null
    this.#directory = directory === null ? null : new RecordsDirectory(directory, stateDirectory, records, use)
  }

  homeOf(imageId: string): RecordHome {
    const cluster = this.#cluster
    if (cluster !== null) return new EtcdHome(cluster.client, cluster.watch, `${cluster.prefix}${imageId}`)
    if (!this.#shared) return new UnsharedHome()
    const directory = this.#directory
    return new DirectoryHome(
      this.#records,
      directory === null ? { kind: 'beside' } : { kind: 'under', directory, imageId },
      this.#directoryWatch,
    )
  }

  /** For how long the home of all records has answered nobody. */
  get unreachableMs(): number {
    return this.#cluster?.client.outage.lastsMs ?? 0
  }

  async close(): Promise<void> {
    await this.#cluster?.watch.close()
    this.#cluster?.client.close()
  }
}

/** For tools without a daemon: by which id the first of the configurations that exports the image knows it. */
export function imageIdIn(configurations: readonly Configuration[], path: string): string | null {
  const definition = configurations.flatMap(({ exports }) => exports).find((each) => each.path === path)
  return definition === undefined ? null : (definition.imageId ?? definition.name)
}

/** Throws the Refusal where the path leads nowhere. */
export function realPathOf(path: string): string {
  try {
    return realpathSync.native(path)
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    throw new Refusal('image-missing', `${path} leads nowhere on this host: ${why}`)
  }
}

function clusterOf(settings: EtcdSettings, records: BlockingRunner, log: EtcdLog): Cluster {
  const client = new EtcdClient(settings, records, log)
  return { client, watch: new EtcdWatch(client), prefix: settings.prefix }
}
