/**
 * The program `interlockctl`: parses, runs one verb, says what went wrong, and leaves with the status that scripts
 * decide by. Results go to standard output, everything else to standard error.
 */

import { existsSync } from 'node:fs'
import { CommanderError } from 'commander'
import type { Command } from 'commander'
import { ControlProblem } from '../client/index.ts'
import type { PhaseCounts } from '../client/index.ts'
import { controlSocketPath, hostOfThisProcess, SYSTEM_CONTROL_SOCKET } from '../config/defaults.ts'
import { ControlActions } from './control-actions.ts'
import { buildProgram } from './control-program.ts'
import type { SharedOptions } from './control-program.ts'
import { EXIT, exitCodeOf } from './exit-code.ts'
import type { ExitCode } from './exit-code.ts'
import { outstandingLine, printable } from './presentation.ts'
import { programVersion } from './program-version.ts'
import { recordMoveVerb } from './record-move-verb.ts'
import { Terminal } from './terminal.ts'

async function main(): Promise<ExitCode> {
  const terminal = new Terminal(process.stdout, process.stderr)
  const interrupted = interruption()
  const program = buildProgram(programVersion(), (shared) => {
    const json = shared.output === 'json'
    // An empty variable is how many tools say "not set".
    const given = (shared.control ?? []).filter((url) => url !== '')
    const urls = given.length === 0 ? [defaultControlUrl()] : given
    return new ControlActions({ urls, json, terminal, workingDirectory: process.cwd(), interrupted })
  })
  recordMoveVerb(program, terminal)
  forEachCommand(program, (command) => command.exitOverride().allowExcessArguments(false))
  try {
    await program.parseAsync()
    return EXIT.done
  } catch (error) {
    // Commander has printed what it had to say.
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.usage
    const json = program.opts<SharedOptions>().output === 'json'
    terminal.message(json && error instanceof ControlProblem ? JSON.stringify(error.document) : messageOf(error))
    return exitCodeOf(error)
  }
}

/** A user's own daemon comes first, then the system's. */
function defaultControlUrl(): string {
  const path = controlSocketPath(hostOfThisProcess())
  return `unix:${path !== undefined && existsSync(path) ? path : SYSTEM_CONTROL_SOCKET}`
}

function messageOf(error: unknown): string {
  if (!(error instanceof ControlProblem))
    return `interlockctl: ${error instanceof Error ? error.message : String(error)}`
  const { outstanding } = error.document as { readonly outstanding?: PhaseCounts }
  const left = outstanding === undefined ? '' : `; left: ${outstandingLine(outstanding)}`
  return `interlockctl: ${error.code}: ${printable(error.message)}${left}`
}

/** Ends a `watch` in order: by Ctrl-C, or when whoever read our results has gone. */
function interruption(): AbortSignal {
  const controller = new AbortController()
  process.stdout.on('error', () => {
    controller.abort()
  })
  process.once('SIGINT', () => {
    controller.abort()
    // Whatever does not end by it ends as usual: by this signal.
    setTimeout(() => process.kill(process.pid, 'SIGINT'), 100).unref()
  })
  return controller.signal
}

function forEachCommand(command: Command, visit: (command: Command) => unknown): void {
  visit(command)
  for (const each of command.commands) forEachCommand(each, visit)
}

process.exitCode = await main()
