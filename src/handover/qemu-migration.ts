/**
 * A live migration of a guest and of its disks, between two QEMUs and two daemons. QEMU pauses before its switch-over;
 * there the source's disks begin to close, and they close while QEMU sends what is left of the guest.
 *
 *     ready ─▶ copying ─▶ stopped ─▶ switching ────────────────────▶ arrived
 *     preflight,          close,     disks: closed, then opened;     cont
 *     migrate             continue   QEMU: the rest of the memory
 *
 * 1. The guest runs at the destination only after every disk is open there and all of its memory has come: `cont` is the
 *    point of no return. Before it, every failure and every cancel lead back (qemu-way-back.ts); after it, none.
 * 2. Nothing is closed before QEMU says that it stands still: what QEMU still has to write or to flush would be parked,
 *    and QEMU would wait for it without end.
 * 3. It begins wherever both QEMUs and the disks are, so that it can be run again after its own crash.
 */

import type { Endpoint } from '../foundation/endpoint.ts'
import { faultPoint } from '../fault-points/fault-point.ts'
import { DiskHandover } from './disk-handover.ts'
import { awaitClosed, shut, takeThere } from './disk-passage.ts'
import type { DiskRest } from './disk-passage.ts'
import type { Failure } from './ending.ts'
import { StepFailed } from './ending.ts'
import { pause } from './errand.ts'
import { MigrationCourse } from './migration-course.ts'
import type { MigrationMoment, MigrationStep } from './migration-course.ts'
import type { MigrationEnding } from './migration-ending.ts'
import { Qemu } from './qemu.ts'
import type { QemuFacts } from './qemu.ts'
import { mayHaveRunThere, phaseOf } from './qemu-phase.ts'
import type { Phase } from './qemu-phase.ts'
import { bringBack } from './qemu-way-back.ts'
import type { HandoverTerms } from './terms.ts'
import type { TimelineDocument } from './timeline.ts'
import type { Disk } from './view.ts'

export interface MigrationPlan {
  readonly disks: readonly Disk[]
  readonly sourceMonitor: Endpoint
  readonly destinationMonitor: Endpoint
  /** Where the source's QEMU reaches the destination's, which was started with -incoming and -S. */
  readonly uri: string
  readonly terms?: Partial<HandoverTerms>
  /** How long memory may be copied while the guest runs. Null: for ever. */
  readonly copyTimeoutMs?: number | null
  /** Cancels it: until the guest runs at the destination that leads back. */
  readonly signal?: AbortSignal
  readonly onStep?: (moment: MigrationMoment) => void
}

export interface MigrationResult {
  readonly ending: MigrationEnding
  readonly course: readonly MigrationMoment[]
  readonly disks: readonly TimelineDocument[]
}

export async function migrateQemu(plan: MigrationPlan): Promise<MigrationResult> {
  return new QemuMigration(plan).run()
}

class QemuMigration {
  readonly #plan: MigrationPlan
  readonly #disks: readonly DiskHandover[]
  readonly #course: MigrationCourse
  /** Ends every waiting: somebody has cancelled, or another part of the switch-over has failed. */
  readonly #signal: AbortSignal
  readonly #abandoned = new AbortController()
  readonly #source: Qemu
  readonly #destination: Qemu
  #mayHaveRun = true
  /** Something was changed, by this run or by an earlier one. */
  #begun = false
  /** The destination was told to let the guest run. */
  #committed = false

