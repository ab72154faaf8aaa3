/**
 * The command line of `interlockctl`: verbs, their options, and the actions they stand for. It parses and checks; what
 * an action does is in control-actions.ts. Options that all verbs share may stand before or after the verb.
 */

import { Command, Option } from 'commander'
import { CACHES, CLIENTS_MODES, DURABILITIES, STANDBY_READS } from '../config/settings.ts'
import type { ControlActions } from './control-actions.ts'
import { evacuationVerb } from './evacuation-verb.ts'
import { handoverVerb } from './handover-verbs.ts'
import { migrateVerb } from './migrate-verbs.ts'
import { allowUnsafe, duration, exportName } from './option-values.ts'

export interface SharedOptions {
  /** As often as it was given. */
  readonly control?: readonly string[]
  readonly output: 'text' | 'json'
}

export interface ChangeFlags {
  readonly idempotencyKey?: string
}

export interface CloseFlags extends ChangeFlags {
  readonly early?: true
  readonly unsubmitted?: 'drain' | 'abort'
  readonly requests?: 'park' | 'refuse'
  readonly disconnect?: true
  readonly timeout?: number
  readonly wait: boolean
  readonly nonce?: string
  readonly reason?: 'handover' | 'shutdown'
}

export interface OpenFlags extends ChangeFlags {
  readonly receipt?: string
  readonly takeover?: true
  readonly timeout?: number
  readonly awaitClose?: true
  readonly allowUnsafe?: readonly string[]
}

export interface CheckFlags {
  readonly local?: true
  readonly timeout?: number
}

export interface AdoptFlags extends ChangeFlags {
  readonly copy?: true
}

export interface AddFlags extends ChangeFlags {
  readonly adopt?: true
  readonly description?: string
  readonly imageId?: string
  readonly readOnly?: true
  readonly durability?: (typeof DURABILITIES)[number]
  readonly clients?: (typeof CLIENTS_MODES)[number]
  readonly standby?: true
  readonly standbyReads?: (typeof STANDBY_READS)[number]
  readonly clusterLocks?: true
  readonly cache?: (typeof CACHES)[number]
  readonly allowUnsafe?: readonly string[]
}

/** `actionsOf` is called with the shared options once a verb was recognized. */
export function buildProgram(version: string, actionsOf: (shared: SharedOptions) => ControlActions): Command {
  const program = new Command('interlockctl')
    .description('Asks and tells a running interlockd.')
    .version(version, '--version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .addOption(
      new Option('--control <url>', 'where the daemon is: unix:/path.sock or tcp:HOST:PORT')
        .env('INTERLOCK_CONTROL')
        .argParser((url: string, before: readonly string[] | undefined) => [...(before ?? []), url]),
    )
    .addOption(new Option('-o, --output <format>', 'how results look').choices(['text', 'json']).default('text'))
    .addHelpText('after', EXIT_HELP)
  const actions = (): ControlActions => actionsOf(program.opts())
  watchingVerbs(program, actions)
  checkingVerb(program, actions)
  lifeVerbs(program, actions)
  collectionVerbs(program, actions)
  evacuationVerb(program, actions)
  handoverVerb(program, actions)
  migrateVerb(program, actions)
  return program
}

const EXIT_HELP = `
Exit status: 0 done, 1 failed, 2 wrong usage, 3 refused in this state, 4 still draining when the time ran out,
5 no daemon answers. Results go to standard output, everything else to standard error.`

function watchingVerbs(program: Command, actions: () => ControlActions): void {
  program
    .command('status')
    .description('all exports, or everything about one')
    .argument('[name]', 'an export', exportName)
    .action(async (name: string | undefined) => actions().status(name))
  program
    .command('requests')
    .description('each request that is not answered yet')
    .argument('<name>', 'an export', exportName)
    .action(async (name: string) => actions().requests(name))
  program
    .command('watch')
    .description('events as they happen, until interrupted')
    .argument('[name]', 'only those of this export', exportName)
    .action(async (name: string | undefined) => actions().watch(name))
}

function checkingVerb(program: Command, actions: () => ControlActions): void {
  program
    .command('check')
    .description('what is really under an image, and whether it may move; nothing is written')
    .argument('<path>', 'an image, whether it is exported or not')
    .option('--local', 'without a daemon: with the rights and the mounts of this shell')
    .addOption(
      new Option('--timeout <duration>', 'how long to wait for what does not answer')
        .argParser(duration)
        .default(DEFAULT_CHECK_TIMEOUT_MS, '"5s"'),
    )
    .addHelpText('after', CHECK_HELP)
    .action(async (path: string, flags: CheckFlags) => actions().check(path, flags))
}

