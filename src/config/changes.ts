/**
 * What differs between the configuration that is in force and one that was read again: what a running daemon can take
 * over (exports that come and go, the fence, the log's level), and what counts from the next start only. It only compares;
 * whether an export can go is for the export to say.
 */

import { isDeepStrictEqual } from 'node:util'
import type { ExportDefinition } from '../exports/verbs.ts'
import type { Configuration, FencingConfiguration, LogLevel } from './configuration.ts'

export interface ConfigurationChanges {
  /** Null where it is the same. */
  readonly logLevel: LogLevel | null
  readonly fencing: FencingConfiguration | null
  readonly added: readonly ExportDefinition[]
  /** By name. */
  readonly removed: readonly string[]
  /** Exports that are in both, with the keys, as in the file, in which they differ. */
  readonly altered: readonly { readonly name: string; readonly keys: readonly string[] }[]
  /** Keys of the file that a running daemon does not take over. */
  readonly fromNextStart: readonly string[]
}

const FROM_NEXT_START = ['stateDirectory', 'engine', 'workers', 'listen', 'control', 'ownership', 'limits'] as const

export function configurationChanges(inForce: Configuration, readAgain: Configuration): ConfigurationChanges {
  const known = new Map(inForce.exports.map((definition) => [definition.name, definition]))
  const wanted = new Map(readAgain.exports.map((definition) => [definition.name, definition]))
  const both = readAgain.exports.filter(({ name }) => known.has(name))
  return {
    logLevel: inForce.log.level === readAgain.log.level ? null : readAgain.log.level,
    fencing: isDeepStrictEqual(inForce.fencing, readAgain.fencing) ? null : readAgain.fencing,
    added: readAgain.exports.filter(({ name }) => !known.has(name)),
    removed: inForce.exports.map(({ name }) => name).filter((name) => !wanted.has(name)),
    altered: both
      .map((definition) => ({ name: definition.name, keys: differingKeys(known.get(definition.name), definition) }))
      .filter(({ keys }) => keys.length > 0),
    fromNextStart: [
      ...FROM_NEXT_START.filter((key) => !isDeepStrictEqual(inForce[key], readAgain[key])).map(keyInFile),
      ...(inForce.log.format === readAgain.log.format ? [] : ['log_format']),
    ],
  }
}

function differingKeys(one: ExportDefinition | undefined, other: ExportDefinition): readonly string[] {
  const members = new Set([...Object.keys(one ?? {}), ...Object.keys(other)]) as Set<keyof ExportDefinition>
  return [...members].filter((key) => !isDeepStrictEqual(one?.[key], other[key])).map(keyInFile)
}

/** Snake case, where programs have camel case. */
function keyInFile(name: string): string {
  return name.replace(/[A-Z]/gu, (letter) => `_${letter.toLowerCase()}`)
}
