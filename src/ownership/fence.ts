/**
 * Makes certain that a host cannot write any more, by a command of the operator that follows the convention of the fence
 * agents: options on standard input, one `name=value` to a line, `action=off` and `plug=` among them; exit status 0 means
 * fenced, anything else means nothing is known. It decides nothing and records nothing; its report is evidence.
 */

import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { Refusal } from '../foundation/refusal.ts'
import type { FenceReport } from '../interlock/receipt.ts'
import type { RecordHolder } from './home.ts'

export interface FenceSettings {
  /** Program and arguments. Null: there is none. */
  readonly command: readonly string[] | null
  readonly timeoutMs: number
  readonly options: Readonly<Record<string, string>>
  /** By a host's identity or name. */
  readonly plugs: Readonly<Record<string, string>>
}

/** Of what the command says, this much of its end is kept. */
const OUTPUT_LENGTH_MAX = 2048
/** Exit status of a command that did not end by itself: what a shell says of SIGKILL. */
const KILLED = 137
const NOT_STARTED = 127

/** Whoever fences: it must not be what is switched off. */
export type Fencer = Pick<RecordHolder, 'host' | 'name'>

/** Refuses where there is nothing to fence that holder with; asked before anything is recorded. */
export function fenceProblem(settings: FenceSettings, holder: RecordHolder, self: Fencer): Refusal | null {
  const { name, host } = holder
  if (settings.command === null) {
    return new Refusal('takeover-failed', `${name} (${host}) cannot be fenced: no [fence] command is configured`)
  }
  if (host === self.host && name === self.name) {
    return new Refusal(
      'takeover-failed',
      `${name} (${host}) is this host by name and identity, at an earlier boot or with another state directory: a fence ` +
        'would switch off this host. Take over from another host; or say that a reboot is proof: reboot_is_proof = true',
    )
  }
  if (plugOf(settings, holder, self) === undefined) {
    return new Refusal(
      'takeover-failed',
      `${name} (${host}) cannot be fenced: [fence.plugs] has neither "${name}" nor "${host}"`,
    )
  }
  return null
}

/** Runs the command to its end, or kills it when its time is over. Rejects only as `fenceProblem` says. */
export async function fenceHost(settings: FenceSettings, holder: RecordHolder, self: Fencer): Promise<FenceReport> {
  const problem = fenceProblem(settings, holder, self)
  if (problem !== null) throw problem
  const [program = '', ...programArguments] = settings.command ?? []
  const plug = plugOf(settings, holder, self) ?? ''
  const command = [program, ...programArguments].join(' ')
  // A group of its own, so that what it starts is killed with it.
  const child = spawn(program, programArguments, { stdio: ['pipe', 'pipe', 'pipe'], detached: true })
  const { exitStatus, output } = await outcomeOf(child, inputFor(settings, plug), settings.timeoutMs)
  return { command, plug, exitStatus, output: printable(output).slice(-OUTPUT_LENGTH_MAX) }
}

/** Of a machine that was cloned together with its identity only the name tells which one it is. */
function plugOf({ plugs }: FenceSettings, { host, name }: RecordHolder, self: Fencer): string | undefined {
  if (host !== self.host && Object.hasOwn(plugs, host)) return plugs[host]
  return Object.hasOwn(plugs, name) ? plugs[name] : undefined
}

function inputFor({ options }: FenceSettings, plug: string): string {
  const lines = Object.entries({ ...options, action: 'off', plug }).map(([name, value]) => `${name}=${value}\n`)
  return lines.join('')
}

function outcomeOf(
  child: ChildProcess,
  input: string,
  timeoutMs: number,
): Promise<{ readonly exitStatus: number; readonly output: string }> {
  return new Promise((resolve) => {
    let output = ''
    const heard = (text: string): void => {
      output = (output + text).slice(-OUTPUT_LENGTH_MAX)
    }
    const timer = setTimeout(() => {
      heard(`\nkilled: it did not end within ${timeoutMs} ms\n`)
      killGroup(child)
      settle(KILLED)
    }, timeoutMs)
    const settle = (exitStatus: number): void => {
      clearTimeout(timer)
      resolve({ exitStatus, output })
    }
    child.stdout?.setEncoding('utf8').on('data', heard)
    child.stderr?.setEncoding('utf8').on('data', heard)
    child.once('error', (error) => {
      heard(`${error.message}\n`)
      settle(NOT_STARTED)
    })
    child.once('close', (code) => {
      settle(code ?? KILLED)
    })
    // A command that does not read its options says by its status what it makes of that.
    child.stdin?.on('error', () => undefined).end(input)
  })
}

function killGroup({ pid }: ChildProcess): void {
  if (pid === undefined) return
  try {
    process.kill(-pid, 'SIGKILL')
  } catch {
    // It has just ended.
  }
}

/** For a record and a terminal: lines stay lines, everything else that controls is shown as a dot. */
function printable(text: string): string {
  return text.replace(/[^\P{Cc}\n]/gu, '·')
}
