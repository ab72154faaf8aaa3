/**
 * The command line of `interlockd`. It parses and checks; it starts nothing, prints nothing and never exits. What is to
 * be printed (help, version, a mistake) comes back as an invocation like any other.
 */

import { Command, CommanderError, Option } from 'commander'
import { parseExportDeclaration } from './environment.ts'
import { DURABILITIES, SETTING_NAMES, SettingsCollector } from './settings.ts'
import type { ExportSettings, PlainSettings, Settings } from './settings.ts'
import { ENGINES, LOG_FORMATS, LOG_LEVELS } from './configuration.ts'

export type Invocation =
  | { readonly kind: 'run'; readonly settings: Settings; readonly file: string | undefined }
  | { readonly kind: 'check-config'; readonly file: string }
  | { readonly kind: 'print'; readonly text: string }
  | { readonly kind: 'usage'; readonly problem: string }

type Options = Readonly<Partial<Record<keyof PlainSettings | 'config' | 'export', unknown>>>

/** `base` is where relative paths start. */
export function parseArgv(argv: readonly string[], version: string, base: string): Invocation {
  let invocation: Invocation | undefined
  let printed = ''
  const program = buildProgram(version)
    .exitOverride()
    .configureOutput({ writeOut: (text) => (printed += text), writeErr: (text) => (printed += text) })
    .action((options: Options) => {
      invocation = readOptions(options, base)
    })
  program
    .command('check-config')
    .argument('<file>', 'a configuration file')
    .description('check a configuration file, and say what is wrong with it')
    .exitOverride()
    .configureOutput(program.configureOutput())
    .action((file: string) => {
      invocation = { kind: 'check-config', file }
    })
  try {
    program.parse(argv, { from: 'user' })
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    return error.exitCode === 0
      ? { kind: 'print', text: printed }
      : { kind: 'usage', problem: printed.replace(/^error: /, '').trimEnd() }
  }
  return invocation ?? { kind: 'print', text: program.helpInformation() }
}

function buildProgram(version: string): Command {
  const repeated = (value: string, previous: readonly string[]): string[] => [...previous, value]
  return new Command('interlockd')
    .description(
      'Serves raw disk images over NBD, with a close that is acknowledged only when it is durable and quiet.',
    )
    .version(version, '--version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .allowExcessArguments(false)
    .option('--config <file>', 'TOML file to read')
    .option('--export <name=path>', 'serve the image at PATH as NAME (repeatable)', repeated, [])
    .option('--listen <url>', 'serve NBD on unix:/path.sock or tcp:HOST:PORT (repeatable)', repeated, [])
    .option('--control <url>', 'serve the control API there (repeatable)', repeated, [])
    .option('--standby', 'start every export in standby')
    .addOption(new Option('--engine <kind>', 'what moves the bytes').choices(ENGINES))
    .addOption(new Option('--durability <mode>', 'when a write is answered').choices(DURABILITIES))
    .option('--workers <count>', 'data worker threads')
    .option('--state-directory <path>', "where this host's identity is kept")
    .addOption(new Option('--log-level <level>', 'least severity that is logged').choices(LOG_LEVELS))
    .addOption(new Option('--log-format <format>', 'how log lines look').choices(LOG_FORMATS))
    .addHelpText('after', AFTER_HELP)
}

const AFTER_HELP = `
Every option can also be given as INTERLOCKD_NAME in the environment, or in the file that --config or
INTERLOCKD_CONFIG names (in the image of interlockd: /etc/interlockd.toml).

Without any of that NBD is served on tcp:127.0.0.1:10809 (in the image: on every address of the container),
the control API on unix:/run/interlockd/control.sock, and the state is kept in /var/lib/interlockd; for a
user other than root below XDG_RUNTIME_DIR and XDG_STATE_HOME. An export opens by itself where its ownership
record lets it; interlockctl, beside this program, asks and tells a daemon that runs.

  interlockd --export vda=/srv/vda.raw
  docker run -v /srv:/srv -v vda-state:/var/lib/interlockd -p 127.0.0.1:10809:10809 interlockd --export vda=/srv/vda.raw`

function readOptions(options: Options, base: string): Invocation {
  const collector = new SettingsCollector(base)
  for (const name of SETTING_NAMES) {
    const value = options[name]
    const where = (): string => flagOf(name)
    if (typeof value === 'string') collector.putText(name, value, where)
    else if (Array.isArray(value) ? value.length > 0 : value !== undefined) collector.put(name, value, where)
  }
  const problems = [...collector.problems]
  const exports = readExports(options.export, base, problems)
  const problem = problems.join('\n')
  if (problem !== '') return { kind: 'usage', problem }
  return {
    kind: 'run',
    settings: { ...collector.settings, ...(exports.length > 0 && { exports }) },
    file: typeof options.config === 'string' ? options.config : undefined,
  }
}

function readExports(declared: unknown, base: string, problems: string[]): ExportSettings[] {
  const exports: ExportSettings[] = []
  for (const text of Array.isArray(declared) ? declared : []) {
    const settings = parseExportDeclaration(String(text), base)
    if ('problem' in settings) problems.push(`--export ${settings.problem}`)
    else exports.push(settings)
  }
  return exports
}

function flagOf(name: string): string {
  return `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`
}
