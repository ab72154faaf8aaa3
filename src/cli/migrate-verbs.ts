/** The verb of the command line that moves a running guest with its disks; what it does is in migrate-action.ts. */

import type { Command } from 'commander'
import { Option } from 'commander'
import type { ControlActions } from './control-actions.ts'
import type { MigrateFlags } from './migrate-action.ts'
import { allowUnsafe, duration, exportName } from './option-values.ts'

const MIGRATE_HELP = `
The destination's QEMU was started with -incoming and -S, its disks at the destination's daemon, in standby. Whatever
fails before the guest runs there, and Ctrl-C, bring it back to the source. Run again after a crash it goes on. Exit
status: 0 migrated, or so already; 1 brought back, or unclear; 3 refused, nothing was changed; 4 the time ran out, brought
back; 5 something does not answer, nothing was changed. docs/qemu.md has the rest.`

export function migrateVerb(program: Command, actions: () => ControlActions): void {
  program
    .command('migrate-qemu')
    .description('move a running guest between two QEMUs, and its disks between two daemons')
    .addOption(
      new Option('--disk <name>', 'an export of the guest, of the same name at both daemons; may be repeated')
        .argParser(names)
        .makeOptionMandatory(),
    )
    .requiredOption('--from <url>', 'the daemon that has the disks open')
    .requiredOption('--to <url>', 'the daemon that is to have them open')
    .requiredOption('--source-qmp <url>', "the source QEMU's monitor: unix:/path.sock or tcp:HOST:PORT")
    .requiredOption('--destination-qmp <url>', "the destination QEMU's monitor")
    .requiredOption('--uri <uri>', "where the source's QEMU reaches the destination's, as in its -incoming")
    .option('--early', 'the destination opens while slow writes still run at the source')
    .addOption(
      new Option('--timeout <duration>', 'how long the guest may stand still until it is brought back (60s)').argParser(
        duration,
      ),
    )
    .addOption(
      new Option('--copy-timeout <duration>', 'how long its memory may be copied before that').argParser(duration),
    )
    .addOption(
      new Option('--patience <duration>', 'how long a daemon that does not answer is asked again (10s)').argParser(
        duration,
      ),
    )
    .option('--same-image', 'you know that both daemons mean the same images, where no shared record proves it')
    .addOption(allowUnsafe())
    .addHelpText('after', MIGRATE_HELP)
    .action(async (flags: MigrateFlags) => actions().migrateQemu(flags))
}

function names(text: string, before: readonly string[] | undefined): readonly string[] {
  return [...(before ?? []), exportName(text)]
}
