/**
 * The configuration file as settings. Every key is looked at: one that nobody asked for is a problem with its name and
 * line, as is a value that does not pass its check. All problems of a file are told at once.
 */

import { dirname } from 'node:path'
import { checkBoolean, checkDurationMs, checkExportName, checkHttpUrl, checkImageId, checkSizeBytes } from './check.ts'
import { checkKeyPrefix, integerBetween, listOf, oneOf, pathFrom, textOf } from './check.ts'
import type { Check } from './check.ts'
import type { EtcdConfiguration, FencingConfiguration, OwnershipConfiguration } from './configuration.ts'
import { DEFAULT_ETCD, DEFAULT_FENCING } from './defaults.ts'
import { DEFAULT_OPERATOR_LIMITS, limitProblems, LIMITS } from './limits.ts'
import type { OperatorLimits } from './limits.ts'
import { CACHES, CLIENTS_MODES, DURABILITIES, SETTING_NAMES, SETTINGS, STANDBY_READS } from './settings.ts'
import { SettingsCollector } from './settings.ts'
import type { ExportSettings, Settings } from './settings.ts'
import { isTable, TomlFile } from './toml-file.ts'
import type { KeyPath, Table } from './toml-file.ts'

const FENCE_TEXT_BYTES_MAX = 4096
const OWNERSHIP_KINDS = ['directory', 'etcd', 'none'] as const

/** `path` is absolute: relative paths inside the file start at its folder. Throws ConfigurationError if it is not TOML. */
export function readFileSettings(path: string, text: string): { settings: Settings; problems: readonly string[] } {
  const file = new TomlFile(path, text)
  const base = dirname(path)
  const problems: string[] = []
  const root = new TableReader(file, [], file.root, problems)
  const collector = new SettingsCollector(base)
  for (const name of SETTING_NAMES) {
    const key = SETTINGS[name].key
    const value = root.raw(key)
    if (value !== undefined) collector.put(name, value, () => root.place(key))
  }
  const exports = readExports(root.tables('export'), base)
  const ownership = root.table('ownership')
  const fencing = root.table('fence')
  const limits = root.table('limits')
  const settings: Settings = {
    ...collector.settings,
    exports,
    ...(ownership && { ownership: readOwnership(ownership, base) }),
    ...(fencing && { fencing: readFencing(fencing) }),
    ...(limits && { limits: readLimits(limits) }),
  }
  root.finish()
  return { settings, problems: [...collector.problems, ...problems] }
}

function readExports(readers: readonly TableReader[], base: string): ExportSettings[] {
  const byName = new Map<string, ExportSettings>()
  for (const reader of readers) {
    const settings = readExport(reader, base)
    if (settings === undefined) continue
    if (byName.has(settings.name)) reader.reject('name', `"${settings.name}" is declared a second time`)
    byName.set(settings.name, settings)
  }
  return [...byName.values()]
}

function readExport(reader: TableReader, base: string): ExportSettings | undefined {
  const name = reader.take('name', checkExportName)
  const path = reader.take('path', pathFrom(base))
  const options = omitUndefined({
    description: reader.take('description', textOf(LIMITS.descriptionBytesMax)),
    imageId: reader.take('image_id', checkImageId),
    readOnly: reader.take('read_only', checkBoolean),
    durability: reader.take('durability', oneOf(DURABILITIES)),
    clients: reader.take('clients', oneOf(CLIENTS_MODES)),
    standby: reader.take('standby', checkBoolean),
    standbyReads: reader.take('standby_reads', oneOf(STANDBY_READS)),
    clusterLocks: reader.take('cluster_locks', checkBoolean),
    cache: reader.take('cache', oneOf(CACHES)),
    allowUnsafe: reader.take('allow_unsafe', listOf(textOf(64))),
  })
  if (reader.raw('name') === undefined) reader.complain("an [[export]] needs a 'name'")
  if (reader.raw('path') === undefined) reader.complain("an [[export]] needs a 'path'")
  reader.finish()
  return name === undefined || path === undefined ? undefined : { name, path, ...options }
}

