/**
 * What the daemon is told: everything from the command line, the environment and the file, merged, checked and frozen.
 * It holds no default left to fill in and no text left to parse. Whether an image exists, an address can be bound or an
 * ownership kind is served is found out by who uses it; this is only what the operator said.
 */

import type { ExportDefinition } from '../exports/verbs.ts'
import type { Endpoint } from '../foundation/endpoint.ts'
import type { OperatorLimits } from './limits.ts'

export const ENGINES = ['auto', 'io_uring', 'file'] as const
export type EngineChoice = (typeof ENGINES)[number]

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]

export const LOG_FORMATS = ['json', 'pretty'] as const
export type LogFormat = (typeof LOG_FORMATS)[number]

export type OwnershipConfiguration =
  | { readonly kind: 'none' }
  /** `directory` null: IMAGE.interlock/ beside each image. Else one folder per image id in it. */
  | { readonly kind: 'directory'; readonly directory: string | null }
  | ({ readonly kind: 'etcd' } & EtcdConfiguration)

/** Files are absolute paths; null where none was named. */
export interface EtcdConfiguration {
  /** Of one cluster, as URLs without a path; all http or all https. */
  readonly endpoints: readonly string[]
  /** Ends in a slash; what follows it in a key is the image id. */
  readonly prefix: string
  /** How long one read or change of a record may take. */
  readonly timeoutMs: number
  /** Who may have signed the servers' certificates, in place of the system's authorities. */
  readonly caFile: string | null
  readonly certificateFile: string | null
  readonly keyFile: string | null
  readonly user: string | null
  readonly userFile: string | null
  readonly passwordFile: string | null
}

/** How a lost host is made certain to be lost, and what counts as that without asking anybody. */
export interface FencingConfiguration {
  /** Program and arguments, run as the fence agents are. Null: no takeover is possible. */
  readonly command: readonly string[] | null
  readonly timeoutMs: number
  /** Further lines for its standard input, such as the address of a power switch. */
  readonly options: Readonly<Record<string, string>>
  /** What to switch off, by a host's name or identity. */
  readonly plugs: Readonly<Record<string, string>>
  /** This host's own reboot proves that its writes are over, also on remote storage. */
  readonly rebootIsProof: boolean
}

export interface Configuration {
  /** The file that was read, absolute; null when there was none. */
  readonly file: string | null
  readonly stateDirectory: string
  readonly engine: EngineChoice
  readonly workers: number
  /** Where NBD is served. */
  readonly listen: readonly Endpoint[]
  /** Where the control API is served. */
  readonly control: readonly Endpoint[]
  readonly log: { readonly level: LogLevel; readonly format: LogFormat }
  readonly ownership: OwnershipConfiguration
  readonly fencing: FencingConfiguration
  readonly limits: OperatorLimits
  /** In the order in which they were declared; names are unique. `--standby` is already applied to each. */
  readonly exports: readonly ExportDefinition[]
}

/** Everything that is wrong with what the operator said; each problem names what and where. */
export class ConfigurationError extends Error {
  override readonly name = 'ConfigurationError'
  readonly problems: readonly string[]

  constructor(problems: readonly string[]) {
    super(problems.join('\n'))
    this.problems = problems
  }
}
