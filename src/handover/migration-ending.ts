/**
 * How a live migration can end, as endings of handovers do: migrated, brought back, unchanged, or unclear. All but the last
 * say where the guest runs. Failures are those of the disks' handover, and QEMU's own.
 */

import type { Failure } from './ending.ts'
import type { Downtime } from './migration-course.ts'

export type MigrationEnding =
  | {
      readonly kind: 'migrated'
      readonly guestAt: 'destination'
      /** It was so before this run began. */
      readonly already: boolean
      /** Null where this run did not see the guest stop. */
      readonly downtime: Downtime | null
      readonly notes: readonly string[]
    }
  | {
      readonly kind: 'broughtBack'
      readonly guestAt: 'source'
      readonly failure: Failure
      readonly notes: readonly string[]
    }
  /** Nothing was begun. `guestAt` is null where this run could not see it. */
  | {
      readonly kind: 'unchanged'
      readonly guestAt: 'source' | null
      readonly failure: Failure
      readonly advice: readonly string[]
    }
  | {
      readonly kind: 'unclear'
      readonly guestAt: null
      readonly failure: Failure
      readonly known: readonly string[]
      readonly advice: readonly string[]
    }
