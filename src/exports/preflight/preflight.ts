/**
 * The preflight as the rest of the daemon sees it: a path in, a report out, within a time that the caller sets. A walk
 * that is late goes on, and whoever asks for the same path meanwhile joins it, so that a dead mount costs one thread
 * however often it is asked about.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import type { BlockingRunner } from '../../blocking/calls.ts'
import { Refusal } from '../../foundation/refusal.ts'
import { faultRefusal } from '../image-refusal.ts'
import type { StackReport } from '../verbs.ts'
import { judgeStack } from './judgement.ts'
import { StackWalk } from './walk.ts'

export interface CheckOptions {
  /** Also looks through all processes for those that have the image open. */
  readonly users: boolean
  /** Bounds the waiting, not the walk: the report then says what is known, and what it waits for. */
  readonly timeoutMs: number
}

export class Preflight {
  readonly #runner: BlockingRunner
  readonly #running = new Map<string, StackWalk>()

  /** The runner's threads hang on a dead mount: give it some that nobody else needs. */
  constructor(runner: BlockingRunner) {
    this.#runner = runner
  }

  /** Rejects with a Refusal where there is no image at the path. */
  async check(path: string, { users, timeoutMs }: CheckOptions): Promise<StackReport> {
    if (path.includes('\0')) throw new Refusal('image-missing', 'a path cannot hold a NUL')
    const walk = this.#walk(path, users)
    const inTime = new AbortController()
    const late = sleep(timeoutMs, null, { signal: inTime.signal }).catch(() => null)
    try {
      await Promise.race([walk.done, late])
    } finally {
      inTime.abort()
    }
    const { facts } = walk
    if (facts.fault === null) return judgeStack(facts, Date.now())
    throw faultRefusal(path, false, { ...facts.fault, realPath: facts.realPath ?? path })
  }

  #walk(path: string, users: boolean): StackWalk {
    const key = `${users ? 'users' : 'stack'} ${path}`
    const running = this.#running.get(key)
    if (running !== undefined) return running
    const walk = new StackWalk(this.#runner, path, { users, now: () => performance.now() })
    this.#running.set(key, walk)
    const forget = (): void => {
      this.#running.delete(key)
    }
    walk.done.then(forget, forget)
    return walk
  }
}
