/**
 * How far a handover is, decided from one look at both ends and nothing else: that is what makes it possible to run it
 * again after whatever has happened to whoever ran it before. Pure. The record decides where a daemon and the record
 * differ, because every opening is decided by the record.
 *
 *     source      destination          record                     the handover
 *     open        standby, ...         of the source              is to be begun                  start
 *     closing     standby, ...         of the source              goes on with the close          closing
 *     closed      standby, ...         closed, no later opening   goes on with the opening        between
 *     not asked   standby, ...         closed, or handed early    goes on with the opening        between
 *     standby     standby, ...         of the source, not closed  is asked for its receipt first  asleep
 *     any         opening              any                        waits                           opening
 *     not open    open                 of the destination         is finished                     finished
 *     anything else                                               is a person's to decide         stuck
 */

import type { RecordSummary } from '../client/index.ts'
import { newestRecord } from './view.ts'
import type { Answering, View } from './view.ts'

export type Standing =
  | { readonly kind: 'start' | 'closing' | 'between' | 'asleep' | 'opening' | 'finished' }
  | { readonly kind: 'stuck'; readonly reason: string; readonly advice: readonly string[] }

export function standingOf(view: View): Standing {
  const { source, destination } = view
  if (destination.answers && destination.status.state === 'open') return ofOpenDestination(view, destination)
  if (!destination.answers) return ofSilentDestination(view)
  switch (destination.status.state) {
    case 'opening':
      return { kind: 'opening' }
    case 'closing':
      return stuck(`the destination is closing ${view.name} itself`, `wait until ${destination.url} has closed it`)
    case 'open':
    case 'standby':
    case 'closed':
    case 'fenced':
      return source.answers ? ofSource(view, source, destination) : ofSilentSource(view, destination)
  }
}

/** Generations that were handed over early may be opened over. */
export function handedEarly(record: RecordSummary): boolean {
  return record.state === 'closing' && record.draining.includes(record.generation)
}

function ofOpenDestination({ name, source }: View, destination: Answering): Standing {
  if (!source.answers || source.status.state !== 'open') return { kind: 'finished' }
  return stuck(
    `both ends have '${name}' open: they are two images, or two records`,
    `compare ${source.status.path} at ${source.url} with ${destination.status.path} at ${destination.url}`,
  )
}

function ofSilentDestination({ source, destination, name }: View): Standing {
  const why = destination.answers ? '' : destination.reason
  if (source.answers && source.status.state === 'open') {
    return stuck(why, `start the destination's daemon, with '${name}' in standby, and run this again`)
  }
  return stuck(
    why,
    `start the destination's daemon and run this again`,
    `or bring it back: interlockctl --control ${source.url} open ${name}`,
  )
}

function ofSource(view: View, source: Answering, destination: Answering): Standing {
  switch (source.status.state) {
    case 'open':
      return { kind: 'start' }
    case 'closing':
      return { kind: 'closing' }
    case 'opening':
      return stuck('the source is opening it', 'wait until it is open, and run this again')
    case 'fenced':
      return ofFencedSource(view, source, destination)
    case 'closed':
      return ofClosedSource(view, source, destination)
    case 'standby':
      return ofSleepingSource(view, source, destination)
  }
}

function ofFencedSource(view: View, source: Answering, destination: Answering): Standing {
  const record = newestRecord(view)
  if (record !== null && mayOpen(record, destination)) return { kind: 'between' }
  return stuck(
    `the source is fenced: ${source.status.stateReason ?? 'nobody said why'}`,
    `look at the image, then interlockctl --control ${source.url} open ${view.name}, and run this again`,
    `or, where the source is lost: interlockctl --control ${destination.url} open ${view.name} --takeover`,
  )
}

/** Its daemon remembers the close. */
function ofClosedSource(view: View, source: Answering, destination: Answering): Standing {
  if (!source.ownership.home.shared) return { kind: 'between' }
  const record = newestRecord(view)
  if (record === null || record.generation <= source.status.generation) return { kind: 'between' }
  return ofMovedRecord(view, record, destination)
}

/** It was started again since, or has never had it. */
function ofSleepingSource(view: View, source: Answering, destination: Answering): Standing {
  const record = newestRecord(view)
  if (!source.ownership.home.shared) return { kind: 'asleep' }
  if (record === null) {
    return stuck(
      `nobody has ever opened ${view.name}`,
      `open it where it is to be: interlockctl --control ${destination.url} open ${view.name}`,
    )
  }
  if (mayOpen(record, destination) && !closedElsewhere(record, source)) return { kind: 'between' }
  if (source.ownership.record?.heldHere === true) return { kind: 'asleep' }
  return ofMovedRecord(view, record, destination)
}

/** Somebody has opened it after the source. */
function ofMovedRecord(view: View, record: RecordSummary, destination: Answering): Standing {
  const { name, state } = { name: record.holder.name, state: record.state }
  const heldThere = destination.ownership.record?.heldHere === true
  // An opening that came to nothing has left no receipt, and nothing was written under it.
  if (state === 'closed' && record.receiptNonce === null) return { kind: 'between' }
  if (heldThere && state !== 'closed' && state !== 'fenced') return { kind: 'between' }
  const done = heldThere ? 'it was handed over, and the destination has ended since' : 'somebody else has had it since'
  return stuck(
    `${done}: generation ${record.generation} of ${name} is ${state}`,
    `open it where it is to be: interlockctl --control ${destination.url} open ${view.name}`,
  )
}

function ofSilentSource(view: View, destination: Answering): Standing {
  const { record, home } = destination.ownership
  if (home.shared && record !== null && mayOpen(record, destination)) return { kind: 'between' }
  const lost = `where the source is lost: interlockctl --control ${destination.url} open ${view.name} --takeover`
  const reason = view.source.answers ? '' : view.source.reason
  return stuck(
    reason,
    `start the source's daemon again (it finishes what it had begun) and run this again`,
    home.shared ? lost : `nothing but the source's receipt opens it at the destination`,
  )
}

/** Whether nothing in the record keeps the destination from opening; it is asked again by the opening itself. */
function mayOpen(record: RecordSummary, destination: Answering): boolean {
  if (record.takeoverBy !== null) return false
  if (record.state === 'closed' || handedEarly(record)) return true
  // Its own earlier run, or another daemon of its host: a lock proves what that left.
  return destination.ownership.record?.heldHere === true && record.state !== 'fenced'
}

function closedElsewhere(record: RecordSummary, source: Answering): boolean {
  return record.state === 'closed' && record.receiptNonce !== null && source.ownership.record?.heldHere !== true
}

function stuck(reason: string, ...advice: readonly string[]): Standing {
  return { kind: 'stuck', reason, advice }
}
