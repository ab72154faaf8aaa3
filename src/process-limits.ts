/**
 * What the configured size of the daemon needs of the limits that its supervisor set. Descriptors are needed for certain:
 * a daemon that cannot have as many is refused at its start, by number, and does not fail at its thousandth client.
 * Locked memory only makes io_uring faster.
 */

import type { Logger } from 'pino'
import type { Configuration } from './config/configuration.ts'
import { Refusal } from './foundation/refusal.ts'
import { raiseResourceLimit, resourceLimit } from './posix/process.ts'

/** Node, its threads, the log, records and rings. */
const DESCRIPTORS_OF_PROCESS = 256
const DESCRIPTORS_PER_WORKER = 16
/** The image, and a second descriptor of it while it opens or is proved to be closed. */
const DESCRIPTORS_PER_EXPORT = 2
/** Of the control API, and for sockets that are in two hands while they are handed over. */
const DESCRIPTORS_OF_CALLERS = 128

type Sized = Pick<Configuration, 'workers' | 'exports' | 'limits'>

export function descriptorsNeeded({ workers, exports, limits }: Sized): number {
  return (
    DESCRIPTORS_OF_PROCESS +
    DESCRIPTORS_OF_CALLERS +
    workers * DESCRIPTORS_PER_WORKER +
    exports.length * DESCRIPTORS_PER_EXPORT +
    limits.connectionsMax
  )
}

/** Raises what may be raised. Throws a Refusal where the hard limit is below what is needed. */
export function claimProcessLimits(configuration: Configuration, log: Logger): void {
  raiseResourceLimit('descriptors')
  raiseResourceLimit('lockedMemoryBytes')
  const needed = descriptorsNeeded(configuration)
  const { soft } = resourceLimit('descriptors')
  if (soft < needed) {
    const { exports, limits } = configuration
    throw new Refusal(
      'bad-request',
      `${exports.length} exports and limits.connections_max = ${limits.connectionsMax} need ${needed} file descriptors, ` +
        `and this process may have ${soft}: raise the hard limit (LimitNOFILE=${needed}, ulimit -Hn), or lower ` +
        'limits.connections_max',
    )
  }
  const lockedBytes = resourceLimit('lockedMemoryBytes').soft
  const arenasBytes = configuration.workers * configuration.limits.arenaBytes
  if (lockedBytes < arenasBytes) {
    log.info(
      { lockedBytes, arenasBytes },
      'not all buffers may be locked (LimitMEMLOCK=): io_uring works without registering them, a little slower',
    )
  }
}
