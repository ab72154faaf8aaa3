/**
 * Which runs of the daemon live on this host, as far as they share its state directory. Each run has a file there, named
 * by its random identity, and holds a lock on it until its process is gone. Whoever is asked about a run looks at the
 * lock; where it is held, the process may still be one that was killed and only waits in the kernel: it submits nothing
 * more, so it is dead, and its writes are the generation lock's business.
 */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { BlockingRunner } from '../blocking/calls.ts'
import { Refusal } from '../foundation/refusal.ts'
import { ERRNO, errnoName } from '../posix/errno.ts'
import { OPEN } from '../posix/file.ts'
import { LOCK_FREE } from '../posix/locks.ts'
import { ensureDirectory } from './local-identity.ts'

const FOLDER = 'runs'
const NAME = /^[0-9a-f]{32}$/
const FILE_BYTES_MAX = 256
const FILE_MODE = 0o600
const SIGKILL_BIT = 1n << 8n

export class RunRegistry {
  readonly #folder: string
  readonly #runner: BlockingRunner
  /** Holds the lock of this run for as long as it is open. */
  #descriptor = -1

  constructor(stateDirectory: string, runner: BlockingRunner) {
    this.#folder = join(stateDirectory, FOLDER)
    this.#runner = runner
  }

  /** From here on this run is alive. Files of runs that are over are removed. */
  async enter(instance: string): Promise<void> {
    await ensureDirectory(this.#folder, this.#runner)
    await this.#forgetTheDead()
    const path = join(this.#folder, instance)
    // Locked before it has its name: nobody ever finds it without the lock.
    const unnamed = `${path}.new`
    const bytes = Buffer.from(JSON.stringify({ pid: process.pid, started: startOf(process.pid) }), 'utf8')
    await this.#demand(this.#runner.run({ kind: 'createFile', path: unnamed, bytes, mode: FILE_MODE }), unnamed)
    const opened = this.#runner.run({ kind: 'open', path: unnamed, flags: OPEN.readWrite, mode: 0 })
    this.#descriptor = await this.#demand(opened, unnamed)
    const lock = { kind: 'lock', descriptor: this.#descriptor, lock: 'exclusive', start: 0n, length: 1n } as const
    await this.#demand(this.#runner.run(lock), unnamed)
    await this.#demand(this.#runner.run({ kind: 'renameFile', path: unnamed, renamedPath: path }), path)
  }

  /** Whether that run may still submit something. A run that nobody here knows of cannot. */
  async isAlive(instance: string): Promise<boolean> {
    if (!NAME.test(instance)) return false
    const path = join(this.#folder, instance)
    const locked = await this.#isLocked(path)
    if (!locked) return false
    const content = await this.#runner.run({ kind: 'readFile', path, lengthBytesMax: FILE_BYTES_MAX })
    return typeof content === 'number' || !isDying(Buffer.from(content).toString('utf8'))
  }

  async leave(instance: string): Promise<void> {
    if (this.#descriptor < 0) return
    await this.#runner.run({ kind: 'removeFile', path: join(this.#folder, instance) })
    await this.#runner.run({ kind: 'close', descriptor: this.#descriptor })
    this.#descriptor = -1
  }

  async #forgetTheDead(): Promise<void> {
    const names = await this.#runner.run({ kind: 'listDirectory', path: this.#folder })
    if (typeof names === 'number') throw failure(this.#folder, names)
    for (const name of names.filter((one) => NAME.test(one))) {
      const path = join(this.#folder, name)
      if (!(await this.#isLocked(path))) await this.#runner.run({ kind: 'removeFile', path })
    }
  }

  /** What cannot be asked counts as locked: it proves nothing. */
  async #isLocked(path: string): Promise<boolean> {
    const descriptor = await this.#runner.run({ kind: 'open', path, flags: OPEN.readWrite, mode: 0 })
    if (descriptor === -ERRNO.ENOENT) return false
    if (descriptor < 0) return true
    const query = { kind: 'queryLock', descriptor, lock: 'exclusive', start: 0n, length: 1n } as const
    const answer = await this.#runner.run(query)
    await this.#runner.run({ kind: 'close', descriptor })
    return answer !== LOCK_FREE
  }

  async #demand(outcome: Promise<number>, path: string): Promise<number> {
    const result = await outcome
    if (result < 0) throw failure(path, result)
    return result
  }
}

/** Whether the process that wrote this was killed and will not run another instruction of its own. */
function isDying(content: string): boolean {
  try {
    const { pid, started } = JSON.parse(content) as { pid?: unknown; started?: unknown }
    if (typeof pid !== 'number' || started !== startOf(pid)) return false
    const status = readFileSync(`/proc/${pid}/status`, 'utf8')
    if (/^State:\s+[ZX]/mu.test(status)) return true
    const pending = /^ShdPnd:\s+([0-9a-f]+)$/mu.exec(status)?.[1] ?? '0'
    return (BigInt(`0x${pending}`) & SIGKILL_BIT) !== 0n
  } catch {
    // Gone in this very moment, or of another namespace: the lock decides the next time.
    return false
  }
}

/** When the process began, in ticks since boot: tells it from a later one of the same number. */
function startOf(pid: number): string {
  const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
  // The name of the program, in parentheses, may hold anything.
  return text.slice(text.lastIndexOf(')') + 2).split(' ')[19] ?? ''
}

function failure(path: string, result: number): Refusal {
  return new Refusal('state-directory', `cannot use ${path}: ${errnoName(result)}`)
}
