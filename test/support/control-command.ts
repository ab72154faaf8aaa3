/** Runs the real programs of dist/, `interlockctl` mostly against a control server of the test. */

import { fileURLToPath } from 'node:url'
import { spawnNode } from './child-process.ts'
import type { ControlRig } from './control-rig.ts'
import type { Outcome, Program, ProgramOptions } from './foreign-program.ts'

export const INTERLOCKCTL = fileURLToPath(new URL('../../bin/interlockctl.cjs', import.meta.url))
export const INTERLOCKD = fileURLToPath(new URL('../../bin/interlockd.cjs', import.meta.url))

export function startControl(
  rig: Pick<ControlRig, 'url'>,
  argv: readonly string[],
  options: ProgramOptions = {},
): Program {
  const environment = { INTERLOCK_CONTROL: rig.url, ...options.environment }
  return spawnNode(INTERLOCKCTL, argv, { ...options, environment })
}

export async function runControl(
  rig: Pick<ControlRig, 'url'>,
  argv: readonly string[],
  options?: ProgramOptions,
): Promise<Outcome> {
  return startControl(rig, argv, options).exited
}

/** Without an environment that says where anything is. */
export async function runProgram(script: string, argv: readonly string[], options?: ProgramOptions): Promise<Outcome> {
  return spawnNode(script, argv, options).exited
}
