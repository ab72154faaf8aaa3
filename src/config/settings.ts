/**
 * What one source (command line, environment, file) says, checked and not yet merged. An absent member is one that the
 * source does not mention. `SETTINGS` is the list of the plain ones: the flag, the variable and the key of each are its
 * name in three spellings.
 */

import type { ClientsMode } from '../plane-link/orders.ts'
import type { Durability } from '../interlock/receipt.ts'
import type { StandbyReads } from '../exports/verbs.ts'
import type { Endpoint } from '../foundation/endpoint.ts'
import { checkBoolean, checkEndpoint, integerBetween, listOf, oneOf, pathFrom } from './check.ts'
import type { Check } from './check.ts'
import { ENGINES, LOG_FORMATS, LOG_LEVELS } from './configuration.ts'
import type {
  EngineChoice,
  FencingConfiguration,
  LogFormat,
  LogLevel,
  OwnershipConfiguration,
} from './configuration.ts'
import { LIMITS } from './limits.ts'
import type { OperatorLimits } from './limits.ts'

export const DURABILITIES = ['sync', 'writeback'] as const satisfies readonly Durability[]
export const CLIENTS_MODES = ['exclusive', 'shared'] as const satisfies readonly ClientsMode[]
export const STANDBY_READS = ['serve', 'park'] as const satisfies readonly StandbyReads[]
export const CACHES = ['direct', 'buffered'] as const

export interface PlainSettings {
  readonly stateDirectory: string
  readonly engine: EngineChoice
  readonly workers: number
  readonly listen: readonly Endpoint[]
  readonly control: readonly Endpoint[]
  readonly standby: boolean
  readonly durability: Durability
  readonly logLevel: LogLevel
  readonly logFormat: LogFormat
}

export interface ExportSettings {
  readonly name: string
  readonly path: string
  readonly description?: string
  readonly imageId?: string
  readonly readOnly?: boolean
  readonly durability?: Durability
  readonly clients?: ClientsMode
  readonly standby?: boolean
  readonly standbyReads?: StandbyReads
  readonly clusterLocks?: boolean
  readonly cache?: 'direct' | 'buffered'
  readonly allowUnsafe?: readonly string[]
}

export interface Settings extends Partial<PlainSettings> {
  readonly exports?: readonly ExportSettings[]
  readonly ownership?: OwnershipConfiguration
  readonly fencing?: FencingConfiguration
  readonly limits?: Partial<OperatorLimits>
}

/** `check` takes the base that relative paths start at. `shape` is how a text becomes what the check expects. */
interface Setting<T> {
  readonly key: string
  readonly shape: 'text' | 'number' | 'switch' | 'list'
  readonly check: (base: string) => Check<T>
}

export const SETTINGS: { readonly [K in keyof PlainSettings]: Setting<PlainSettings[K]> } = {
  stateDirectory: { key: 'state_directory', shape: 'text', check: pathFrom },
  engine: { key: 'engine', shape: 'text', check: () => oneOf(ENGINES) },
  workers: { key: 'workers', shape: 'number', check: () => integerBetween(1, LIMITS.workersMax) },
  listen: { key: 'listen', shape: 'list', check: () => listOf(checkEndpoint) },
  control: { key: 'control', shape: 'list', check: () => listOf(checkEndpoint) },
  standby: { key: 'standby', shape: 'switch', check: () => checkBoolean },
  durability: { key: 'durability', shape: 'text', check: () => oneOf(DURABILITIES) },
  logLevel: { key: 'log_level', shape: 'text', check: () => oneOf(LOG_LEVELS) },
  logFormat: { key: 'log_format', shape: 'text', check: () => oneOf(LOG_FORMATS) },
}

export const SETTING_NAMES = Object.keys(SETTINGS) as readonly (keyof PlainSettings)[]

/** Puts settings together one by one; what does not pass its check becomes a problem with its name and place. */
export class SettingsCollector {
  readonly problems: string[] = []
  readonly #settings: Partial<PlainSettings> = {}
  readonly #base: string

  constructor(base: string) {
    this.#base = base
  }

  get settings(): Partial<PlainSettings> {
    return this.#settings
  }

  put(name: keyof PlainSettings, value: unknown, where: () => string): void {
    const checked = SETTINGS[name].check(this.#base)(value)
    if (checked.ok) Object.assign(this.#settings, { [name]: checked.value })
    else this.problems.push(`${where()} ${checked.problem}`)
  }

  /** As `put`, of a text from the command line or the environment. */
  putText(name: keyof PlainSettings, text: string, where: () => string): void {
    this.put(name, valueOfText(text, SETTINGS[name].shape), where)
  }
}

/** Environment variables separate the items of a list by commas; a flag that may be repeated never has more than one. */
export function splitList(text: string): string[] {
  return text
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '')
}

function valueOfText(text: string, shape: Setting<unknown>['shape']): unknown {
  switch (shape) {
    case 'text':
      return text
    case 'number':
      return /^\d{1,15}$/.test(text) ? Number(text) : text
    case 'switch':
      return text === 'true' || text === '1' ? true : text === 'false' || text === '0' ? false : text
    case 'list':
      return splitList(text)
  }
}
