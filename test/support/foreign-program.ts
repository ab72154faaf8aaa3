/**
 * Programs that are not ours, run by a test: qemu-nbd, nbdkit, fio, a virtual machine. A program that is missing is a
 * failure that names it, never a reason to skip.
 *
 * Invariant: no program outlives the test. It is killed by its own pid when the scratch is disposed, and by the kernel
 * (the parent death signal, set by setpriv) when the test process itself is killed.
 */

import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Scratch } from './scratch.ts'

export interface ProgramOptions {
  readonly directory?: string
  readonly environment?: Readonly<Record<string, string>>
  /** Written to its standard input, which is then closed. */
  readonly input?: string
}

export interface Outcome {
  /** The exit status, or 128 and the number of the signal, as a shell would say it. */
  readonly status: number
  readonly stdout: string
  readonly stderr: string
}

const SIGNAL_NUMBERS: Readonly<Record<string, number>> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGABRT: 6,
  SIGKILL: 9,
  SIGSEGV: 11,
  SIGPIPE: 13,
  SIGTERM: 15,
}

/** A program while it runs, and what it said. */
export class Program {
  readonly name: string
  readonly #child: ChildProcess
  readonly exited: Promise<Outcome>
  #stdout = ''
  #stderr = ''
  #outcome: Outcome | undefined
  readonly #watchers = new Set<() => void>()

  constructor(command: string, commandArguments: readonly string[], options: ProgramOptions = {}) {
    this.name = command
    this.#child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', command, ...commandArguments], {
      ...(options.directory === undefined ? {} : { cwd: options.directory }),
      env: { ...process.env, LC_ALL: 'C.UTF-8', TZ: 'UTC', ...options.environment },
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    const { stdin, stdout, stderr } = this.#child
    if (stdin === null || stdout === null || stderr === null) throw new Error('a program was started without pipes')
    stdin.on('error', () => undefined)
    stdin.end(options.input ?? '')
    stdout.setEncoding('utf8').on('data', (text: string) => {
      this.#stdout += text
      this.#changed()
    })
    stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text
      this.#changed()
    })
    this.exited = new Promise((resolve, reject) => {
      this.#child.on('error', (error) => {
        reject(new Error(`${command} could not be started`, { cause: error }))
      })
      this.#child.on('close', (code, signal) => {
        const status = code ?? 128 + (SIGNAL_NUMBERS[signal ?? ''] ?? 0)
        this.#outcome = { status, stdout: this.#stdout, stderr: this.#stderr }
        this.#changed()
        resolve(this.#outcome)
      })
    })
    this.exited.catch(() => undefined)
  }

  get pid(): number {
    const { pid } = this.#child
    if (pid === undefined) throw new Error(`${this.name} could not be started`)
    return pid
  }

  get running(): boolean {
    return this.#outcome === undefined
  }

  get stdout(): string {
    return this.#stdout
  }

  get stderr(): string {
    return this.#stderr
  }

  /** Everything said so far, for the message of a failure. */
  get said(): string {
    return `${this.name} said:\n${this.#stdout}${this.#stderr}`
  }

  /** Waits until the condition holds; it is asked again whenever the program says something, and every 20 ms. */
  async until<T>(what: string, timeoutMs: number, condition: () => T | undefined | false): Promise<T> {
    const deadline = performance.now() + timeoutMs
    for (;;) {
      const value = condition()
      if (value !== undefined && value !== false) return value
      if (!this.running) throw new Error(`${this.name} ended before ${what}; ${this.said}`)
      if (performance.now() > deadline) throw new Error(`no ${what} within ${timeoutMs} ms; ${this.said}`)
      await this.#nextChange(20)
    }
  }

  /** A program that has ended meanwhile is left alone: its exit may not have been reported yet. */
  signal(signal: NodeJS.Signals): void {
    if (!this.running) return
    try {
      process.kill(this.pid, signal)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
    }
  }

  /** Asks with the signal, waits, and kills what does not go. */
  async stop(signal: NodeJS.Signals = 'SIGTERM', patienceMs = 5_000): Promise<Outcome> {
    this.signal(signal)
    const patient = new AbortController()
    const outcome = await Promise.race([
      this.exited,
      sleep(patienceMs, undefined, { signal: patient.signal }).catch(() => undefined),
    ])
    patient.abort()
    if (outcome !== undefined) return outcome
    this.signal('SIGKILL')
    return this.exited
  }

  #changed(): void {
    for (const watcher of this.#watchers) watcher()
  }

  #nextChange(atMostMs: number): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer)
        this.#watchers.delete(done)
        resolve()
      }
      const timer = setTimeout(done, atMostMs)
      this.#watchers.add(done)
    })
  }
}

/** Starts a program that ends with the scratch at the latest. */
export function startProgram(
  scratch: Scratch,
  command: string,
  commandArguments: readonly string[],
  options: ProgramOptions = {},
): Program {
  const program = new Program(command, commandArguments, options)
  scratch.defer(command, async () => {
    if (program.running) await program.stop('SIGKILL')
  })
  return program
}

/** Runs a program to its end. Past the deadline it is killed and the promise rejects with what it said. */
export async function runProgram(
  command: string,
  commandArguments: readonly string[],
  options: ProgramOptions & { readonly timeoutMs?: number } = {},
): Promise<Outcome> {
  const timeoutMs = options.timeoutMs ?? 60_000
  const program = new Program(command, commandArguments, options)
  let late = false as boolean
  const timer = setTimeout(() => {
    late = true
    program.signal('SIGKILL')
  }, timeoutMs)
  try {
    const outcome = await program.exited
    if (late) throw new Error(`${command} did not end within ${timeoutMs} ms; ${program.said}`)
    if (outcome.status === 127) throw new Error(`${command} is missing on this machine; ${program.said}`)
    return outcome
  } finally {
    clearTimeout(timer)
  }
}

/** As `runProgram`, and the exit status must be 0. */
export async function runChecked(
  command: string,
  commandArguments: readonly string[],
  options: ProgramOptions & { readonly timeoutMs?: number } = {},
): Promise<Outcome> {
  const outcome = await runProgram(command, commandArguments, options)
  if (outcome.status !== 0) {
    throw new Error(
      `${command} ${commandArguments.join(' ')} ended with ${outcome.status}:\n${outcome.stdout}${outcome.stderr}`,
    )
  }
  return outcome
}
