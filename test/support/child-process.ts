/**
 * Programs that one test starts and that are gone, by their own pid, when it is over. Built on foreign-program.ts, which
 * is for rigs that several tests share. Nothing here is a shell: arguments arrive as they are.
 */

import { startProgram } from './foreign-program.ts'
import type { Program, ProgramOptions } from './foreign-program.ts'
import { scratchOfTest } from './temporary-directory.ts'

/** Starts a program; it is killed after the running test at the latest. */
export function spawnProgram(command: string, commandArguments: readonly string[], options?: ProgramOptions): Program {
  return startProgram(scratchOfTest(), command, commandArguments, options)
}

/** Starts a script with the Node that runs the tests. */
export function spawnNode(script: string, scriptArguments: readonly string[], options?: ProgramOptions): Program {
  return spawnProgram(process.execPath, [script, ...scriptArguments], options)
}

/** The first line, of either output, that matches. Rejects when the program ends before or the time is over. */
export function waitForLine(program: Program, pattern: RegExp, timeoutMs = 10_000): Promise<string> {
  return program.until(`line matching ${String(pattern)}`, timeoutMs, () => {
    const lines = `${program.stdout}\n${program.stderr}`.split('\n')
    return lines.find((line) => pattern.test(line))
  })
}