  constructor(plan: MigrationPlan) {
    this.#plan = plan
    this.#course = new MigrationCourse(plan.onStep)
    this.#source = new Qemu('source', plan.sourceMonitor)
    this.#destination = new Qemu('destination', plan.destinationMonitor)
    this.#signal = AbortSignal.any([this.#abandoned.signal, ...(plan.signal === undefined ? [] : [plan.signal])])
    this.#disks = plan.disks.map((disk) => new DiskHandover(disk, plan.terms, this.#signal))
    // What is left of the memory is copied on the very processors that looking at the disks takes.
    for (const { sampling } of this.#disks) sampling.lookSeldom(true)
  }

  async run(): Promise<MigrationResult> {
    let ending: MigrationEnding
    try {
      ending = await this.#go()
    } catch (error) {
      if (!(error instanceof StepFailed)) throw error
      ending = await this.#failed(error.failure)
    } finally {
      this.#source.close()
      this.#destination.close()
    }
    for (const disk of this.#disks) await disk.sampling.end()
    return { ending, course: this.#course.moments, disks: this.#disks.map(({ timeline }) => timeline.document) }
  }

  async #go(): Promise<MigrationEnding> {
    const phase = await this.#look()
    await this.#passed('looked')
    switch (phase.kind) {
      case 'stuck':
        throw stuckFailure(phase)
      case 'arrived':
        this.#committed = true
        return this.#arrived(true)
      case 'ready':
        await this.#begin()
        await this.#awaitStopped()
        break
      case 'copying':
        await this.#awaitStopped()
        break
      case 'stopped':
      case 'switching':
        break
    }
    await this.#switchOver(phase)
    await this.#letRun()
    return this.#arrived(false)
  }

  async #look(): Promise<Phase> {
    const [source, destination] = await Promise.all([seen(this.#source), seen(this.#destination)])
    const phase = phaseOf(source, destination)
    this.#begun = phase.kind === 'copying' || phase.kind === 'stopped' || phase.kind === 'switching'
    this.#mayHaveRun = mayHaveRunThere(source, destination) && !(await this.#someAtSource())
    if (this.#begun && destination === null) throw silent(this.#destination)
    return phase
  }

  /** Whether a disk has not left the source: then no earlier run has let the guest run at the destination. */
  async #someAtSource(): Promise<boolean> {
    const standings = await Promise.all(this.#disks.map((disk) => disk.stand()))
    return standings.some(({ standing }) => standing.kind === 'start' || standing.kind === 'closing')
  }

  // ---- before the guest stops

  async #begin(): Promise<void> {
    await this.#refuseUnready()
    await all(this.#disks.map((disk) => disk.passPreflight()))
    await this.#source.command('prepare', 'migrate-set-capabilities', {
      capabilities: capabilities('events', 'pause-before-switchover'),
    })
    await this.#destination.command('prepare', 'migrate-set-capabilities', {
      capabilities: capabilities('events', 'late-block-activate'),
    })
    this.#begun = true
    await all(this.#disks.map((disk) => disk.standby()))
    await this.#passed('checked')
    await this.#source.command('migrate', 'migrate', { uri: this.#plan.uri })
    await this.#passed('copying')
  }

  /** The guest runs at the source; so its disks must be open there. Where an earlier run has left them they go back. */
  async #refuseUnready(): Promise<void> {
    for (const disk of this.#disks) {
      const { standing } = await disk.stand()
      if (standing.kind === 'start') continue
      this.#begun = standing.kind !== 'stuck'
      const detail = standing.kind === 'stuck' ? standing.reason : 'an earlier run has left it on its way'
      const message = `${disk.disk.name} is not open at the source, where the guest runs: ${detail}`
      throw new StepFailed({ step: 'look', code: 'not-ready-to-move', message, problem: null })
    }
  }

  async #awaitStopped(): Promise<void> {
    const { copyTimeoutMs = null } = this.#plan
    const facts = await this.#source.until(
      ({ migration }) => ['pre-switchover', 'device', 'completed', 'failed', 'cancelled', 'none'].includes(migration),
      { step: 'copy', timeoutMs: copyTimeoutMs, signal: this.#signal },
    )
    if (facts.migration !== 'pre-switchover') throw migrationFailed('copy', facts)
    await this.#passed('stopped', this.#source.arrivalOf('MIGRATION pre-switchover'))
  }

  // ---- while it stands still

