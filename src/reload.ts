/**
 * A configuration that was read again, taken over by a daemon that runs: what can change does, and everything else is
 * named. An export that is open stays, whatever the file says; so does the definition of one that is served. Nothing that
 * was said on a command line or by the control API is undone.
 */

import type { Configuration } from './config/configuration.ts'
import { configurationChanges } from './config/changes.ts'
import type { ConfigurationChanges } from './config/changes.ts'
import type { ExportRegistry } from './exports/registry.ts'
import type { ExportDefinition } from './exports/verbs.ts'
import { Refusal } from './foundation/refusal.ts'

export interface ReloadOutcome {
  /** One sentence for each change. */
  readonly applied: readonly string[]
  readonly notApplied: readonly string[]
}

export interface ReloadParts {
  readonly registry: Pick<ExportRegistry, 'addAtStart' | 'remove'>
  readonly setLogLevel: (level: Configuration['log']['level']) => void
  readonly setFencing: (fencing: Configuration['fencing']) => void
  readonly lockTimeoutMs: number
}

/** What is in force afterwards comes with it: that is what the next reading is compared with. */
export async function reload(
  inForce: Configuration,
  readAgain: Configuration,
  parts: ReloadParts,
): Promise<ReloadOutcome & { readonly inForce: Configuration }> {
  const changes = configurationChanges(inForce, readAgain)
  const outcome: Said = { applied: [], notApplied: [] }
  const { logLevel, fencing } = changes
  if (logLevel !== null) {
    parts.setLogLevel(logLevel)
    outcome.applied.push(`log_level is ${logLevel}, and was ${inForce.log.level}`)
  }
  if (fencing !== null) {
    parts.setFencing(fencing)
    outcome.applied.push('[fence] is as the file says')
  }
  const exports = await changedExports(inForce.exports, changes, parts, outcome)
  outcome.notApplied.push(...changes.fromNextStart.map((key) => `${key} counts from the next start`))
  return {
    ...outcome,
    inForce: {
      ...inForce,
      exports,
      log: { ...inForce.log, level: readAgain.log.level },
      fencing: readAgain.fencing,
    },
  }
}

interface Said extends ReloadOutcome {
  readonly applied: string[]
  readonly notApplied: string[]
}

async function changedExports(
  declared: readonly ExportDefinition[],
  { added, removed, altered }: ConfigurationChanges,
  { registry, lockTimeoutMs }: ReloadParts,
  { applied, notApplied }: Said,
): Promise<readonly ExportDefinition[]> {
  const gone = new Set<string>()
  for (const name of removed) {
    const refusal = await refusalOf(registry.remove(name))
    if (refusal === null || refusal.code === 'export-unknown') {
      gone.add(name)
      applied.push(`export '${name}' is removed`)
    } else notApplied.push(`export '${name}' stays: ${refusal.message}`)
  }
  const come: ExportDefinition[] = []
  for (const definition of added) {
    // An export that is there and waits is added; what keeps it waiting is told by its status.
    const refusal = await refusalOf(registry.addAtStart(definition, lockTimeoutMs))
    if (refusal?.code === 'export-exists') {
      notApplied.push(`export '${definition.name}' is not added: ${refusal.message}`)
      continue
    }
    come.push(definition)
    applied.push(`export '${definition.name}' is added${refusal === null ? '' : `, and waits: ${refusal.message}`}`)
  }
  for (const { name, keys } of altered) {
    notApplied.push(`export '${name}' stays as it was: ${keys.join(', ')} count once it is removed and added again`)
  }
  return [...declared.filter(({ name }) => !gone.has(name)), ...come]
}

/** Whether it was thrown or answered. */
async function refusalOf(outcome: Promise<unknown>): Promise<Refusal | null> {
  try {
    const answer = await outcome
    return answer instanceof Refusal ? answer : null
  } catch (error) {
    if (error instanceof Refusal) return error
    throw error
  }
}
