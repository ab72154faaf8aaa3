/**
 * Makes the engine that was chosen, so that a worker need not know which one it runs.
 */

import { FileEngine } from './file/file-engine.ts'
import type { EngineOptions, OwnedEngine } from './resources.ts'

export type RealEngineKind = 'file'

/** On the thread that will run it. */
export function createEngine(_kind: RealEngineKind, options: EngineOptions): OwnedEngine {
  return new FileEngine(options)
}
