/**
 * The way back: after a failure, whatever it was, exactly one end is to have the disk open, and it is to be known which.
 * It looks first. A destination that has opened keeps it, unless the caller knows that nobody uses it there and wants it
 * back; then it is closed there as any close is, with proof. Else the source is asked to open: while it still closes that
 * only opens its gate again, after that it is the next generation. The daemons refuse what would make two holders; what
 * they refuse for longer than the patience lasts, or do not answer at all, is a person's to decide, and is said so.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { ControlProblem, ControlUnreachable } from '../client/index.ts'
import type { ExportStatus, Receipt } from '../client/index.ts'
import { faultPoint } from '../fault-points/fault-point.ts'
import type { Ending, Failure } from './ending.ts'
import { ask } from './errand.ts'
import { handedEarly } from './standing.ts'
import type { Timeline } from './timeline.ts'
import { lookAt, newestRecord, tell } from './view.ts'
import type { Answering, Disk, View } from './view.ts'

export interface WayBackOptions {
  /** A destination that has opened is closed again: nobody has used it there. */
  readonly evenIfOpened?: boolean
}

interface Journey {
  readonly disk: Disk
  readonly patienceMs: number
  /** Of the source's close, where there is one yet. */
  readonly receipt: Receipt | null
  readonly timeline: Timeline
}

const STEP = 'way back'
const AGAIN_MS = 200
/** To open takes as long as a fence of the source's own writes takes; it is not given up while it runs. */
const OPEN_CALL_MS = 60_000

export async function takeWayBack(journey: Journey, failure: Failure, options: WayBackOptions): Promise<Ending> {
  const deadlineMs = performance.now() + journey.patienceMs
  for (;;) {
    const view = await lookAt(journey.disk, { step: STEP, patienceMs: 0 })
    const ending = await attempt(journey, view, failure, options)
    if (ending !== null) return ending
    if (performance.now() >= deadlineMs) return unclear(view, failure)
    await sleep(AGAIN_MS)
  }
}

/** Null: not yet. */
async function attempt(
  journey: Journey,
  view: View,
  failure: Failure,
  options: WayBackOptions,
): Promise<Ending | null> {
  const { source, destination } = view
  if (destination.answers && destination.status.state === 'open') {
    if (options.evenIfOpened !== true) return keptThere(destination, view, journey.receipt, failure)
    if (!(await closeDestination(journey))) return null
  }
  if (!source.answers) return null
  if (source.status.state === 'open') return broughtBack(journey, source.status, failure)
  // What could not be made durable is looked at by a person before anybody writes again.
  if (source.status.state === 'fenced') return unclear(view, failure)
  const status = await openSource(journey, source)
  return status === null ? null : broughtBack(journey, status, failure)
}

async function closeDestination({ disk, timeline }: Journey): Promise<boolean> {
  try {
    const options = { timeoutMs: AGAIN_MS * 10 }
    await ask(disk.destination, (daemon, signal) => daemon.close(disk.name, options, { signal }), {
      step: STEP,
      patienceMs: 0,
    })
  } catch (error) {
    if (error instanceof ControlProblem || error instanceof ControlUnreachable) return false
    throw error
  }
  timeline.mark('destination closed')
  await faultPoint('handover: destination closed')
  return true
}

async function openSource({ disk }: Journey, source: Answering): Promise<ExportStatus | null> {
  const { state, lastReceipt } = source.status
  const own = state === 'closed' && !source.ownership.home.shared ? lastReceipt : null
  try {
    return await ask(
      disk.source,
      (daemon, signal) =>
        daemon.open(disk.name, { receipt: own, timeoutMs: AGAIN_MS, allowUnsafe: source.status.unsafe }, { signal }),
      { step: STEP, patienceMs: 0, callMs: OPEN_CALL_MS },
    )
  } catch (error) {
    // What it was refused for may be over the next time: somebody who opens, a lock that is still held.
    if (error instanceof ControlProblem || error instanceof ControlUnreachable) return null
    throw error
  }
}

function broughtBack({ timeline }: Journey, status: ExportStatus, failure: Failure): Ending {
  timeline.mark('brought back')
  return { kind: 'broughtBack', openAt: 'source', generation: status.generation, failure }
}

/** The failure came too late to stop it. */
function keptThere(destination: Answering, view: View, receipt: Receipt | null, failure: Failure): Ending {
  const record = newestRecord(view)
  return {
    kind: 'handedOver',
    openAt: 'destination',
    generation: destination.status.generation,
    receipt,
    draining: receipt === null && record !== null && record.draining.length > 0,
    already: false,
    notes: [`${failure.step} failed after the destination had opened: ${failure.message}`],
  }
}

function unclear(view: View, failure: Failure): Ending {
  return { kind: 'unclear', openAt: null, failure, known: tell(view), advice: adviceFor(view) }
}

function adviceFor(view: View): string[] {
  const { source, destination, name } = view
  const record = newestRecord(view)
  const again = 'run this again: it goes on from where it is'
  if (source.answers && source.status.state === 'fenced') {
    return [
      `look at the image: the source is fenced (${source.status.stateReason ?? 'nobody said why'})`,
      `then interlockctl --control ${source.url} open ${name}`,
      again,
    ]
  }
  const byRecord = record !== null && record.state !== 'closed' && !handedEarly(record)
  const holds = byRecord ? `${record.holder.name} has generation ${record.generation} (${record.state})` : null
  if (!source.answers) {
    return [
      ...(holds === null ? [] : [`do not start the guest anywhere before that is settled: ${holds}`]),
      `start the source's daemon (${source.url}), then ${again}`,
      `where the source is lost: interlockctl --control ${destination.url} open ${name} --takeover`,
    ]
  }
  if (!destination.answers) {
    return [
      ...(holds === null ? [] : [`do not start the guest anywhere before that is settled: ${holds}`]),
      `start the destination's daemon (${destination.url}), then ${again}`,
      `where the destination is lost: interlockctl --control ${source.url} open ${name} --takeover`,
    ]
  }
  return [
    ...(holds === null ? [] : [`the image is not free: ${holds}`]),
    `interlockctl --control ${source.url} open ${name} says what is in the way at the source`,
    again,
  ]
}
