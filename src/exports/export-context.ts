/** What every export of a daemon shares: identity, threads for blocking calls, the log, and the other exports. */

import type { BlockingRunner } from '../blocking/calls.ts'
import type { RecordHome } from '../ownership/home.ts'
import type { FenceSettings } from '../ownership/fence.ts'
import type { LocalHost } from '../ownership/local-host.ts'
import type { DataWorker } from '../plane-link/data-worker.ts'
import type { ImageFacts } from './image.ts'
import type { ExportStacks } from './stacks.ts'
import type { ExportDefinition, ExportEvent } from './verbs.ts'

/** A subset of pino's logger. Fields first, then one sentence. */
export interface ExportLog {
  debug(fields: object, message: string): void
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
}

/** The worker that an export lives on, and how its engine came to be chosen. */
export interface Placement {
  readonly worker: DataWorker
  readonly engine: { readonly kind: 'io_uring' | 'file'; readonly reason: string }
}

/** An event without the parts that are the same for all of them. */
export type EventBody = ExportEvent extends infer E ? (E extends ExportEvent ? Omit<E, 'at' | 'export'> : never) : never

export interface ExportContext {
  readonly host: LocalHost
  /** How a holder is fenced that does not answer, and whether this host's own reboot is proof. */
  readonly fencing: FenceSettings & { readonly rebootIsProof: boolean }
  readonly log: ExportLog
  /** The engine that was chosen for the daemon. */
  readonly engine: Placement['engine']
  /** For opening, locking and closing images. */
  readonly images: BlockingRunner
  /** How long writes are held back for a predecessor before that is said. */
  readonly holdAlarmMs: number
  /** Milliseconds of a monotonic clock. */
  readonly now: () => number
  /** The home of an image's record. */
  readonly homeOf: (definition: ExportDefinition) => RecordHome
  /** A living worker for this export; a new one where the last has died. */
  readonly place: (index: number) => Promise<Placement>
  /** What is under the images, and whether that is safe. */
  readonly stacks: ExportStacks
  /** Refuses an image that another export of this daemon has. Called again with the same export it changes nothing. */
  readonly claimImage: (name: string, facts: ImageFacts) => void
  readonly emit: (name: string, event: EventBody) => void
}
