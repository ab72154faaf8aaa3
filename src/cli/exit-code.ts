/**
 * What the exit status of `interlockctl` says, for scripts that decide by it. One place maps failures to it.
 */

import { ControlProblem, ControlUnreachable } from '../client/index.ts'
import { Refusal, REFUSALS } from '../foundation/refusal.ts'

export const EXIT = {
  done: 0,
  failed: 1,
  usage: 2,
  /** 409: the daemon refused it in this state. */
  refused: 3,
  /** 504: the time ran out while requests were still outstanding; the close goes on. */
  stillDraining: 4,
  unreachable: 5,
} as const

export type ExitCode = (typeof EXIT)[keyof typeof EXIT]

/** The command line itself is wrong; said before anything was asked of a daemon. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

/** `check` has a verdict, and it is no. */
export class StackUnsafe extends Error {
  override readonly name = 'StackUnsafe'
}

/** A verb that knows its exit status itself; its results are printed already. */
export class ExitStatus extends Error {
  override readonly name = 'ExitStatus'
  readonly exitCode: ExitCode

  constructor(exitCode: ExitCode, message: string) {
    super(message)
    this.exitCode = exitCode
  }
}

export function exitCodeOf(error: unknown): ExitCode {
  if (error instanceof ExitStatus) return error.exitCode
  if (error instanceof UsageError) return EXIT.usage
  if (error instanceof StackUnsafe) return EXIT.refused
  if (error instanceof ControlUnreachable) return EXIT.unreachable
  if (error instanceof Refusal) return REFUSALS[error.code].status === 409 ? EXIT.refused : EXIT.failed
  if (!(error instanceof ControlProblem)) return EXIT.failed
  if (error.status === 409) return EXIT.refused
  return error.status === 504 ? EXIT.stillDraining : EXIT.failed
}
