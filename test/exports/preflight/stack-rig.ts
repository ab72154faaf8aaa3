/**
 * What the preflight's tests on this machine share: a preflight that asks on the very thread of the test, and loop
 * devices that are gone with the scratch.
 */

import { perform } from '../../../src/blocking/calls.ts'
import type { BlockingCall, BlockingResultOf, BlockingRunner } from '../../../src/blocking/calls.ts'
import { Preflight } from '../../../src/exports/preflight/preflight.ts'
import type { StackReport } from '../../../src/exports/verbs.ts'
import { runChecked, runProgram } from '../../support/foreign-program.ts'
import type { Scratch } from '../../support/scratch.ts'

export const inline: BlockingRunner = {
  run: <C extends BlockingCall>(call: C) => Promise.resolve(perform(call) as BlockingResultOf<C['kind']>),
}

export function look(path: string): Promise<StackReport> {
  return new Preflight(inline).check(path, { users: true, timeoutMs: 5_000 })
}

export async function attachLoop(scratch: Scratch, path: string, ...options: string[]): Promise<string> {
  const { stdout } = await runChecked('losetup', ['--find', '--show', ...options, path])
  const device = stdout.trim()
  scratch.defer(`loop device ${device}`, async () => {
    await runProgram('losetup', ['--detach', device])
  })
  return device
}

/** `file`, `ext4`, `device`: from the image down. */
export function kinds({ layers }: StackReport): string[] {
  return layers.map(({ kind, facts }) => (kind === 'fileSystem' ? String(facts['type']) : kind))
}
