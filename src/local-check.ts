/**
 * The preflight without a daemon, for `interlockctl check --local`: the same walk and the same judgement, in this
 * process, with this process's rights and mounts.
 */

import { BlockingPool } from './blocking/blocking-pool.ts'
import { Preflight } from './exports/preflight/preflight.ts'
import type { StackReport } from './exports/verbs.ts'

export interface LocalCheck {
  check(path: string, timeoutMs: number): Promise<StackReport>
  /** True where a thread still hangs in the kernel: the process then cannot end in order. */
  close(): Promise<boolean>
}

export function localCheck(): LocalCheck {
  const threads = new BlockingPool('preflight', 1)
  const preflight = new Preflight(threads)
  return {
    check: (path, timeoutMs) => preflight.check(path, { users: true, timeoutMs }),
    close: async () => {
      if (threads.busyCount > 0) return true
      await threads.close()
      return false
    },
  }
}
