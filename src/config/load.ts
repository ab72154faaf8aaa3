/**
 * Puts the configuration together: flags over environment over file over defaults. Plain settings replace each other as
 * wholes. Exports are united by name, and where two sources name one, the stronger one's members win. `durability` and
 * `standby` of the file's top level are defaults for its exports; as flag or variable they are for every export.
 */

import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import type { ExportDefinition } from '../exports/verbs.ts'
import { formatEndpoint, isLoopback } from '../foundation/endpoint.ts'
import { ConfigurationError } from './configuration.ts'
import type { Configuration } from './configuration.ts'
import { DEFAULT_FENCING, defaultControl, defaultListen, defaultStateDirectory } from './defaults.ts'
import type { Host } from './defaults.ts'
import { readEnvironment } from './environment.ts'
import { readFileSettings } from './file-settings.ts'
import { DEFAULT_OPERATOR_LIMITS, LIMITS } from './limits.ts'
import type { ExportSettings, PlainSettings, Settings } from './settings.ts'

export interface Loaded {
  readonly configuration: Configuration
  /** Worth a line in the log; nothing that stops a start. */
  readonly warnings: readonly string[]
}

/** Throws ConfigurationError with everything that is wrong. Reading again (SIGHUP) gives a new configuration. */
export function loadConfiguration(flags: Settings, flagFile: string | undefined, host: Host): Loaded {
  const environment = readEnvironment(host.environment, host.workingDirectory)
  const named = flagFile ?? environment.file
  const path = named === undefined ? null : resolve(host.workingDirectory, named)
  const file = path === null ? { settings: {}, problems: [] } : readConfigurationFile(path)
  const problems = [...environment.problems, ...file.problems]
  const configuration = merge({ flags, environment: environment.settings, file: file.settings }, path, host, problems)
  if (problems.length > 0) throw new ConfigurationError(problems)
  return { configuration: freezeDeep(configuration), warnings: environment.warnings }
}

/** As if the daemon was started with this file and nothing else. */
export function checkConfigurationFile(path: string, host: Host): Configuration {
  return loadConfiguration({}, path, { ...host, environment: withoutSettings(host.environment) }).configuration
}

interface Sources {
  readonly flags: Settings
  readonly environment: Settings
  readonly file: Settings
}

function readConfigurationFile(path: string): { settings: Settings; problems: readonly string[] } {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    throw new ConfigurationError([`${path}: cannot be read: ${error instanceof Error ? error.message : String(error)}`])
  }
  return readFileSettings(path, text)
}

function merge(sources: Sources, path: string | null, host: Host, problems: string[]): Configuration {
  const plain: Partial<PlainSettings> = { ...sources.file, ...sources.environment, ...sources.flags }
  const limits = { ...DEFAULT_OPERATOR_LIMITS, ...sources.file.limits }
  const control = plain.control ?? defaultControl(host, problems)
  for (const endpoint of control) {
    if (isLoopback(endpoint)) continue
    const shown = formatEndpoint(endpoint)
    problems.push(`control: ${shown} is not a loopback address; the control API knows no authentication`)
  }
  return {
    file: path,
    stateDirectory: plain.stateDirectory ?? defaultStateDirectory(host, problems),
    engine: plain.engine ?? 'auto',
    workers: plain.workers ?? 1,
    listen: plain.listen ?? defaultListen,
    control,
    log: { level: plain.logLevel ?? 'info', format: plain.logFormat ?? 'json' },
    ownership: sources.file.ownership ?? { kind: 'directory', directory: null },
    fencing: sources.file.fencing ?? DEFAULT_FENCING,
    limits,
    exports: mergeExports(sources, problems),
  }
}

function mergeExports(sources: Sources, problems: string[]): ExportDefinition[] {
  const byName = new Map<string, ExportSettings>()
  for (const source of [sources.file, sources.environment, sources.flags]) {
    const inThisSource = new Set<string>()
    for (const settings of source.exports ?? []) {
      if (inThisSource.has(settings.name)) problems.push(`export '${settings.name}' is declared twice`)
      inThisSource.add(settings.name)
      byName.set(settings.name, { ...byName.get(settings.name), ...settings })
    }
  }
  if (byName.size > LIMITS.exportsMax) problems.push(`${byName.size} exports; there may be ${LIMITS.exportsMax}`)
  const stronger: Settings = { ...sources.environment, ...sources.flags }
  return [...byName.values()].map((settings) => ({
    ...completeExport(settings),
    durability: stronger.durability ?? settings.durability ?? sources.file.durability ?? 'sync',
    standby: stronger.standby ?? settings.standby ?? sources.file.standby ?? false,
  }))
}

/** An export with all defaults filled in. */
export function completeExport(settings: ExportSettings): ExportDefinition {
  return {
    name: settings.name,
    path: settings.path,
    description: settings.description ?? '',
    imageId: settings.imageId ?? null,
    readOnly: settings.readOnly ?? false,
    durability: settings.durability ?? 'sync',
    clients: settings.clients ?? 'exclusive',
    standby: settings.standby ?? false,
    standbyReads: settings.standbyReads ?? 'serve',
    clusterLocks: settings.clusterLocks ?? false,
    cache: settings.cache ?? 'direct',
    ...(settings.allowUnsafe !== undefined && { allowUnsafe: settings.allowUnsafe }),
  }
}

function withoutSettings(environment: Host['environment']): Host['environment'] {
  return Object.fromEntries(Object.entries(environment).filter(([name]) => !name.startsWith('INTERLOCKD_')))
}

function freezeDeep<T>(value: T): T {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return value
  Object.values(value).forEach(freezeDeep)
  return Object.freeze(value)
}
