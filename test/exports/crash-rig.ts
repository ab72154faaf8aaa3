/**
 * Two hosts over one image and one record, each with a fault that a test arms while it runs: the process dies or stops at
 * the named point the next time it gets there. A host that is restarted is the same host. Either can fence the other, by a
 * command that says yes; it is for the test to see that this is true.
 *
 * A rig is used again for as long as nothing goes wrong on it: what a crash leaves is what the next one finds. Several are
 * used side by side, because starting a daemon again is most of the time that a crash takes.
 */

import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import type { ExportStatus } from '../../src/exports/verbs.ts'
import type { Receipt } from '../../src/interlock/receipt.ts'
import type { OwnershipRecord } from '../../src/ownership/home.ts'
import { startDaemon } from '../support/daemon.ts'
import type { Daemon, EngineName } from '../support/daemon.ts'
import { eventually } from '../support/eventually.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { blockNumber, connectFrontend, numberedBlock } from '../support/nbd-frontend.ts'
import { Scratch } from '../support/scratch.ts'
import { newestOf, placeOf, refusal } from './ownership-rig.ts'

const BLOCK_BYTES = 4_096

export class Host {
  readonly name: string
  readonly #scratch: Scratch
  readonly #path: string
  readonly #engine: EngineName
  readonly #stateDirectory: string
  readonly #faultPath: string
  readonly #ownershipSettings: readonly string[]
  #daemon: Daemon | null = null

