/**
 * The environment as settings: INTERLOCKD_ and the file's key in capitals. Lists are separated by commas, exports are
 * NAME=PATH. A variable that looks like ours and is not is reported, but stops nobody: container platforms invent such
 * variables for a service of our name.
 */

import { checkExportName, pathFrom } from './check.ts'
import { SETTING_NAMES, SETTINGS, SettingsCollector, splitList } from './settings.ts'
import type { ExportSettings, Settings } from './settings.ts'

export type Environment = Readonly<Record<string, string | undefined>>

export const ENVIRONMENT_PREFIX = 'INTERLOCKD_'
/** Of crash tests; nothing that an operator sets. */
const FAULT_POINT = `${ENVIRONMENT_PREFIX}FAULT_POINT`
const CONFIG = `${ENVIRONMENT_PREFIX}CONFIG`
const EXPORT = `${ENVIRONMENT_PREFIX}EXPORT`

export interface EnvironmentReading {
  readonly settings: Settings
  /** INTERLOCKD_CONFIG. */
  readonly file: string | undefined
  readonly problems: readonly string[]
  readonly warnings: readonly string[]
}

/** `base` is where relative paths start. */
export function readEnvironment(environment: Environment, base: string): EnvironmentReading {
  const collector = new SettingsCollector(base)
  const variables = new Map(SETTING_NAMES.map((name) => [variableOf(SETTINGS[name].key), name]))
  const problems: string[] = []
  const warnings: string[] = []
  const exports: ExportSettings[] = []
  for (const [variable, text] of Object.entries(environment)) {
    // An empty variable is how many tools say "not set".
    if (!variable.startsWith(ENVIRONMENT_PREFIX) || text === undefined || text === '') continue
    const name = variables.get(variable)
    if (name !== undefined) collector.putText(name, text, () => `environment: ${variable}`)
    else if (variable === EXPORT) exports.push(...readExports(text, base, problems))
    else if (variable !== CONFIG && variable !== FAULT_POINT)
      warnings.push(`environment: ${variable} is not a setting and was ignored`)
  }
  return {
    settings: { ...collector.settings, ...(exports.length > 0 && { exports }) },
    file: environment[CONFIG] === '' ? undefined : environment[CONFIG],
    problems: [...collector.problems, ...problems],
    warnings,
  }
}

/** `NAME=PATH` as an export, or a phrase that says what is wrong with it. */
export function parseExportDeclaration(text: string, base: string): ExportSettings | { readonly problem: string } {
  const equals = text.indexOf('=')
  if (equals === -1) return { problem: `'${text}' is not of the form NAME=PATH` }
  const name = checkExportName(text.slice(0, equals))
  if (!name.ok) return { problem: `'${text}': the name ${name.problem}` }
  const path = pathFrom(base)(text.slice(equals + 1))
  return path.ok ? { name: name.value, path: path.value } : { problem: `'${text}': the path ${path.problem}` }
}

function readExports(text: string, base: string, problems: string[]): ExportSettings[] {
  const exports: ExportSettings[] = []
  for (const item of splitList(text)) {
    const declared = parseExportDeclaration(item, base)
    if ('problem' in declared) problems.push(`environment: ${EXPORT} ${declared.problem}`)
    else exports.push(declared)
  }
  return exports
}

function variableOf(key: string): string {
  return ENVIRONMENT_PREFIX + key.toUpperCase()
}
