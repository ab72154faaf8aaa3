/**
 * How far a live migration is, decided from one look at both QEMUs and nothing else, as standing.ts does it for a disk.
 * Pure. It is what lets a migration be taken up by somebody who did not begin it.
 *
 *     source                        destination            the migration
 *     runs, no migration            waits for one          is to be begun                                ready
 *     migrates, or has just stopped any                    copies memory                                 copying
 *     pre-switchover                any                    stands still: the disks go over now           stopped
 *     device, or all was sent       waits, or has it all   is being switched over                        switching
 *     not running                   runs                   has arrived                                   arrived
 *     anything else                                        is a person's to decide                       stuck
 */

import type { QemuFacts } from './qemu.ts'
import { isUnderWay } from './qemu.ts'

export type Phase =
  | { readonly kind: 'ready' | 'copying' | 'stopped' | 'switching' | 'arrived' }
  | { readonly kind: 'stuck'; readonly reason: string; readonly advice: readonly string[] }

/** Null of one whose monitor does not answer. */
export function phaseOf(source: QemuFacts | null, destination: QemuFacts | null): Phase {
  if (destination?.runState === 'running') {
    if (source?.runState !== 'running') return { kind: 'arrived' }
    return stuck(
      'the guest runs at both ends',
      'stop one of them; its disks are open at one end only, which status tells',
    )
  }
  if (source === null) return stuck('the source QEMU does not answer', 'run this again when its monitor answers')
  if (isUnderWay(source)) return ofMigration(source)
  if (source.migration === 'completed' && source.runState === 'postmigrate') return ofSentGuest(destination)
  if (source.runState !== 'running') {
    return stuck(`the source QEMU is ${source.runState}`, 'only a guest that runs is migrated: let it run first')
  }
  if (destination === null) return stuck('the destination QEMU does not answer', 'start it, with -incoming URI -S')
  if (destination.runState === 'inmigrate' && destination.migration === 'none') return { kind: 'ready' }
  return stuck(
    `the destination QEMU is ${destination.runState}, its migration ${destination.migration}: it waits for none`,
    'end it and start it anew, with -incoming URI -S: whatever it holds of the guest is old',
  )
}

/**
 * Whether the guest may have run at the destination already: then the memory at the source is older than the disks, and
 * must never run again. As long as the source has not sent everything it cannot have.
 */
export function mayHaveRunThere(source: QemuFacts | null, destination: QemuFacts | null): boolean {
  if (destination !== null) return destination.runState !== 'inmigrate'
  return source === null || source.migration === 'device' || source.migration === 'completed'
}

function ofMigration({ migration }: QemuFacts): Phase {
  if (migration === 'pre-switchover') return { kind: 'stopped' }
  if (migration === 'device') return { kind: 'switching' }
  if (migration !== 'cancelling' && !migration.startsWith('postcopy')) return { kind: 'copying' }
  return stuck(`the migration is ${migration}`, 'wait for its end; a postcopy migration cannot hand disks over')
}

/** All was sent, to the destination or to somebody else. */
function ofSentGuest(destination: QemuFacts | null): Phase {
  if (destination?.migration !== 'none') return { kind: 'switching' }
  return stuck('the guest was sent elsewhere, not to this destination', 'look for it there: its memory here is old')
}

function stuck(reason: string, ...advice: readonly string[]): Phase {
  return { kind: 'stuck', reason, advice }
}
