/**
 * `interlockctl check`: asks for a report again and again until nothing is missing in it or the time is over, and says
 * every second what it waits for. It asks the daemon, or this process itself.
 */

import type { ControlClient, StackReport } from '../client/index.ts'
import type { CheckFlags } from './control-program.ts'

const ROUND_MS = 900

export async function checkedStack(
  client: ControlClient,
  path: string,
  flags: CheckFlags,
  say: (text: string) => void,
): Promise<StackReport> {
  const source = flags.local === true ? await localSource() : daemonSource(client)
  const beganMs = performance.now()
  const leftMs = (): number => (flags.timeout ?? 0) - (performance.now() - beganMs)
  try {
    let report = await source.check(path, roundMs(leftMs()))
    while (report.waitingFor !== null && leftMs() > 0) {
      say(`waiting for ${report.waitingFor} (${Math.round((performance.now() - beganMs) / 1000)} s)`)
      report = await source.check(path, roundMs(leftMs()))
    }
    return report
  } finally {
    source.close()
  }
}

interface Source {
  check(path: string, timeoutMs: number): Promise<StackReport>
  close(): void
}

function daemonSource(client: ControlClient): Source {
  return { check: (path, timeoutMs) => client.check(path, { timeoutMs }), close: () => undefined }
}

/** Loaded only when it is asked for: a daemon is asked without it. */
async function localSource(): Promise<Source> {
  const { localCheck } = await import('../local-check.ts')
  return await localCheck()
}

function roundMs(leftMs: number): number {
  return Math.round(Math.max(1, Math.min(ROUND_MS, leftMs)))
}
