/**
 * A host as a container: interlockd from its image, with a state directory, an address and a name of its own. It is told
 * what to do through its control socket, which lies in a folder that this machine sees too, so no test needs a program
 * inside. What is shared between hosts is mounted by whoever starts them.
 */

import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ContainerEngine } from './container-engine.ts'
import { askOverSocket, ControlledDaemon } from './controlled-daemon.ts'
import type { ExportEntry, LogLine } from './daemon.ts'
import { eventually } from './eventually.ts'
import type { ServerAddress } from './nbd-frontend.ts'
import type { Scratch } from './scratch.ts'

export const NBD_PORT = 10_809
const READY_TIMEOUT_MS = 90_000
const EVERYBODY = 0o777

export interface ContainerHostOptions {
  readonly image: string
  /** Of the container, after the run's own; also the host's name. */
  readonly name: string
  readonly network?: string
  readonly exports: readonly ExportEntry[]
  /** Further lines of the configuration file, before the exports: tables last. */
  readonly settings?: readonly string[]
  /** Further words for `docker run`. */
  readonly words?: readonly string[]
}

export class ContainerHost extends ControlledDaemon {
  readonly name: string
  readonly engine: ContainerEngine

  constructor(engine: ContainerEngine, name: string, runFolder: string) {
    super(join(runFolder, 'control.sock'))
    this.engine = engine
    this.name = name
  }

  /** On the container's first network. */
  async address(): Promise<ServerAddress> {
    const host = await this.inspect('{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}')
    return { host: host.split(' ')[0] ?? '', port: NBD_PORT }
  }

  inspect(format: string): Promise<string> {
    return this.engine.ask(['inspect', '--format', format, this.name])
  }

  async log(): Promise<LogLine[]> {
    const { stdout, stderr } = await this.engine.run(['logs', this.name])
    return `${stdout}\n${stderr}`
      .split('\n')
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line) as LogLine)
  }

  async untilReady(): Promise<void> {
    await eventually(
      `${this.name} to be ready`,
      async () => (await askOverSocket(this.controlPath, 'GET', '/readyz', undefined, 10_000)).status === 200,
      { timeoutMs: READY_TIMEOUT_MS, intervalMs: 100 },
    ).catch(async (error: unknown) => {
      const { stdout, stderr } = await this.engine.run(['logs', this.name])
      throw new Error(`${this.name} said:\n${stdout}${stderr}`, { cause: error })
    })
  }

  /** SIGKILL, as the kernel or a power switch would; by the engine's own rule it is not started again. */
  async kill(): Promise<void> {
    await this.engine.ask(['kill', this.name])
  }

  /** The container's exit status, once it has ended. */
  async exitStatus(): Promise<number> {
    return Number(await this.engine.ask(['wait', this.name]))
  }
}

/** Starts it and waits until it serves. Gone with the scratch, with the volumes that were made for it. */
export async function startContainerHost(
  scratch: Scratch,
  engine: ContainerEngine,
  options: ContainerHostOptions,
): Promise<ContainerHost> {
  const name = engine.name(options.name)
  const folder = scratch.directory(options.name)
  const runFolder = openFolder(folder, 'run')
  const stateFolder = openFolder(folder, 'state')
  const file = join(folder, 'interlockd.toml')
  writeFileSync(file, configurationText(options))
  await engine.ask([
    ...['run', '--detach', '--name', name, '--hostname', options.name, ...engine.label, ...ownUser()],
    ...['--network', options.network ?? 'none'],
    ...['--volume', `${runFolder}:/run/interlockd`, '--volume', `${stateFolder}:/var/lib/interlockd`],
    ...['--volume', `${file}:/etc/interlockd.toml:ro`],
    ...(options.words ?? []),
    options.image,
  ])
  scratch.defer(`container ${name}`, async () => {
    await engine.ask(['rm', '--force', '--volumes', name])
  })
  const host = new ContainerHost(engine, name, runFolder)
  await host.untilReady()
  return host
}

/** A folder into which the image's user may write as well as ours. */
export function openFolder(parent: string, name: string): string {
  const path = join(parent, name)
  mkdirSync(path)
  chmodSync(path, EVERYBODY)
  return path
}

/** Its sockets are for its own user: root reaches them anyway. */
export function ownUser(): readonly string[] {
  const [user, group] = [process.getuid?.() ?? 0, process.getgid?.() ?? 0]
  return user === 0 ? [] : ['--user', `${user}:${group}`]
}

function configurationText(options: ContainerHostOptions): string {
  return [
    `listen = ["tcp:0.0.0.0:${NBD_PORT}"]`,
    ...(options.settings ?? []),
    ...options.exports.flatMap((entry) => [
      '[[export]]',
      ...Object.entries(entry).map(([key, value]) => `${key} = ${JSON.stringify(value)}`),
    ]),
    '',
  ].join('\n')
}