function readOwnership(reader: TableReader, base: string): OwnershipConfiguration {
  const kind = reader.take('kind', oneOf(OWNERSHIP_KINDS)) ?? 'directory'
  const ownership = ownershipOf(kind, reader, base)
  reader.finish(` with kind = "${kind}"`)
  return ownership
}

function ownershipOf(
  kind: (typeof OWNERSHIP_KINDS)[number],
  reader: TableReader,
  base: string,
): OwnershipConfiguration {
  switch (kind) {
    case 'none':
      return { kind }
    case 'directory':
      return { kind, directory: reader.take('directory', pathFrom(base)) ?? null }
    case 'etcd':
      return { kind, ...readEtcd(reader, base) }
  }
}

function readEtcd(reader: TableReader, base: string): EtcdConfiguration {
  const endpoints = reader.take('endpoints', listOf(checkHttpUrl)) ?? []
  if (reader.raw('endpoints') === undefined) reader.complain('[ownership] with kind = "etcd" needs \'endpoints\'')
  const file = (key: string): string | null => reader.take(key, pathFrom(base)) ?? null
  const etcd: EtcdConfiguration = {
    endpoints,
    prefix: reader.take('prefix', checkKeyPrefix) ?? DEFAULT_ETCD.prefix,
    timeoutMs: reader.take('timeout', checkDurationMs) ?? DEFAULT_ETCD.timeoutMs,
    caFile: file('ca_file'),
    certificateFile: file('certificate_file'),
    keyFile: file('key_file'),
    user: reader.take('user', textOf(FENCE_TEXT_BYTES_MAX)) ?? null,
    userFile: file('user_file'),
    passwordFile: file('password_file'),
  }
  complainOfEtcd(reader, etcd)
  return etcd
}

/** What no single key shows. */
function complainOfEtcd(reader: TableReader, etcd: EtcdConfiguration): void {
  const { timeoutMs } = etcd
  const secure = etcd.endpoints.filter((endpoint) => endpoint.startsWith('https:')).length
  if (timeoutMs < LIMITS.recordTimeoutMsMin || timeoutMs > LIMITS.recordTimeoutMsMax) {
    reader.reject('timeout', 'must be from 1s to 5m')
  }
  if (secure !== 0 && secure !== etcd.endpoints.length) reader.reject('endpoints', 'must be all https or all http')
  const needs = (key: string, other: string): void => {
    if (reader.raw(key) !== undefined && reader.raw(other) === undefined) reader.reject(key, `needs '${other}' too`)
  }
  needs('certificate_file', 'key_file')
  needs('key_file', 'certificate_file')
  for (const key of ['ca_file', 'certificate_file'] as const) {
    const written = reader.raw(key) !== undefined
    if (written && secure === 0 && etcd.endpoints.length > 0) reader.reject(key, 'is of no use: no endpoint is https')
  }
  if (etcd.user !== null && etcd.userFile !== null) reader.reject('user_file', "cannot stand beside 'user'")
  const named = etcd.user !== null || etcd.userFile !== null
  if (etcd.passwordFile !== null && !named) reader.reject('password_file', "needs 'user' or 'user_file' too")
  if (named && etcd.passwordFile === null) {
    reader.reject(etcd.user === null ? 'user_file' : 'user', "needs 'password_file' too")
  }
}

function readFencing(reader: TableReader): FencingConfiguration {
  const fencing: FencingConfiguration = {
    command: reader.take('command', listOf(textOf(FENCE_TEXT_BYTES_MAX))) ?? DEFAULT_FENCING.command,
    timeoutMs: reader.take('timeout', checkDurationMs) ?? DEFAULT_FENCING.timeoutMs,
    options: reader.table('options')?.texts() ?? DEFAULT_FENCING.options,
    plugs: reader.table('plugs')?.texts() ?? DEFAULT_FENCING.plugs,
    rebootIsProof: reader.take('reboot_is_proof', checkBoolean) ?? DEFAULT_FENCING.rebootIsProof,
  }
  reader.finish()
  return fencing
}