  constructor(
    { scratch, path, engine }: { readonly scratch: Scratch; readonly path: string; readonly engine: EngineName },
    name: string,
    identities: Readonly<Record<string, string>>,
  ) {
    this.name = name
    this.#scratch = scratch
    this.#path = path
    this.#engine = engine
    const directory = scratch.directory(`host-${name}`)
    this.#faultPath = join(directory, 'fault')
    this.#stateDirectory = join(directory, 'state')
    mkdirSync(this.#stateDirectory)
    writeFileSync(join(this.#stateDirectory, 'host-identity'), `${identities[name] ?? ''}\n`)
    const plugs = Object.entries(identities).map(([plug, identity]) => `${identity} = "${plug}"`)
    const { settings } = placeOf(path)
    this.#ownershipSettings = [...settings, '[fence]', 'command = ["/bin/true"]', '[fence.plugs]', ...plugs]
  }

  get daemon(): Daemon {
    if (this.#daemon === null) throw new Error(`host ${this.name} was not started`)
    return this.#daemon
  }

  async start(): Promise<void> {
    this.#daemon = await startDaemon(this.#scratch, {
      exports: [{ name: 'vda', path: this.#path }],
      ownership: placeOf(this.#path).ownership,
      engine: this.#engine,
      tcp: false,
      stateDirectory: this.#stateDirectory,
      ownershipSettings: this.#ownershipSettings,
      environment: { INTERLOCKD_FAULT_POINT: this.#faultPath },
    })
  }

  arm(fault: string): void {
    writeFileSync(this.#faultPath, fault)
  }

  /** Asks for the verb, which must be what the process dies of. */
  async dieOf(fault: string, verb: string, body: object = {}): Promise<void> {
    this.arm(`${fault}:kill`)
    await Promise.all([this.daemon.api('POST', `/exports/vda/${verb}`, body).catch(() => null), this.died(fault)])
  }

  /** A start that ends at the point. */
  async dieStarting(fault: string): Promise<void> {
    this.arm(`${fault}:kill`)
    await this.start().catch(() => null)
    await this.consumed()
    await this.daemon.program.exited
  }

  /** What was armed has happened. */
  async consumed(): Promise<void> {
    await eventually('the fault', () => !existsSync(this.#faultPath), { timeoutMs: 30_000 })
  }

  async died(fault: string): Promise<void> {
    const { status } = await this.daemon.program.exited
    expect({ fault, status, armed: existsSync(this.#faultPath) }).toEqual({ fault, status: 128 + 9, armed: false })
  }

  /** Waits until it has stopped there; `daemon.program.signal('SIGCONT')` lets it go on. */
  async stoppedAt(fault: string): Promise<void> {
    const { pid } = this.daemon
    await eventually(`the stop at '${fault}'`, () => /^State:\s+T/mu.test(readFileSync(`/proc/${pid}/status`, 'utf8')))
  }

  /** After a start that opens by itself: what the last run left in the kernel is waited for. */
  opened(): Promise<ExportStatus> {
    const status = async (): Promise<ExportStatus | false> => {
      const found = await this.daemon.status('vda')
      return found.state === 'open' && found
    }
    return eventually(`the opening by ${this.name}`, status, { timeoutMs: 60_000 })
  }

  /** A write that was answered. */
  async write(number: number): Promise<void> {
    const frontend = await connectFrontend(this.#scratch, this.daemon.address, 'vda')
    await frontend.request('WRITE', { offset: 0, data: numberedBlock(number) })
    frontend.drop()
  }

  /** Of a close that is asked for again, which changes nothing. */
  async receipt(): Promise<Receipt> {
    return (await this.daemon.close('vda')).receipt
  }
}

export class CrashRig {
  readonly victim: Host
  readonly other: Host
  readonly #path: string
  #written = 0

  private constructor(scratch: Scratch, engine: EngineName) {
    const identities = { victim: 'a'.repeat(32), other: 'b'.repeat(32) }
    this.#path = makeImage(scratch, MEBIBYTE)
    const served = { scratch, path: this.#path, engine }
    this.victim = new Host(served, 'victim', identities)
    this.other = new Host(served, 'other', identities)
  }

  /** Both in standby, and the record closed. */
  static async start(scratch: Scratch, engine: EngineName): Promise<CrashRig> {
    const rig = new CrashRig(scratch, engine)
    await rig.victim.start()
    await rig.other.start()
    await rig.rest()
    return rig
  }

  get newest(): OwnershipRecord {
    return newestOf(this.#path)
  }

  /** The host opens, and a write there is answered: it must be there ever after. */
  async openAndWrite(host: Host, options: Readonly<Record<string, unknown>> = {}): Promise<number> {
    const { generation } = await host.daemon.open('vda', options)
    await this.write(host)
    return generation
  }

  async write(host: Host): Promise<void> {
    this.#written += 1
    await host.write(this.#written)
  }

  async refuses(host: Host, options: object = {}): Promise<void> {
    expect(await refusal(host.daemon, 'open', options)).toMatchObject({ status: 409, code: 'held-by-other' })
  }

  /** Nothing that was answered is lost. */
  checkImage(): void {
    const block = readFileSync(this.#path).subarray(0, BLOCK_BYTES)
    expect(blockNumber(block)).toBe(this.#written)
  }

  /** Closes whoever has it; both are in standby then. */
  async rest(): Promise<void> {
    this.checkImage()
    for (const { daemon } of [this.victim, this.other]) {
      if ((await daemon.status('vda')).state === 'open') await daemon.close('vda')
      await daemon.api('POST', '/exports/vda/standby', {})
      expect((await daemon.status('vda')).state).toBe('standby')
    }
    expect(this.newest).toMatchObject({ state: 'closed', draining: [] })
  }
}

export type EngineChoice = EngineName | 'either'

interface Place {
  readonly engine: EngineName
  rig: CrashRig | null
  used: boolean
}

/** Rigs for courses that run beside each other, one for each engine named. All end with `dispose`. */
export class CrashRigs {
  readonly #scratch = new Scratch()
  readonly #places: readonly Place[]
  readonly #waiting: (() => void)[] = []

  constructor(engines: readonly EngineName[]) {
    this.#places = engines.map((engine) => ({ engine, rig: null, used: false }))
  }

  /** On whichever is free, with that engine. A rig on which a course has failed is not used again. */
  async use(engine: EngineChoice, course: (rig: CrashRig) => Promise<void>): Promise<void> {
    const place = await this.#free(engine)
    try {
      const rig = place.rig ?? (await CrashRig.start(this.#scratch, place.engine))
      place.rig = null
      await course(rig)
      place.rig = rig
    } finally {
      place.used = false
      for (const wake of this.#waiting.splice(0)) wake()
    }
  }

  dispose(): Promise<void> {
    return this.#scratch.dispose()
  }

  async #free(engine: EngineChoice): Promise<Place> {
    for (;;) {
      const place = this.#places.find((each) => !each.used && (engine === 'either' || each.engine === engine))
      if (place !== undefined) {
        place.used = true
        return place
      }
      await new Promise<void>((resolve) => this.#waiting.push(resolve))
    }
  }
}
