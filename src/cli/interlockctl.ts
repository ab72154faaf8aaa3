/**
 * The program `interlockctl`: parses, runs one verb, says what went wrong, and leaves with the status that scripts
 * decide by. Results go to standard output, everything else to standard error.
 */

import { existsSync } from 'node:fs'
import { CommanderError } from 'commander'
import type { Command } from 'commander'
import { ControlProblem } from '../client/index.ts'
import { controlSocketPath, hostOfThisProcess, SYSTEM_CONTROL_SOCKET } from '../config/defaults.ts'
import { Refusal } from '../foundation/refusal.ts'
import { ControlActions } from './control-actions.ts'
import { buildProgram } from './control-program.ts'
import type { SharedOptions } from './control-program.ts'
import { EXIT, exitCodeOf } from './exit-code.ts'
import type { ExitCode } from './exit-code.ts'
import { interruption } from './interruption.ts'
import { outstandingLine, printable } from './presentation.ts'
import { programVersion } from './program-version.ts'
import { recordMoveVerb } from './record-move-verb.ts'
import { recordVerbs } from './record-verbs.ts'
import { Terminal } from './terminal.ts'

async function main(): Promise<ExitCode> {
  const terminal = new Terminal(process.stdout, process.stderr)
  const interrupting = interruption()
  const surroundingsOf = (shared: SharedOptions) => {
    const json = shared.output === 'json'
    return { json, terminal, workingDirectory: process.cwd(), ...interrupting }
  }
  const program = buildProgram(programVersion(), (shared) => {
    // An empty variable is how many tools say "not set".
    const given = (shared.control ?? []).filter((url) => url !== '')
    const urls = given.length === 0 ? [defaultControlUrl()] : given
    return new ControlActions({ urls, ...surroundingsOf(shared) })
  })
  recordVerbs(program, surroundingsOf)
  recordMoveVerb(program, terminal)
  forEachCommand(program, (command) => command.exitOverride().allowExcessArguments(false))
  try {
    await program.parseAsync()
    return EXIT.done
  } catch (error) {
    // Commander has printed what it had to say.
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.usage
    const json = program.opts<SharedOptions>().output === 'json'
    terminal.message(json ? jsonOf(error) : messageOf(error))
    return exitCodeOf(error)
  }
}

/** A user's own daemon comes first, then the system's. */
function defaultControlUrl(): string {
  const path = controlSocketPath(hostOfThisProcess())
  return `unix:${path !== undefined && existsSync(path) ? path : SYSTEM_CONTROL_SOCKET}`
}

function jsonOf(error: unknown): string {
  if (error instanceof ControlProblem) return JSON.stringify(error.document)
  if (error instanceof Refusal) return JSON.stringify({ code: error.code, detail: error.message, ...error.members })
  return messageOf(error)
}

function messageOf(error: unknown): string {
  // One of our own: nobody was asked.
  if (error instanceof Refusal) return `interlockctl: ${error.code}: ${printable(error.message)}`
  if (!(error instanceof ControlProblem))
    return `interlockctl: ${error instanceof Error ? error.message : String(error)}`
  const { document } = error
  const outstanding = document.code === 'still-draining' ? document.outstanding : undefined
  const left = outstanding === undefined ? '' : `; left: ${outstandingLine(outstanding)}`
  return `interlockctl: ${error.code}: ${printable(error.message)}${left}`
}

function forEachCommand(command: Command, visit: (command: Command) => unknown): void {
  visit(command)
  for (const each of command.commands) forEachCommand(each, visit)
}

process.exitCode = await main()