const DEFAULT_CHECK_TIMEOUT_MS = 5_000
const CHECK_HELP = `
Exit status: 0 safe, or safe on the conditions that are named; 3 not safe; 1 no verdict. docs/preflight.md explains
every code.`

function lifeVerbs(program: Command, actions: () => ControlActions): void {
  changing(program, 'close', 'drain, make durable, record; the answer is the receipt')
    .option('--early', 'answer before slow writes are done, with their ranges held at the destination')
    .addOption(new Option('--unsubmitted <what>', 'what the kernel does not have yet').choices(['drain', 'abort']))
    .addOption(new Option('--requests <what>', 'what arrives from now on').choices(['park', 'refuse']))
    .option('--disconnect', 'cut idle connections now')
    .addOption(new Option('--timeout <duration>', 'how long to wait; the close goes on').argParser(duration))
    .option('--no-wait', 'return as soon as the close has begun')
    .option('--nonce <nonce>', 'the nonce that the destination gave out')
    .addOption(
      new Option('--reason <reason>', 'whether this host may open again by itself').choices(['handover', 'shutdown']),
    )
    .action(async (name: string, flags: CloseFlags) => actions().close(name, flags))
  proving(changing(program, 'open', 'open for writing'))
    .addOption(
      new Option('--timeout <duration>', 'how long to wait for a source that still closes').argParser(duration),
    )
    .option('--await-close', 'wait that long also for a source that has not begun to close')
    .addOption(allowUnsafe())
    .action(async (name: string, flags: OpenFlags) => actions().open(name, flags))
  changing(program, 'standby', 'wait to be opened').action(async (name: string, flags: ChangeFlags) =>
    actions().standby(name, flags),
  )
  proving(changing(program, 'clear', "drop a predecessor's holds, on proof")).action(
    async (name: string, flags: OpenFlags) => actions().clear(name, flags),
  )
  changing(program, 'adopt', 'accept an image as it is found: its hard links, or that it is not the recorded one')
    .option('--copy', 'it is a copy, and its record came along: the holder of the original has no part in it')
    .action(async (name: string, flags: AdoptFlags) => actions().adopt(name, flags))
  changing(program, 'fence', 'refuse everything from now on').action(async (name: string, flags: ChangeFlags) =>
    actions().fence(name, flags),
  )
}

function collectionVerbs(program: Command, actions: () => ControlActions): void {
  program
    .command('add')
    .description('serve another image')
    .argument('<name=path>', 'the name of the export and the path of its image')
    .option('--description <text>', 'shown to clients that ask for it')
    .option('--image-id <id>', 'declared identity of the image, in place of the measured one')
    .option('--read-only', 'no writes, no generation')
    .addOption(new Option('--durability <mode>', 'when a write is answered').choices(DURABILITIES))
    .addOption(new Option('--clients <mode>', 'one writer at a time, or several').choices(CLIENTS_MODES))
    .option('--standby', 'wait to be opened')
    .option('--adopt', 'accept the image as it is found, as by the verb')
    .addOption(new Option('--standby-reads <what>', 'what happens to reads in standby').choices(STANDBY_READS))
    .option('--cluster-locks', 'locks of other hosts are proof on this storage')
    .addOption(new Option('--cache <mode>', 'direct I/O, or the page cache').choices(CACHES))
    .addOption(allowUnsafe())
    .option('--idempotency-key <key>', 'the same request with the same key runs once')
    .action(async (declared: string, flags: AddFlags) => actions().add(declared, flags))
  changing(program, 'remove', 'forget an export that is not open').action(async (name: string, flags: ChangeFlags) =>
    actions().remove(name, flags),
  )
}

function changing(program: Command, verb: string, description: string): Command {
  return program
    .command(verb)
    .description(description)
    .argument('<name>', 'an export', exportName)
    .option('--idempotency-key <key>', 'the same request with the same key runs once')
}

function proving(command: Command): Command {
  return command
    .option('--receipt <file>', "the previous holder's receipt as JSON; - for standard input")
    .option('--takeover', 'fence the previous holder')
}
