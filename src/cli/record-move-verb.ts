/**
 * `interlockctl record move`: the records of images that are closed, taken to the home that another configuration names.
 * No daemon is asked and none has to run; one that still has the old configuration opens nothing afterwards.
 */

import { resolve } from 'node:path'
import type { Command } from 'commander'
import { REFUSALS } from '../foundation/refusal.ts'
import type { SharedOptions } from './control-program.ts'
import { EXIT, ExitStatus } from './exit-code.ts'
import { imageId } from './option-values.ts'
import { printable } from './presentation.ts'
import type { Terminal } from './terminal.ts'

interface MoveFlags {
  readonly from: string
  readonly to: string
  readonly imageId?: string
}

const HELP = `
Both files are configurations of interlockd; without PATH the records of all exports of the second one are moved. Close
the exports first: a record that is not closed is not moved. Asked again it finishes what was interrupted.
Exit status: 0 all are moved, 3 refused, 1 failed.`

export function recordMoveVerb(program: Command, terminal: Terminal): void {
  const record =
    program.commands.find((command) => command.name() === 'record') ??
    program.command('record').description("an image's ownership record, without a daemon")
  record
    .command('move')
    .description('take closed records from the home that one configuration names to that of another')
    .argument('[path...]', 'images')
    .requiredOption('--from <file>', 'the configuration by which the records are found')
    .requiredOption('--to <file>', 'the configuration by which they are to be found')
    .option('--image-id <id>', 'where no export of the configurations is the image', imageId)
    .addHelpText('after', HELP)
    .action(async (paths: readonly string[], flags: MoveFlags) => move(paths, flags, program.opts(), terminal))
}

async function move(
  paths: readonly string[],
  { from, to, imageId: id }: MoveFlags,
  { output }: SharedOptions,
  terminal: Terminal,
): Promise<void> {
  const { moveRecords } = await import('../record-move.ts')
  const absolute = paths.map((path) => resolve(path))
  const results = await moveRecords({ paths: absolute, from, to, imageId: id ?? null })
  if (output === 'json') terminal.result(JSON.stringify(results, null, 2))
  const refused = results.filter((result) => result.kind === 'refused')
  for (const result of results) {
    if (result.kind === 'refused') {
      terminal.message(`${result.path}: ${result.code}: ${printable(result.detail)}`)
    } else if (output === 'text') {
      const what = result.moved ? 'moved' : 'was there already'
      terminal.result(`${result.path}: generation ${result.generation}, ${what}: ${printable(result.to)}`)
    }
  }
  if (refused.length === 0) return
  const conflict = refused.every(({ code }) => REFUSALS[code].status === 409)
  throw new ExitStatus(conflict ? EXIT.refused : EXIT.failed, `${refused.length} of ${results.length} were not moved`)
}
