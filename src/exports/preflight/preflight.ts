/**
 * The preflight as the rest of the daemon sees it: a path in, a report out, within a time that the caller sets. A walk
 * that is late goes on, and whoever asks for the same path meanwhile joins it, so that a dead mount costs one thread
 * however often it is asked about.
 */

import type { BlockingRunner } from '../../blocking/calls.ts'
import { Refusal } from '../../foundation/refusal.ts'
import { faultRefusal } from '../image-refusal.ts'
import type { StackReport } from '../verbs.ts'
import { judgeStack } from './judgement.ts'
import { Questions } from './questions.ts'
import type { Foresight } from './questions.ts'
import { StackWalk } from './walk.ts'

export interface CheckOptions {
  /** Also looks through all processes for those that have the image open. */
  readonly users: boolean
  /** Bounds the waiting, not the walk: the report then says what is known, and what it waits for. */
  readonly timeoutMs: number
  /** For an image that is looked at again and again. */
  readonly foresight?: Foresight
}

export class Preflight {
  readonly #runner: BlockingRunner
  readonly #running = new Map<string, StackWalk>()

  /** The runner's threads hang on a dead mount: give it some that nobody else needs. */
  constructor(runner: BlockingRunner) {
    this.#runner = runner
  }

  /** Rejects with a Refusal where there is no image at the path. */
  async check(path: string, { users, timeoutMs, foresight }: CheckOptions): Promise<StackReport> {
    if (path.includes('\0')) throw new Refusal('image-missing', 'a path cannot hold a NUL')
    const walk = this.#walk(path, users, foresight)
    await doneOrLate(walk, timeoutMs)
    const { facts } = walk
    if (facts.fault === null) return judgeStack(facts, Date.now())
    throw faultRefusal(path, false, { ...facts.fault, realPath: facts.realPath ?? path })
  }

  #walk(path: string, users: boolean, foresight: Foresight | undefined): StackWalk {
    const key = `${users ? 'users' : 'stack'} ${path}`
    const running = this.#running.get(key)
    if (running !== undefined) return running
    const questions = new Questions(this.#runner, foresight?.take())
    const walk = new StackWalk(questions, path, { users, now: () => performance.now() })
    this.#running.set(key, walk)
    const forget = (): void => {
      this.#running.delete(key)
    }
    walk.done.then(() => {
      foresight?.learn(questions.asked)
      forget()
    }, forget)
    return walk
  }
}

/** A timer that is cleared: one that is aborted makes an Error each time, which costs more than to judge the stack. */
function doneOrLate(walk: StackWalk, timeoutMs: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const late = setTimeout(resolve, timeoutMs)
    walk.done.then(resolve, reject).finally(() => {
      clearTimeout(late)
    })
  })
}
