/**
 * The engine that the container tests run on: the one that answers here, else one of our own, started with everything
 * that it keeps in a folder of its own, and ended by its pid. Ours makes no default bridge, no rule of the packet filter
 * and no change to the kernel's forwarding: private networks need none of them.
 *
 * Invariant: what carries a run's label is gone after that run, whatever became of its tests.
 */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, statfsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { requirePeer } from '../../scripts/peers.mjs'
import { PROJECT } from './controlled-daemon.ts'
import { eventually } from './eventually.ts'
import { runChecked, runProgram } from './foreign-program.ts'
import type { Outcome, ProgramOptions } from './foreign-program.ts'
import type { Scratch } from './scratch.ts'

const LABEL = 'interlockd-test'
const START_TIMEOUT_MS = 90_000
const END_PATIENCE_MS = 60_000
const TMPFS = 0x01021994

/** What a test process needs to know of the engine; plain data, so that it can be handed on. */
export interface EngineFacts {
  /** As in DOCKER_HOST; null: where the client looks by itself. */
  readonly host: string | null
  readonly run: string
}

export class ContainerEngine {
  readonly facts: EngineFacts

  constructor(facts: EngineFacts) {
    this.facts = facts
  }

  /** `--label` and its value, for whatever is created. */
  get label(): readonly [string, string] {
    return ['--label', `${LABEL}=${this.facts.run}`]
  }

  /** A name that no other run uses. */
  name(what: string): string {
    return `${this.facts.run}-${what}`
  }

  get environment(): Readonly<Record<string, string>> {
    return this.facts.host === null ? {} : { DOCKER_HOST: this.facts.host }
  }

  /** The socket of the engine, for who is to reach it from inside a container. */
  get socketPath(): string {
    return (this.facts.host ?? process.env['DOCKER_HOST'] ?? 'unix:///var/run/docker.sock').replace(/^unix:\/\//u, '')
  }

  /** `docker` with these words; what it says. */
  async ask(words: readonly string[], options: ProgramOptions & { readonly timeoutMs?: number } = {}): Promise<string> {
    const { stdout } = await runChecked(requirePeer('docker'), words, this.#options(options))
    return stdout.trim()
  }

  /** As `ask`, whatever its exit status. */
  run(words: readonly string[], options: ProgramOptions & { readonly timeoutMs?: number } = {}): Promise<Outcome> {
    return runProgram(requirePeer('docker'), words, this.#options(options))
  }

  /** A network that leads nowhere but to its containers and this machine; gone with the scratch. */
  async network(scratch: Scratch, what: string, words: readonly string[] = []): Promise<string> {
    const name = this.name(what)
    await this.ask(['network', 'create', '--internal', ...this.label, ...words, name])
    scratch.defer(`network ${name}`, async () => {
      await this.ask(['network', 'rm', name])
    })
    return name
  }

  /** Everything of this run. */
  async removeAll(): Promise<void> {
    const filter = ['--filter', `label=${LABEL}=${this.facts.run}`]
    const removals: [list: string[], remove: string[]][] = [
      [
        ['ps', '--all', '--quiet'],
        ['rm', '--force', '--volumes'],
      ],
      [
        ['network', 'ls', '--quiet'],
        ['network', 'rm'],
      ],
      [
        ['volume', 'ls', '--quiet'],
        ['volume', 'rm'],
      ],
      [
        ['images', '--quiet'],
        ['rmi', '--force'],
      ],
    ]
    for (const [list, remove] of removals) {
      const found = await this.ask([...list, ...filter])
      const names = [...new Set(found.split('\n').filter(Boolean))]
      if (names.length > 0) await this.ask([...remove, ...names])
    }
  }

  #options(options: ProgramOptions & { readonly timeoutMs?: number }) {
    return { timeoutMs: 120_000, ...options, environment: { ...this.environment, ...options.environment } }
  }
}

/** The engine that answers, or one that ends with the scratch. */
export async function useEngine(scratch: Scratch): Promise<ContainerEngine> {
  const run = `${LABEL}-${process.pid}`
  const present = new ContainerEngine({ host: null, run })
  const answer = await present.run(['info', '--format', '{{.ServerVersion}}'], { timeoutMs: 30_000 })
  const engine = answer.status === 0 ? present : new ContainerEngine({ host: await startEngine(scratch), run })
  scratch.defer('what the engine keeps of this run', () => engine.removeAll())
  return engine
}

/** A folder on a disk: direct I/O into memory proves nothing. */
export function folderOnDisk(scratch: Scratch, purpose: string): string {
  const parent = statfsSync(tmpdir()).type === TMPFS ? join(PROJECT, '.cache') : tmpdir()
  mkdirSync(parent, { recursive: true })
  const path = mkdtempSync(join(parent, `interlockd-${purpose}-${process.pid}-`))
  scratch.defer(`folder ${path}`, () => {
    rmSync(path, { recursive: true, force: true })
  })
  return path
}

async function startEngine(scratch: Scratch): Promise<string> {
  const folder = folderOnDisk(scratch, 'dockerd')
  const host = `unix://${folder}/sock`
  const places = ['--data-root', `${folder}/data`, '--exec-root', `${folder}/exec`, '--pidfile', `${folder}/pid`]
  const untouched = ['--bridge=none', '--iptables=false', '--ip-forward=false', '--ip-masq=false']
  const log = openSync(join(folder, 'log'), 'a')
  // Of a process group of its own: Ctrl-C is for us, who then end it. If we die, the kernel asks it to stop.
  const engine = spawn(
    'setpriv',
    ['--pdeathsig', 'TERM', '--', requirePeer('dockerd'), ...places, ...untouched, '--host', host],
    { detached: true, stdio: ['ignore', log, log] },
  )
  closeSync(log)
  const ended = once(engine, 'exit')
  scratch.defer('dockerd', async () => {
    engine.kill('SIGTERM')
    const inTime = await Promise.race([ended, sleep(END_PATIENCE_MS, null, { ref: false })])
    if (inTime === null) engine.kill('SIGKILL')
    await ended
    await unmountBelow(folder)
  })
  await eventually(
    'dockerd to answer',
    async () => {
      const said = (): string => readFileSync(join(folder, 'log'), 'utf8')
      if (engine.exitCode !== null) throw new Error(`dockerd ended with ${engine.exitCode}:\n${said()}`)
      const answer = await new ContainerEngine({ host, run: '' }).run(['info', '--format', '{{.ServerVersion}}'])
      if (answer.status !== 0) throw new Error(said().slice(-4_000))
      return true
    },
    { timeoutMs: START_TIMEOUT_MS, intervalMs: 250 },
  )
  return host
}

/** What an engine that was killed has left mounted. */
async function unmountBelow(folder: string): Promise<void> {
  const mounts = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '')
    .filter((path) => path.startsWith(`${folder}/`))
  for (const path of mounts.reverse()) await runProgram('umount', ['--lazy', path])
}
