/**
 * Which engine serves, and why: found out once, at start, by making a small ring and throwing it away.
 */

import { closeDescriptor } from '../posix/descriptor.ts'
import type { RealEngineKind } from './create.ts'
import { IoUringUnavailable, setUpRing } from './io-uring/setup.ts'

export type EngineSetting = 'auto' | RealEngineKind

export interface EngineChoice {
  readonly kind: RealEngineKind
  /** One sentence for the log and the status. */
  readonly reason: string
}

const PROBE_ENTRIES = 8

/** Throws `IoUringUnavailable` where io_uring is demanded and cannot be had; its message says what is in the way. */
export function chooseEngine(setting: EngineSetting): EngineChoice {
  if (setting === 'file') return { kind: 'file', reason: 'the configuration asks for it' }
  try {
    const { descriptor, flagNames } = setUpRing(PROBE_ENTRIES, PROBE_ENTRIES)
    closeDescriptor(descriptor)
    const features = flagNames.length === 0 ? 'without optional flags' : `with ${flagNames.join(', ')}`
    const why = setting === 'io_uring' ? 'the configuration asks for it' : 'the kernel offers it'
    return { kind: 'io_uring', reason: `${why}, ${features}` }
  } catch (error) {
    if (setting === 'io_uring' || !(error instanceof IoUringUnavailable)) throw error
    return { kind: 'file', reason: `there is no io_uring: ${error.message}` }
  }
}
