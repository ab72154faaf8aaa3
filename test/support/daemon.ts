/**
 * The real daemon, as an operator runs it: `node bin/interlockd.cjs` in a process of its own, with its own state
 * directory, sockets and configuration file, ready when its log says so. It is asked through its control socket, by
 * interlockctl or by plain HTTP that shares no code with the client under src/.
 *
 * Invariant: the process ends with the scratch, however the test ends.
 */

import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { ControlledDaemon, PROJECT } from './controlled-daemon.ts'
import { startProgram } from './foreign-program.ts'
import type { Outcome, Program } from './foreign-program.ts'
import { freePort } from './free-port.ts'
import type { ServerAddress } from './nbd-frontend.ts'
import type { Scratch } from './scratch.ts'

export type EngineName = 'file' | 'io_uring'

export type { ApiAnswer, Closed } from './controlled-daemon.ts'

/** Every test against the daemon runs over each of these. */
export const ENGINES: readonly EngineName[] = ['io_uring', 'file']

const READY_TIMEOUT_MS = 60_000

/** Keys as in the configuration file. */
export type ExportEntry = Readonly<Record<string, string | boolean | number | readonly string[]>> & {
  readonly name: string
  readonly path: string
}

export interface DaemonOptions {
  readonly exports: readonly ExportEntry[]
  readonly engine?: EngineName
  /** Every export waits in standby. */
  readonly standby?: boolean
  /** That of an earlier daemon makes this one the same host. */
  readonly stateDirectory?: string
  /** Lines of the configuration file, before the exports. */
  readonly settings?: readonly string[]
  readonly ownership?: 'none' | 'directory' | 'etcd'
  /** Further lines of [ownership], and tables behind it. */
  readonly ownershipSettings?: readonly string[]
  readonly environment?: Readonly<Record<string, string>>
  /** False: NBD is served on the Unix socket only. */
  readonly tcp?: boolean
  /** A program and arguments that start it, such as one that enters a namespace first. */
  readonly wrapper?: readonly string[]
  /** How long the start may take; hundreds of exports take longer than one. */
  readonly readyTimeoutMs?: number
}

/** A line of the daemon's log. */
export type LogLine = Readonly<Record<string, unknown>>

export class Daemon extends ControlledDaemon {
  readonly program: Program
  readonly stateDirectory: string
  readonly nbdPath: string
  readonly nbdPort: number

  constructor(
    program: Program,
    places: { stateDirectory: string; controlPath: string; nbdPath: string; nbdPort: number },
  ) {
    super(places.controlPath)
    this.program = program
    this.stateDirectory = places.stateDirectory
    this.nbdPath = places.nbdPath
    this.nbdPort = places.nbdPort
  }

  get pid(): number {
    return this.program.pid
  }

  get address(): ServerAddress {
    return { path: this.nbdPath }
  }

  /** As interlockctl wants it. */
  get controlUrl(): string {
    return `unix:${this.controlPath}`
  }

  /** As libnbd, QEMU and fio want it. */
  uri(exportName: string): string {
    return `nbd+unix:///${exportName}?socket=${this.nbdPath}`
  }

  /** The log so far; lines that are not JSON are kept as `{ text }`. */
  get log(): LogLine[] {
    return logLines(this.program)
  }

  /** SIGTERM: every export is closed, and the process ends by itself. */
  stop(patienceMs = 30_000): Promise<Outcome> {
    return this.program.stop('SIGTERM', patienceMs)
  }

  /** SIGKILL, and gone. */
  async kill(): Promise<void> {
    this.program.signal('SIGKILL')
    await this.program.exited
  }
}

export async function startDaemon(scratch: Scratch, options: DaemonOptions): Promise<Daemon> {
  const directory = scratch.directory('daemon')
  const stateDirectory = options.stateDirectory ?? join(directory, 'state')
  mkdirSync(stateDirectory, { recursive: true })
  const controlPath = join(directory, 'control.sock')
  const nbdPath = join(directory, 'nbd.sock')
  const nbdPort = await freePort()
  const configurationPath = join(directory, 'interlockd.toml')
  writeFileSync(configurationPath, configurationText({ ...options, stateDirectory }, { controlPath, nbdPath, nbdPort }))
  return launch(scratch, configurationPath, { stateDirectory, controlPath, nbdPath, nbdPort }, options)
}

/** The same host again, after its daemon has ended: same configuration, same addresses. */
export function startAgain(
  scratch: Scratch,
  { stateDirectory, controlPath, nbdPath, nbdPort }: Daemon,
  environment?: Readonly<Record<string, string>>,
): Promise<Daemon> {
  const configurationPath = join(dirname(controlPath), 'interlockd.toml')
  const options = environment === undefined ? {} : { environment }
  return launch(scratch, configurationPath, { stateDirectory, controlPath, nbdPath, nbdPort }, options)
}

async function launch(
  scratch: Scratch,
  configurationPath: string,
  places: { stateDirectory: string; controlPath: string; nbdPath: string; nbdPort: number },
  {
    wrapper: wrapping = [],
    environment,
    readyTimeoutMs = READY_TIMEOUT_MS,
  }: Pick<DaemonOptions, 'wrapper' | 'environment' | 'readyTimeoutMs'>,
): Promise<Daemon> {
  const [wrapper, ...wrapped] = wrapping
  const before = wrapper === undefined ? [] : [...wrapped, process.execPath]
  const program = startProgram(
    scratch,
    wrapper ?? process.execPath,
    [...before, join(PROJECT, 'bin/interlockd.cjs'), '--config', configurationPath, '--log-format', 'json'],
    environment === undefined ? {} : { environment },
  )
  await program.until('ready line of interlockd', readyTimeoutMs, () => logLines(program).some(saysReady))
  if (!existsSync(places.controlPath)) throw new Error(`interlockd is ready without a control socket; ${program.said}`)
  return new Daemon(program, places)
}

function configurationText(
  options: DaemonOptions & { readonly stateDirectory: string },
  places: { controlPath: string; nbdPath: string; nbdPort: number },
): string {
  const quoted = (value: string | boolean | number | readonly string[]): string => JSON.stringify(value)
  const tcp = options.tcp === false ? [] : [`tcp:127.0.0.1:${places.nbdPort}`]
  return [
    `state_directory = ${quoted(options.stateDirectory)}`,
    `listen = ${quoted([`unix:${places.nbdPath}`, ...tcp])}`,
    `control = [${quoted(`unix:${places.controlPath}`)}]`,
    ...(options.engine === undefined ? [] : [`engine = ${quoted(options.engine)}`]),
    ...(options.standby === true ? ['standby = true'] : []),
    ...(options.settings ?? []),
    '[ownership]',
    `kind = "${options.ownership ?? 'none'}"`,
    ...(options.ownershipSettings ?? []),
    ...options.exports.flatMap((entry) => [
      '[[export]]',
      ...Object.entries(entry).map(([key, value]) => `${key} = ${quoted(value)}`),
    ]),
    '',
  ].join('\n')
}

function logLines(program: Program): LogLine[] {
  return `${program.stderr}\n${program.stdout}`
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      try {
        return JSON.parse(line) as LogLine
      } catch {
        return { text: line }
      }
    })
}

function saysReady(line: LogLine): boolean {
  return typeof line['msg'] === 'string' && /\bready\b/iu.test(line['msg'])
}
