/**
 * Makes the engine that was chosen, so that a worker need not know which one it runs.
 */

import { unreachable } from '../foundation/assert.ts'
import { FileEngine } from './file/file-engine.ts'
import { IoUringEngine } from './io-uring/io-uring-engine.ts'
import type { EngineOptions, OwnedEngine } from './resources.ts'

export type RealEngineKind = 'io_uring' | 'file'

/** On the thread that will run it. */
export function createEngine(kind: RealEngineKind, options: EngineOptions): OwnedEngine {
  switch (kind) {
    case 'io_uring':
      return new IoUringEngine(options)
    case 'file':
      return new FileEngine(options)
    default:
      return unreachable(kind)
  }
}
