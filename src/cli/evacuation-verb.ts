/** `evacuate` on the command line: its options, and what it is for. What it does is in evacuation.ts. */

import { InvalidArgumentError, Option } from 'commander'
import type { Command } from 'commander'
import { parseDurationMs } from '../config/quantity.ts'
import type { ControlActions } from './control-actions.ts'

export interface EvacuationFlags {
  readonly early?: true
  readonly parallel?: number
  readonly unsubmitted?: 'drain' | 'abort'
  readonly requests?: 'park' | 'refuse'
  readonly timeout?: number
}

const HELP = `
Several daemons are emptied at once: --control may be given more than once. What cannot close is named, and keeps nothing
else from closing; run it again for what is left: exports that are closed answer the receipt that they gave before.
Exit status: 0 only if every export is closed (or, with --early, handed over); 4 if what is left still drains; 3 if an
export cannot be closed in its state; 1 if one has failed; 5 if a daemon does not answer. The gravest of them counts.`

export function evacuationVerb(program: Command, actions: () => ControlActions): void {
  program
    .command('evacuate')
    .description('close every export of a daemon, or of several, and report')
    .option('--early', 'hand over before slow writes are done, where that is possible')
    .addOption(new Option('--parallel <count>', 'closes at once, for each daemon; default: all').argParser(wholeNumber))
    .addOption(new Option('--unsubmitted <what>', 'what the kernel does not have yet').choices(['drain', 'abort']))
    .addOption(new Option('--requests <what>', 'what arrives from now on').choices(['park', 'refuse']))
    .addOption(new Option('--timeout <duration>', 'how long to wait; the closes go on').argParser(duration))
    .addHelpText('after', HELP)
    .action(async (flags: EvacuationFlags) => actions().evacuate(flags))
}

function wholeNumber(text: string): number {
  if (/^[1-9]\d{0,5}$/.test(text)) return Number(text)
  throw new InvalidArgumentError('It must be a whole number, at least 1.')
}

function duration(text: string): number {
  const durationMs = parseDurationMs(text)
  if (durationMs !== undefined) return durationMs
  throw new InvalidArgumentError('It must be a duration such as "30s" or "500ms".')
}