  async #switchOver(phase: Phase): Promise<void> {
    this.#course.mark('stopped')
    const fresh = phase.kind === 'ready'
    const rests = await all(this.#disks.map((disk) => shut(disk, fresh)))
    await this.#passed('closing')
    // A cancel that came while the gates were shut is heard while QEMU still waits, not in the middle of its last copy.
    await pause(0, { step: 'continue', signal: this.#signal })
    if (phase.kind !== 'switching') {
      await this.#source.command('continue', 'migrate-continue', { state: 'pre-switchover' })
    }
    await this.#passed('continued')
    await this.#together([this.#moveDisks(rests), this.#awaitCopied()])
  }

  async #moveDisks(rests: readonly DiskRest[]): Promise<void> {
    const closed = this.#disks.map((disk, index) => (rests[index] === 'close' ? awaitClosed(disk) : Promise.resolve()))
    // Each disk is opened as soon as it is closed, whatever the others do.
    const opened = this.#disks.map(async (disk, index) => {
      await closed[index]
      if (rests[index] !== 'nothing') await disk.open()
    })
    await this.#together([
      Promise.all(closed).then(() => this.#passed('closed')),
      Promise.all(opened).then(() => this.#passed('opened')),
    ])
  }

  async #awaitCopied(): Promise<void> {
    const options = { step: 'copy the rest', timeoutMs: this.#disks[0]?.terms.timeoutMs ?? null, signal: this.#signal }
    const facts = await this.#source.until(
      ({ migration }) => ['completed', 'failed', 'cancelled', 'none'].includes(migration),
      options,
    )
    if (facts.migration !== 'completed') throw migrationFailed('copy the rest', facts)
    await this.#destination.until(({ runState }) => runState !== 'inmigrate', options)
    await this.#passed('copied', latest(this.#source, this.#destination, 'MIGRATION completed'))
  }

  /** What fails first ends the others; it is thrown when all of them have ended. */
  async #together(parts: readonly Promise<unknown>[]): Promise<void> {
    const failures: unknown[] = []
    await Promise.all(
      parts.map((part) =>
        part.catch((error: unknown) => {
          failures.push(error)
          this.#abandoned.abort()
        }),
      ),
    )
    if (failures.length > 0) throw failures[0]
  }

  // ---- the point of no return, and after it

  async #letRun(): Promise<void> {
    const options = { step: 'let it run', signal: this.#signal }
    await pause(0, options)
    await faultPoint('migrate: before running')
    // Over a connection that is lost nothing is sent: the guest was not let run.
    if (!this.#destination.connected) throw silent(this.#destination)
    this.#committed = true
    try {
      await this.#destination.command(options.step, 'cont')
    } catch (error) {
      // A QEMU that refuses has not let it run.
      if (error instanceof StepFailed && error.failure.code === 'qemu-refused') this.#committed = false
      throw error
    }
    for (const { sampling } of this.#disks) sampling.lookSeldom(false)
    await this.#passed('running', this.#destination.arrivalOf('RESUME'))
  }

  async #arrived(already: boolean): Promise<MigrationEnding> {
    const notes: string[] = []
    for (const disk of this.#disks) {
      try {
        if (already) await takeThere(disk)
        await disk.verify()
        if (disk.terms.early && (await disk.awaitDrained()) === null) {
          notes.push(`${disk.disk.name}: the source is still draining: leave its daemon running`)
        }
      } catch (error) {
        if (!(error instanceof StepFailed)) throw error
        notes.push(`${disk.disk.name}: ${error.failure.step}: ${error.failure.message}`)
      }
    }
    await this.#passed('verified')
    const downtime = this.#course.downtime(this.#source.arrivalOf('STOP'))
    return { kind: 'migrated', guestAt: 'destination', already, downtime, notes }
  }

  // ---- when something fails

  async #failed(failure: Failure): Promise<MigrationEnding> {
    if (this.#committed) return this.#unknownRun(failure)
    if (!this.#begun) {
      const runs = (await this.#source.facts('look').catch(() => null))?.runState === 'running'
      return { kind: 'unchanged', guestAt: runs ? 'source' : null, failure, advice: adviceOf(failure) }
    }
    await this.#passed('way back')
    return bringBack({
      failure,
      disks: this.#disks,
      source: this.#source,
      destination: this.#destination,
      mayHaveRun: this.#mayHaveRun,
      reached: (step) => this.#passed(step),
    })
  }

  /** It was told to run, and did not say that it does. */
  #unknownRun(failure: Failure): MigrationEnding {
    return {
      kind: 'unclear',
      guestAt: null,
      failure,
      known: ['the destination QEMU was told to let the guest run, and did not answer', 'the disks are open there'],
      advice: [
        `look at the destination QEMU (${this.#destination.url}): query-status`,
        'where it runs, or can still be made to, run this again',
        'never let the guest run on at the source: its memory is older than its disks',
      ],
    }
  }

  async #passed(step: MigrationStep, arrivedMs: number | null = null): Promise<void> {
    this.#course.mark(step, arrivedMs)
    await faultPoint(`migrate: ${step}`)
  }
}

/** Waits for all of them, whatever happens to one: what is still under way must not meet the way back. */
async function all<T>(parts: readonly Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(parts)
  return Promise.all(parts)
}

function capabilities(...names: readonly string[]): readonly object[] {
  return names.map((capability) => ({ capability, state: true }))
}

function migrationFailed(step: string, { migration, runState, reason }: QemuFacts): StepFailed {
  const why = reason === null ? '' : `: ${reason}`
  const message = `QEMU's migration is ${migration}, the source ${runState}${why}`
  return new StepFailed({ step, code: 'migration-failed', message, problem: null })
}

function stuckFailure(phase: Extract<Phase, { kind: 'stuck' }>): StepFailed {
  const message = [phase.reason, ...phase.advice].join('; ')
  return new StepFailed({ step: 'look', code: 'not-ready-to-move', message, problem: null })
}

function adviceOf(failure: Failure): readonly string[] {
  return failure.code === 'cancelled' ? ['run it again'] : []
}

function latest(source: Qemu, destination: Qemu, event: string): number | null {
  const arrivals = [source.arrivalOf(event), destination.arrivalOf(event)]
  const known = arrivals.filter((arrival) => arrival !== null)
  return known.length === arrivals.length ? Math.max(...known) : null
}

/** What it does now; null where its monitor does not answer. */
async function seen(qemu: Qemu): Promise<QemuFacts | null> {
  return (await qemu.connect()) === 'connected' ? qemu.facts('look') : null
}

function silent({ end, url }: Qemu): StepFailed {
  const message = `${end} QEMU: its monitor (${url}) does not answer`
  return new StepFailed({ step: 'connect', code: 'qemu-lost', message, problem: null })
}
