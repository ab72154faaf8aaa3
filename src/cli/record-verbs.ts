/**
 * `interlockctl record show|repair`: the ownership record of an image, looked at and repaired where it lies: beside the
 * image, or where a configuration says. No daemon is
 * asked and none has to run; one that does run notices what was written, as it notices other hosts.
 */

import { resolve } from 'node:path'
import type { Command } from 'commander'
import type { LocalRecord } from '../local-record.ts'
import type { ActionSurroundings } from './control-actions.ts'
import type { SharedOptions } from './control-program.ts'
import { imageId } from './option-values.ts'
import { planDetails, recordDetails, repairedDetails, shownRecords } from './record-presentation.ts'

interface PlaceFlags {
  readonly config?: string
  readonly imageId?: string
}

interface RepairFlags extends PlaceFlags {
  readonly nobodyWrites?: true
  readonly dryRun?: true
}

const REPAIR_HELP = `
Nothing is removed. Where one record is lost and the one before it had a holder, the new one keeps that holder, and
opening needs the ordinary proof. Where anybody could have opened, --nobody-writes is needed: look on every host first.`

export function recordVerbs(
  program: Command,
  surroundingsOf: (shared: SharedOptions) => Omit<ActionSurroundings, 'urls'>,
): void {
  const record = program.command('record').description("an image's ownership record, without a daemon")
  const verb = (name: string, description: string): Command =>
    record
      .command(name)
      .description(description)
      .argument('<path>', 'an image with its record beside it, or the folder of a record')
      .option(
        '--config <file>',
        'a configuration of interlockd: the record is where its [ownership] says, also in etcd',
      )
      .option('--image-id <id>', 'with --config, where none of its exports is the image', imageId)
  verb('show', 'every record that is left, whether it is valid, and the newest in full').action(
    async (path: string, flags: PlaceFlags) => show(path, flags, surroundingsOf(program.opts())),
  )
  verb('repair', 'write a good record on top of a newest one that cannot be understood')
    .option('--nobody-writes', 'your word that no host has the image open or writes under way')
    .option('--dry-run', 'only say what would be written')
    .addHelpText('after', REPAIR_HELP)
    .action(async (path: string, flags: RepairFlags) => repair(path, flags, surroundingsOf(program.opts())))
}

async function show(path: string, flags: PlaceFlags, surroundings: Omit<ActionSurroundings, 'urls'>): Promise<void> {
  const { terminal, json } = surroundings
  const shown = await withRecord(path, flags, surroundings, async (record) =>
    shownRecords(record.place, await record.read()),
  )
  terminal.result(json ? JSON.stringify(shown, null, 2) : recordDetails(shown))
}

async function repair(path: string, flags: RepairFlags, surroundings: Omit<ActionSurroundings, 'urls'>): Promise<void> {
  const { terminal, json } = surroundings
  const options = { nobodyWrites: flags.nobodyWrites === true }
  await withRecord(path, flags, surroundings, async (record) => {
    if (flags.dryRun === true) {
      const plan = await record.plan(options)
      terminal.result(json ? JSON.stringify(plan, null, 2) : planDetails(plan))
      return
    }
    const repaired = await record.repair(options)
    terminal.result(json ? JSON.stringify(repaired, null, 2) : repairedDetails(repaired))
  })
}

async function withRecord<T>(
  path: string,
  { config, imageId: id }: PlaceFlags,
  { workingDirectory }: Pick<ActionSurroundings, 'workingDirectory'>,
  use: (record: LocalRecord) => Promise<T>,
): Promise<T> {
  const { withLocalRecord } = await import('../local-record.ts')
  const configuration = config === undefined ? null : resolve(workingDirectory, config)
  return withLocalRecord({ path: resolve(workingDirectory, path), configuration, imageId: id ?? null }, use)
}
