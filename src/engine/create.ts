/**
 * Makes the engine that was chosen, so that a worker need not know which one it runs.
 */

import { assert } from '../foundation/assert.ts'
import { FileEngine } from './file/file-engine.ts'
import type { EngineOptions, OwnedEngine } from './resources.ts'

export type RealEngineKind = 'io_uring' | 'file'

/** On the thread that will run it. */
export function createEngine(kind: RealEngineKind, options: EngineOptions): OwnedEngine {
  assert(kind === 'file', `the ${kind} engine was not chosen`)
  return new FileEngine(options)
}
