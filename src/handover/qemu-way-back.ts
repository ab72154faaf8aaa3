/**
 * The way back of a live migration: every disk open at the source again, then the guest running there. In this order, so
 * that the guest never runs without its disks; and only where it is known that it has not run at the destination, because
 * then the source's memory would be older than its disks.
 */

import type { DiskHandover } from './disk-handover.ts'
import type { Ending, Failure } from './ending.ts'
import { StepFailed } from './ending.ts'
import type { MigrationStep } from './migration-course.ts'
import { isUnderWay } from './qemu.ts'
import type { Qemu, QemuFacts } from './qemu.ts'
import type { MigrationEnding } from './migration-ending.ts'

export interface WayBack {
  readonly failure: Failure
  readonly disks: readonly DiskHandover[]
  readonly source: Qemu
  readonly destination: Qemu
  /** The guest may have run at the destination before this run looked. */
  readonly mayHaveRun: boolean
  readonly reached: (step: MigrationStep) => Promise<void>
}

const STEP = 'way back'
/** QEMU lets a guest run again by itself when its migration fails or is cancelled; this long it is given to. */
const RESUME_MS = 2_000
const CANCEL_MS = 30_000
const AGAIN_MS = 2_000
/**
 * A QEMU that is told to end answers only when it has let go of its disks, and for what it wants of them it waits as long
 * as its reconnect-delay. It has stopped obeying by then: the guest at the source need not wait for the answer.
 */
const QUIT_MS = 500

export async function bringBack(way: WayBack): Promise<MigrationEnding> {
  const there = await lookThere(way)
  if (there === 'running') return unclear(way, [], 'the guest runs at the destination', ['run this again: it goes on'])
  if (way.mayHaveRun) return unclear(way, [], 'the guest may have run at the destination', REWIND_ADVICE)
  const options = { evenIfOpened: there !== 'unknown' }
  const endings = await Promise.all(way.disks.map((disk) => disk.wayBack(way.failure, options)))
  if (endings.some(({ openAt }) => openAt !== 'source')) return disksUnclear(way, endings)
  await way.reached('disks back')
  try {
    const notes = await resumeSource(way, there)
    await way.reached('back')
    return { kind: 'broughtBack', guestAt: 'source', failure: way.failure, notes }
  } catch (error) {
    if (!(error instanceof StepFailed)) throw error
    const reason = `the source QEMU could not be made to run: ${error.failure.message}`
    return unclear(way, endings, reason, [
      `look at the source QEMU (${way.source.url}): query-status, query-migrate; its disks are open there`,
      'migrate_cancel, then cont; where it has ended, start the guest anew at the source',
    ])
  }
}

type There = QemuFacts | 'running' | 'gone' | 'unknown'

/** What the destination's QEMU does now. One whose monitor nobody listens at has ended. */
async function lookThere({ destination }: WayBack): Promise<There> {
  try {
    const connection = await destination.connect(AGAIN_MS)
    if (connection !== 'connected') return connection
    const facts = await destination.facts(STEP)
    return facts.runState === 'running' ? 'running' : facts
  } catch (error) {
    if (!(error instanceof StepFailed)) throw error
    return (await destination.connect(AGAIN_MS)) === 'gone' ? 'gone' : 'unknown'
  }
}

/** Returns what is worth knowing about how it went. */
async function resumeSource({ source, destination }: WayBack, there: There): Promise<readonly string[]> {
  await source.connect()
  let facts = await source.facts(STEP)
  if (isUnderWay(facts)) {
    await source.command(STEP, 'migrate_cancel')
    facts = await source.until((now) => !isUnderWay(now), { step: STEP, timeoutMs: CANCEL_MS })
  }
  if (facts.migration !== 'completed' && (await runs(source))) return []
  // All of the guest was sent. What the destination has of it grows old from here on.
  const ended = there === 'gone' || (await endQemu(destination))
  if (facts.runState !== 'running') await source.command(STEP, 'cont')
  await source.until(({ runState }) => runState === 'running', { step: STEP, timeoutMs: CANCEL_MS })
  return ended
    ? []
    : [
        `the destination QEMU (${destination.url}) holds an old copy of the guest and has not ended yet: SIGKILL ends it`,
      ]
}

async function endQemu(qemu: Qemu): Promise<boolean> {
  try {
    await qemu.command(STEP, 'quit', {}, QUIT_MS)
    return true
  } catch (error) {
    if (error instanceof StepFailed) return false
    throw error
  }
}

async function runs(source: Qemu): Promise<boolean> {
  try {
    await source.until(({ runState }) => runState === 'running', { step: STEP, timeoutMs: RESUME_MS })
    return true
  } catch (error) {
    if (error instanceof StepFailed && error.failure.code === 'timed-out') return false
    throw error
  }
}

const REWIND_ADVICE = [
  'find out whether the guest has run at the destination',
  'where it has: end the source QEMU, and start the guest anew where its disks are open; its memory here is too old',
  'where it has not: cont at the source QEMU',
]

function disksUnclear(way: WayBack, endings: readonly Ending[]): MigrationEnding {
  const advice = endings.flatMap((ending) => (ending.kind === 'unclear' ? ending.advice : []))
  const opened = endings.some(({ openAt }) => openAt === 'destination')
  return unclear(way, endings, 'not every disk could be opened at the source again', [
    ...advice,
    ...(opened ? REWIND_ADVICE : ['run this again: it goes on from where it is']),
  ])
}

function unclear(way: WayBack, endings: readonly Ending[], reason: string, advice: readonly string[]): MigrationEnding {
  const disks = endings.flatMap((ending, index) => {
    const { name } = way.disks[index]?.disk ?? { name: '' }
    return ending.kind === 'unclear' ? ending.known : [`${name} is open at the ${String(ending.openAt)}`]
  })
  return { kind: 'unclear', guestAt: null, failure: way.failure, known: [reason, ...disks], advice }
}
