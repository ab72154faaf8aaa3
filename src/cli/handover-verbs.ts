/** The verb of the command line that moves an export from one daemon to another; what it does is in handover-action.ts. */

import type { Command } from 'commander'
import { Option } from 'commander'
import type { ControlActions } from './control-actions.ts'
import type { HandoverFlags } from './handover-action.ts'
import { allowUnsafe, duration, exportName } from './option-values.ts'

const HANDOVER_HELP = `
Whatever fails, it ends with one end having the image open, and says which; or it says what to do. Run again after a
crash it goes on. Exit status: 0 handed over, or so already; 1 brought back, or unclear; 3 refused, nothing was changed;
4 the time ran out, brought back; 5 an end does not answer, nothing was changed. docs/orchestrating.md has the rest.`

export function handoverVerb(program: Command, actions: () => ControlActions): void {
  program
    .command('handover')
    .description('close at one daemon, open at another, and the way back if that fails')
    .argument('<name>', 'the export, of the same name at both', exportName)
    .requiredOption('--from <url>', 'the daemon that has it open')
    .requiredOption('--to <url>', 'the daemon that is to have it open')
    .option('--early', 'the destination opens while slow writes still run at the source')
    .addOption(new Option('--unsubmitted <what>', 'what the kernel does not have yet').choices(['drain', 'abort']))
    .addOption(new Option('--requests <what>', 'what arrives meanwhile').choices(['park', 'refuse']))
    .addOption(
      new Option('--timeout <duration>', 'how long it may take until it is taken back (60s)').argParser(duration),
    )
    .addOption(
      new Option('--patience <duration>', 'how long a daemon that does not answer is asked again (10s)').argParser(
        duration,
      ),
    )
    .option('--same-image', 'you know that both ends mean one image, where no shared record proves it')
    .addOption(allowUnsafe())
    .option('--dry-run', 'only look, and say what would be done')
    .addOption(
      new Option(
        '--timeline <file>',
        'what happened when: FILE.svg as a picture, else JSON; may be repeated',
      ).argParser((path: string, before: readonly string[] | undefined) => [...(before ?? []), path]),
    )
    .addHelpText('after', HANDOVER_HELP)
    .action(async (name: string, flags: HandoverFlags) => actions().handover(name, flags))
}
