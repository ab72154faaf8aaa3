/**
 * Emptying several daemons at once: each is asked by itself, one live view shows all of them, and one report at the end
 * names what is not closed and why. A daemon that does not answer keeps nobody from being emptied.
 */

import { ControlProblem, evacuationReportOf } from '../client/index.ts'
import type { ControlClient, EvacuationOptions, EvacuationReport } from '../client/index.ts'
import { formatEndpoint } from '../foundation/endpoint.ts'
import { EvacuationProgress } from './evacuation-progress.ts'
import type { EvacuationFlags } from './evacuation-verb.ts'
import { EXIT, ExitStatus, exitCodeOf } from './exit-code.ts'
import type { ExitCode } from './exit-code.ts'
import type { Terminal } from './terminal.ts'

/** What one daemon answered. `failure` is null where every export has gone. */
export interface DaemonEvacuation {
  readonly control: string
  readonly report: EvacuationReport | null
  readonly failure: string | null
  readonly exitCode: ExitCode
}

/** The gravest first. */
const BY_GRAVITY: readonly ExitCode[] = [
  EXIT.unreachable,
  EXIT.failed,
  EXIT.usage,
  EXIT.refused,
  EXIT.stillDraining,
  EXIT.done,
]

export async function evacuateAll(
  clients: readonly ControlClient[],
  flags: EvacuationFlags,
  terminal: Terminal,
): Promise<readonly DaemonEvacuation[]> {
  const progress = new EvacuationProgress(clients, terminal)
  try {
    return await Promise.all(clients.map((client) => evacuateOne(client, flags)))
  } finally {
    await progress.end()
  }
}

/** What the exit status says of all daemons together; null where all is done. */
export function failureOf(evacuations: readonly DaemonEvacuation[]): ExitStatus | null {
  const codes = evacuations.map(({ exitCode }) => exitCode)
  const gravest = BY_GRAVITY.find((code) => codes.includes(code)) ?? EXIT.failed
  if (gravest === EXIT.done) return null
  const sentences = evacuations.flatMap(({ control, failure }) => (failure === null ? [] : [`${control}: ${failure}`]))
  return new ExitStatus(gravest, sentences.join('\n'))
}

async function evacuateOne(client: ControlClient, flags: EvacuationFlags): Promise<DaemonEvacuation> {
  const control = formatEndpoint(client.endpoint)
  const { early, parallel, unsubmitted, requests, timeout } = flags
  const options: Partial<EvacuationOptions> = {
    ...(early !== undefined && { early }),
    ...(parallel !== undefined && { parallel }),
    ...(unsubmitted !== undefined && { unsubmitted }),
    ...(requests !== undefined && { requests }),
    ...(timeout !== undefined && { timeoutMs: timeout }),
  }
  try {
    return { control, report: await client.evacuate(options), failure: null, exitCode: EXIT.done }
  } catch (error) {
    const report = evacuationReportOf(error)
    const failure = error instanceof Error ? error.message : String(error)
    return { control, report, failure, exitCode: report === null ? exitCodeOf(error) : exitCodeOfReport(report, error) }
  }
}

/** A close that has failed is graver than one that was refused. */
function exitCodeOfReport(report: EvacuationReport, error: unknown): ExitCode {
  const failures: readonly string[] = [
    'sync-failed',
    'worker-died',
    'export-fenced',
    'image-io',
    'record-io',
    'internal',
  ]
  const failed = report.exports.some(({ problem }) => problem !== null && failures.includes(problem.code))
  return failed || !(error instanceof ControlProblem) ? EXIT.failed : exitCodeOf(error)
}
