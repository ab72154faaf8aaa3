/**
 * The daemon as a process: start, signals, end. The first SIGTERM or SIGINT closes every export and ends with status 0;
 * a second one gives up at once. Giving up, a bug, or exports that cannot be closed end the process by SIGKILL, after a
 * last synchronous line: a process whose threads sleep in the kernel, or sit in a disk call, leaves in no other way. What
 * was open is then open in its record, and the next start treats it as after any crash.
 */

import type { Logger } from 'pino'
import { ConfigurationError } from '../config/configuration.ts'
import type { Configuration } from '../config/configuration.ts'
import { startDaemon } from '../daemon.ts'
import type { Daemon } from '../daemon.ts'
import { Refusal } from '../foundation/refusal.ts'
import { endAtOnce } from '../posix/process.ts'

/** How long everything may take to leave by itself once it was ended in order. */
const LEAVE_TIMEOUT_MS = 10_000

/** `readAgain` gives the configuration as it is now, for SIGHUP; it throws ConfigurationError. */
export async function runDaemon(configuration: Configuration, log: Logger, readAgain: () => Configuration) {
  const run = new DaemonRun(log, readAgain)
  await run.start(configuration)
}

class DaemonRun {
  readonly #log: Logger
  readonly #readAgain: () => Configuration
  #daemon: Daemon | undefined
  #stopAsked = false

  constructor(log: Logger, readAgain: () => Configuration) {
    this.#log = log
    this.#readAgain = readAgain
  }

  async start(configuration: Configuration): Promise<void> {
    process.on('uncaughtException', (error) => {
      this.#kill('a bug: the process ends itself', { err: error })
    })
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => this.#stopBySignal(signal))
    process.on('SIGHUP', () => {
      void this.#reload()
    })
    try {
      this.#daemon = await startDaemon(configuration, this.#log)
    } catch (error) {
      this.#log.fatal(failureFacts(error), `the daemon could not start: ${error instanceof Error ? error.message : ''}`)
      process.exitCode = 1
      this.#leaveSoon()
      return
    }
    // Asked to stop before there was anything to stop.
    if (this.#stopAsked) this.#stop()
  }

  #stopBySignal(signal: NodeJS.Signals): void {
    if (this.#stopAsked) {
      this.#kill(`${signal} for the second time: the process ends itself, and what is open stays open in the record`)
      return
    }
    this.#log.info({ signal }, 'asked to stop; a second signal ends the process at once')
    this.#stopAsked = true
    this.#stop()
  }

  #stop(): void {
    this.#daemon?.stop().then(
      ({ unclosed }) => {
        if (unclosed.length > 0) this.#kill(`not closed: ${unclosed.join('; ')}`)
        else this.#leaveSoon()
      },
      (error: unknown) => {
        this.#kill('stopping failed', { err: error })
      },
    )
  }

  /** Everything that keeps the process alive has been ended. If something was forgotten, the operator is not kept waiting. */
  #leaveSoon(): void {
    setTimeout(() => {
      this.#kill(`something still runs ${LEAVE_TIMEOUT_MS} ms after everything was ended`)
    }, LEAVE_TIMEOUT_MS).unref()
  }

  #kill(reason: string, facts: object = {}): void {
    this.#log.fatal(facts, reason)
    this.#daemon?.abandon()
    endAtOnce()
  }

  /** What cannot change while it runs is named, and counts from the next start; a file with mistakes changes nothing. */
  async #reload(): Promise<void> {
    if (this.#daemon === undefined) {
      this.#log.info('SIGHUP: the daemon is still starting: ask again when it is ready')
      return
    }
    try {
      const { applied, notApplied } = await this.#daemon.reload(this.#readAgain)
      const facts = { applied, notApplied }
      if (notApplied.length > 0) this.#log.warn(facts, 'SIGHUP: the configuration was read again, and is used in part')
      else this.#log.info(facts, 'SIGHUP: the configuration was read again')
    } catch (error) {
      if (!(error instanceof ConfigurationError)) throw error
      this.#log.error(
        { problems: error.problems },
        'SIGHUP: the configuration has mistakes, and nothing of it is used; the next start would fail',
      )
    }
  }
}

/** A refusal has said everything; anything else needs its stack. */
function failureFacts(error: unknown): object {
  return error instanceof Refusal ? { code: error.code, ...error.members } : { err: error }
}
