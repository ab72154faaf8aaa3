/** Which engine a daemon runs, and why: the operator's word, or what the kernel and its policies allow. */

import { Refusal } from '../foundation/refusal.ts'

export interface EngineChoice {
  readonly kind: 'io_uring' | 'file'
  readonly reason: string
}

/** `io_uring` fails hard where it cannot be had; `auto` falls back and says why. */
export function chooseEngine(setting: 'auto' | 'io_uring' | 'file'): EngineChoice {
  if (setting === 'file') return { kind: 'file', reason: 'configured' }
  const problem = 'this version has no io_uring engine'
  if (setting === 'io_uring') throw new Refusal('bad-request', `engine = "io_uring": ${problem}`)
  return { kind: 'file', reason: problem }
}