function readLimits(reader: TableReader): Partial<OperatorLimits> {
  const count = integerBetween(1, Number.MAX_SAFE_INTEGER)
  const limits = omitUndefined({
    connectionsMax: reader.take('connections_max', count),
    handshakeTimeoutMs: reader.take('handshake_timeout', checkDurationMs),
    requestsPerConnectionMax: reader.take('requests_per_connection_max', count),
    arenaBytes: reader.take('arena_bytes', checkSizeBytes),
    closeTimeoutMs: reader.take('close_timeout', checkDurationMs),
    holdAlarmMs: reader.take('hold_alarm', checkDurationMs),
  })
  for (const { key, problem } of limitProblems({ ...DEFAULT_OPERATOR_LIMITS, ...limits })) reader.reject(key, problem)
  reader.finish()
  return limits
}

/** One table of the file. Remembers which keys were asked for, so that `finish` can name the rest. */
class TableReader {
  readonly #file: TomlFile
  readonly #path: KeyPath
  readonly #table: Table
  readonly #problems: string[]
  readonly #known = new Set<string>()

  constructor(file: TomlFile, path: KeyPath, table: Table, problems: string[]) {
    this.#file = file
    this.#path = path
    this.#table = table
    this.#problems = problems
  }

  raw(key: string): unknown {
    this.#known.add(key)
    return Object.hasOwn(this.#table, key) ? this.#table[key] : undefined
  }

  take<T>(key: string, check: Check<T>): T | undefined {
    const value = this.raw(key)
    if (value === undefined) return undefined
    const checked = check(value)
    if (checked.ok) return checked.value
    this.reject(key, checked.problem)
    return undefined
  }

  table(key: string): TableReader | undefined {
    const value = this.raw(key)
    if (value === undefined) return undefined
    if (isTable(value)) return new TableReader(this.#file, [...this.#path, key], value, this.#problems)
    this.reject(key, `must be a table: [${key}]`)
    return undefined
  }

  tables(key: string): TableReader[] {
    const value = this.raw(key)
    if (value === undefined) return []
    const items: readonly unknown[] = Array.isArray(value) ? value : [value]
    if (!Array.isArray(value) || !items.every(isTable)) {
      this.reject(key, `must be written as [[${key}]]`)
      return []
    }
    return items
      .filter(isTable)
      .map((item, index) => new TableReader(this.#file, [...this.#path, key, index], item, this.#problems))
  }

  /** Every member as a line of text: names are the operator's own. */
  texts(): Readonly<Record<string, string>> {
    const texts: Record<string, string> = {}
    for (const key of Object.keys(this.#table)) {
      const text = this.take(key, textOf(FENCE_TEXT_BYTES_MAX))
      if (/[=\p{Cc}]/u.test(key)) this.reject(key, "cannot be said as a line of the form 'name=value'")
      else if (text !== undefined) texts[key] = text
    }
    return texts
  }

  /** Something about the table as a whole. */
  complain(problem: string): void {
    this.#problems.push(`${this.#file.place(this.#path)}: ${problem}`)
  }

  /** Something about one key; said of the table where the key is not written. */
  reject(key: string, problem: string): void {
    this.#problems.push(`${this.place(key)} ${problem}`)
  }

  place(key: string): string {
    const path = Object.hasOwn(this.#table, key) ? [...this.#path, key] : this.#path
    return `${this.#file.place(path)}: '${key}'`
  }

  finish(circumstance = ''): void {
    const section = this.#path.findLast((part) => typeof part === 'string')
    const known = [...this.#known].join(', ')
    for (const key of Object.keys(this.#table)) {
      if (this.#known.has(key)) continue
      const where = section === undefined ? 'at the top level' : `in [${section}]`
      this.#problems.push(`${this.place(key)} is not a known key ${where}${circumstance} (known: ${known})`)
    }
  }
}

type WithoutUndefined<T> = { [K in keyof T]?: Exclude<T[K], undefined> }

/** Absent is not the same as undefined: a spread of an undefined member would hide what it is merged with. */
function omitUndefined<T extends object>(members: T): WithoutUndefined<T> {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined)) as WithoutUndefined<T>
}
