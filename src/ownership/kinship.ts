/**
 * What a recorded holder is to this run of the daemon. It decides what can prove that the holder's writes are over: on one
 * boot of one host the generation's lock, across a reboot the death of the kernel, across hosts a fence. A host is "this
 * host" only if it also has the open token that was left there before the record was written: an identity that was cloned
 * has none of the later tokens.
 */

import type { Holder } from '../interlock/receipt.ts'
import type { RecordHolder } from './home.ts'

export type Kinship =
  /** This very run of the daemon. */
  | 'this-run'
  /** Another run on this host and boot, and it lives. */
  | 'living-run'
  /** Another run on this host and boot, known to be over. Its writes may still be in the kernel. */
  | 'dead-run'
  | 'earlier-boot'
  | 'other-host'

/** `tokenKnown`: the holder's open token was left on this host. `alive` is asked only of a run on this boot. */
export function kinshipOf(holder: RecordHolder, self: Holder, tokenKnown: boolean, alive: boolean): Kinship {
  if (holder.host !== self.host || !tokenKnown) return 'other-host'
  if (holder.boot !== self.boot) return 'earlier-boot'
  if (holder.instance === self.instance) return 'this-run'
  return alive ? 'living-run' : 'dead-run'
}

export function isThisHost(kinship: Kinship): boolean {
  return kinship !== 'other-host'
}

/** Whether a free generation lock proves that its writes have cleared. */
export function locksProve(kinship: Kinship, clusterLocks: boolean): boolean {
  switch (kinship) {
    case 'this-run':
    case 'living-run':
    case 'dead-run':
      return true
    case 'earlier-boot':
      return false
    case 'other-host':
      return clusterLocks
  }
}
