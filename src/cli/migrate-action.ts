/**
 * `interlockctl migrate-qemu`: one live migration, told step by step to whoever watches, with its ending and the guest's
 * downtime as the result. Ctrl-C or SIGTERM cancels it, which leads back to the source as long as the guest does not run
 * at the destination; the same command run again goes on from where an earlier one was lost.
 */

import { formatDurationMs } from '../config/quantity.ts'
import { isEndpoint, parseEndpoint } from '../foundation/endpoint.ts'
import type { Endpoint } from '../foundation/endpoint.ts'
import { migrateQemu } from '../handover/index.ts'
import type { Downtime, MigrationEnding, MigrationPlan } from '../handover/index.ts'
import { EXIT, ExitStatus, UsageError } from './exit-code.ts'
import { clientOf } from './handover-action.ts'
import type { HandoverSurroundings } from './handover-action.ts'
import { printable } from './presentation.ts'

export interface MigrateFlags {
  readonly disk: readonly string[]
  readonly from: string
  readonly to: string
  readonly sourceQmp: string
  readonly destinationQmp: string
  readonly uri: string
  readonly early?: true
  readonly timeout?: number
  readonly copyTimeout?: number
  readonly patience?: number
  readonly sameImage?: true
  readonly allowUnsafe?: readonly string[]
}

export async function runMigration(surroundings: HandoverSurroundings, flags: MigrateFlags): Promise<void> {
  const { json, terminal } = surroundings
  const plan = planOf(flags)
  surroundings.endInOrder()
  const result = await migrateQemu({
    ...plan,
    signal: surroundings.interrupted,
    onStep: ({ step, atMs }) => {
      terminal.message(`${step} after ${formatDurationMs(atMs)}`)
    },
  })
  const text = (): string => endingLines(result.ending).map(printable).join('\n')
  terminal.result(json ? JSON.stringify(result, null, 2) : text())
  judge(result.ending)
}

function planOf(flags: MigrateFlags): MigrationPlan {
  const { early, timeout: timeoutMs, patience: patienceMs, sameImage, allowUnsafe } = flags
  if (new Set(flags.disk).size < flags.disk.length) throw new UsageError('--disk names the same export twice')
  const source = clientOf('--from', flags.from)
  const destination = clientOf('--to', flags.to)
  return {
    disks: flags.disk.map((name) => ({ name, source, destination })),
    sourceMonitor: monitorOf('--source-qmp', flags.sourceQmp),
    destinationMonitor: monitorOf('--destination-qmp', flags.destinationQmp),
    uri: flags.uri,
    copyTimeoutMs: flags.copyTimeout ?? null,
    terms: {
      ...(early && { early }),
      ...(timeoutMs !== undefined && { timeoutMs }),
      ...(patienceMs !== undefined && { patienceMs }),
      ...(sameImage && { sameImage }),
      ...(allowUnsafe && { allowUnsafe }),
    },
  }
}

function monitorOf(flag: string, url: string): Endpoint {
  const endpoint = parseEndpoint(url)
  if (isEndpoint(endpoint)) return endpoint
  throw new UsageError(`${flag} ${endpoint.problem}`)
}

function judge(ending: MigrationEnding): void {
  switch (ending.kind) {
    case 'migrated':
      return
    case 'broughtBack': {
      const late = ending.failure.code === 'timed-out'
      throw new ExitStatus(late ? EXIT.stillDraining : EXIT.failed, 'brought back')
    }
    case 'unchanged': {
      const silent = ending.failure.code === 'unreachable' || ending.failure.code === 'qemu-lost'
      throw new ExitStatus(silent ? EXIT.unreachable : EXIT.refused, 'nothing was changed')
    }
    case 'unclear':
      throw new ExitStatus(EXIT.failed, 'unclear: a person has to decide')
  }
}

function endingLines(ending: MigrationEnding): string[] {
  switch (ending.kind) {
    case 'migrated':
      return [
        ending.already ? 'the guest runs at the destination already' : 'the guest runs at the destination',
        ...(ending.downtime === null ? [] : [downtimeLine(ending.downtime)]),
        ...indented(ending.notes),
      ]
    case 'broughtBack':
      return [
        'the guest was brought back: it runs at the source, and its disks are open there',
        ...indented([`${ending.failure.step} failed: ${ending.failure.message}`, ...ending.notes]),
      ]
    case 'unchanged':
      return [
        `nothing was changed${ending.guestAt === null ? '' : ': the guest runs at the source'}`,
        ...indented([ending.failure.message, ...ending.advice]),
      ]
    case 'unclear':
      return [
        `it is not known where the guest is to run. ${ending.failure.step} failed: ${ending.failure.message}`,
        ...indented(ending.known),
        'What to do:',
        ...indented(ending.advice),
      ]
  }
}

function downtimeLine({ totalMs, diskMs, settleMs, waitMs, handoverMs }: Downtime): string {
  const [total, disk, settle, wait, handover] = [totalMs, diskMs, settleMs, waitMs, handoverMs].map(formatDurationMs)
  return (
    `it stood still for ${String(total)}, of that for its disks ${String(disk)}: ${String(settle)} for its own requests,` +
    ` ${String(wait)} for the handover (which took ${String(handover)} beside the copy of its memory)`
  )
}

function indented(lines: readonly string[]): string[] {
  return lines.map((line) => `  ${line}`)
}
