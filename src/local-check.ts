/**
 * The preflight without a daemon, for `interlockctl check --local`: the same walk and the same judgement, with this
 * user's rights and mounts. It runs in a process of its own, because a thread that hangs on a dead mount keeps its process
 * from ending in order: that one is killed, and this one goes on.
 */

import { fork } from 'node:child_process'
import type { StackReport } from './exports/verbs.ts'
import { REFUSALS, Refusal } from './foundation/refusal.ts'
import type { RefusalCode } from './foundation/refusal.ts'

export interface LocalQuestion {
  readonly path: string
  readonly timeoutMs: number
}

export type LocalAnswer =
  { readonly report: StackReport } | { readonly refused: { readonly code: string; readonly detail: string } }

export interface LocalCheck {
  /** One at a time. Rejects with a Refusal where there is no image. */
  check(path: string, timeoutMs: number): Promise<StackReport>
  close(): void
}

/** Once it settles the process and its thread have started, so that what is waited for is the stack. */
export async function localCheck(): Promise<LocalCheck> {
  const child = fork(new URL('./local-check-process.js', import.meta.url), {
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  })
  await new Promise((resolve, reject) => {
    child.once('message', resolve)
    child.once('error', reject)
    child.once('exit', (status) => {
      reject(new Error(`the process that looks at the stack did not start (${status})`))
    })
  })
  return {
    check: (path, timeoutMs) =>
      new Promise((resolve, reject) => {
        const ended = (): void => {
          reject(new Error('the process that looks at the stack has ended'))
        }
        child.once('exit', ended)
        child.once('message', (answer) => {
          child.off('exit', ended)
          const { report, refused } = answer as Partial<{
            report: StackReport
            refused: { code: string; detail: string }
          }>
          if (report !== undefined) resolve(report)
          else reject(refusalOf(refused))
        })
        child.send({ path, timeoutMs } satisfies LocalQuestion)
      }),
    close: () => {
      child.kill('SIGKILL')
      child.unref()
    },
  }
}

function refusalOf(refused: { code: string; detail: string } | undefined): Error {
  const code = refused?.code ?? 'internal'
  const known = Object.hasOwn(REFUSALS, code) ? (code as RefusalCode) : 'internal'
  return new Refusal(known, refused?.detail ?? 'the process that looks at the stack gave no answer')
}
