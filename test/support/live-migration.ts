/**
 * Live migrations of one guest between hosts. A host is a daemon over the guest's images, and whichever QEMU of it has the
 * guest; `interlockctl migrate-qemu` moves both, as an operator would call it. What must hold after each move is checked
 * here, so that no test can forget it: the guest runs at one place only, goes on writing there, and no block is bad.
 */

import { join } from 'node:path'
import { expect } from 'vitest'
import type { MigrationResult, MigrationStep } from '../../src/handover/index.ts'
import { INTERLOCKCTL } from './control-command.ts'
import type { Daemon } from './daemon.ts'
import { eventually } from './eventually.ts'
import { startProgram } from './foreign-program.ts'
import type { Outcome, Program } from './foreign-program.ts'
import { startGuestMachine } from './migrating-guest.ts'
import type { GuestMachine, GuestSystem, WriterCounts } from './migrating-guest.ts'
import type { Scratch } from './scratch.ts'

/** The exports of the guest's disks, in the order in which it sees them. */
export const DISKS = ['vda', 'vdb'] as const

export interface MoveOptions {
  readonly flags?: readonly string[]
  /** Where the orchestrator dies or waits, as INTERLOCKD_FAULT_POINT wants it. */
  readonly faultPoint?: string
}

/** One run of the orchestrator, and the QEMU that it moves the guest to. */
export interface Move {
  readonly to: Daemon
  readonly machine: GuestMachine
  readonly uri: string
  readonly program: Program
  /** Waits until the orchestrator says that it has got so far. */
  readonly reached: (step: MigrationStep) => Promise<void>
}

export class MovingGuest {
  readonly #scratch: Scratch
  readonly #system: GuestSystem
  machine: GuestMachine
  host: Daemon

  private constructor(scratch: Scratch, system: GuestSystem, machine: GuestMachine, host: Daemon) {
    this.#scratch = scratch
    this.#system = system
    this.machine = machine
    this.host = host
  }

  static async boot(scratch: Scratch, system: GuestSystem, host: Daemon): Promise<MovingGuest> {
    const machine = await startGuestMachine(scratch, system, { disks: serversOf(host) })
    await machine.setDepth(8)
    return new MovingGuest(scratch, system, machine, host)
  }

  /** Starts the destination's QEMU and the orchestrator. */
  async begin(to: Daemon, options: MoveOptions = {}): Promise<Move> {
    for (const name of DISKS) await to.ask('POST', `/exports/${name}/standby`)
    const uri = `unix:${join(this.#scratch.directory('incoming'), 'migration.sock')}`
    const machine = await startGuestMachine(this.#scratch, this.#system, { disks: serversOf(to), incoming: uri })
    return this.#run(to, machine, uri, options)
  }

  /** Another run of the orchestrator, with nothing new. */
  again({ to, machine, uri }: Move, options: MoveOptions = {}): Move {
    return this.#run(to, machine, uri, options)
  }

  /** A whole move, which must succeed. */
  async move(to: Daemon, options: MoveOptions = {}): Promise<MigrationResult> {
    return this.arrived(await this.begin(to, options))
  }

  /** The end of a move that must succeed. */
  async arrived(move: Move): Promise<MigrationResult> {
    const result = resultOf(await move.program.exited, 0)
    expect(result.ending).toMatchObject({ kind: 'migrated', notes: [] })
    await this.movedTo(move)
    return result
  }

  /** The guest is at the destination of the move: what the source's QEMU still holds is old, and ends. */
  async movedTo(move: Move): Promise<void> {
    const left = this.machine
    this.machine = move.machine
    this.host = move.to
    await left.program.stop('SIGKILL')
    await this.goesOn()
  }

  /** The end of a move that must lead back, with this status. */
  async broughtBack(move: Move, status = 1): Promise<MigrationResult> {
    const result = resultOf(await move.program.exited, status)
    expect(result.ending).toMatchObject({ kind: 'broughtBack', guestAt: 'source' })
    await move.machine.program.stop('SIGKILL')
    await this.goesOn()
    return result
  }

  /** It writes here and now, its disks are open here, and no block is bad. */
  async goesOn(): Promise<WriterCounts> {
    for (const name of DISKS) expect((await this.host.status(name)).state).toBe('open')
    const before = await this.machine.counts()
    const after = await eventually(
      'progress of the guest',
      async () => {
        const counts = await this.machine.counts()
        return counts.writes > before.writes && counts.reads > before.reads && counts
      },
      { timeoutMs: 60_000, intervalMs: 50 },
    )
    expect(after, this.machine.complaints.join('\n')).toMatchObject({ bad: 0, errors: 0 })
    return after
  }

  /** Where it runs while a move is under way and no orchestrator has the monitors. */
  async runsAt({ machine }: Move): Promise<('source' | 'destination')[]> {
    const places = { source: this.machine, destination: machine }
    const running: ('source' | 'destination')[] = []
    for (const place of ['source', 'destination'] as const) if (await places[place].runs()) running.push(place)
    return running
  }

  /** Every block is read and compared. */
  async check(): Promise<void> {
    expect(await this.machine.check(), this.machine.complaints.join('\n')).toEqual({
      blocks: DISKS.length * 512,
      bad: 0,
      errors: 0,
    })
  }

  #run(to: Daemon, machine: GuestMachine, uri: string, { flags = [], faultPoint }: MoveOptions): Move {
    const program = startProgram(
      this.#scratch,
      process.execPath,
      [
        ...[INTERLOCKCTL, '-o', 'json', 'migrate-qemu', ...DISKS.flatMap((name) => ['--disk', name])],
        ...['--from', this.host.controlUrl, '--to', to.controlUrl, '--uri', uri],
        ...['--source-qmp', this.machine.monitorUrl, '--destination-qmp', machine.monitorUrl, ...flags],
      ],
      faultPoint === undefined ? {} : { environment: { INTERLOCKD_FAULT_POINT: faultPoint } },
    )
    const reached = async (step: MigrationStep): Promise<void> => {
      await program.until(`step "${step}"`, 120_000, () => program.stderr.includes(`${step} after `))
    }
    return { to, machine, uri, program, reached }
  }
}

/** As -blockdev wants them. */
export function serversOf({ nbdPath }: Pick<Daemon, 'nbdPath'>): string[] {
  return DISKS.map((name) => `server.type=unix,server.path=${nbdPath},export=${name}`)
}

export function resultOf(outcome: Outcome, status: number): MigrationResult {
  expect(outcome.status, `${outcome.stdout}${outcome.stderr}`).toBe(status)
  return JSON.parse(outcome.stdout) as MigrationResult
}
