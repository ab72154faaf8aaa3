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
  | { readonly kind: 'etcd'; readonly endpoints: readonly string[]; readonly prefix: string }

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
