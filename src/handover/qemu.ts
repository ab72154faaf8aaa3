/**
 * One QEMU of a migration, as whoever drives it sees it: what it does, what its migration does, and when it said so. A
 * state is asked for as well as listened to, because an event that came while nobody was connected is gone. It knows no
 * disk.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { formatEndpoint } from '../foundation/endpoint.ts'
import type { Endpoint } from '../foundation/endpoint.ts'
import type { End } from './ending.ts'
import { StepFailed } from './ending.ts'
import { pause } from './errand.ts'
import { connectQmp } from './qmp-client.ts'
import type { QmpClient } from './qmp-client.ts'

/** As `query-status` and `query-migrate` say it, in QEMU's words. */
export interface QemuFacts {
  /** `running`, `inmigrate`, `finish-migrate`, `postmigrate`, `paused`… */
  readonly runState: string
  /**
   * `none`, `setup`, `active`, `pre-switchover`, `device`, `completed`, `cancelled`, `failed`… A QEMU whose guest came by
   * a migration keeps saying `completed` of that one until it starts another.
   */
  readonly migration: string
  /** Why a migration failed, where QEMU says it. */
  readonly reason: string | null
  readonly ramLeftBytes: number
  readonly ramSentBytes: number
}

/** Migrations that go on by themselves, or wait to be continued. */
const UNDER_WAY = ['setup', 'active', 'pre-switchover', 'device', 'wait-unplug', 'cancelling']

export function isUnderWay({ migration }: QemuFacts): boolean {
  return UNDER_WAY.includes(migration) || migration.startsWith('postcopy')
}

const LOOK_AGAIN_MS = 250
const GREETING_MS = 10_000

export class Qemu {
  readonly end: End
  readonly #endpoint: Endpoint
  #client: QmpClient | null = null
  /** When each event arrived here last, performance.now(); a MIGRATION event as `MIGRATION STATUS`. */
  readonly #arrivals = new Map<string, number>()
  #wake: () => void = () => undefined

  constructor(end: End, endpoint: Endpoint) {
    this.end = end
    this.#endpoint = endpoint
  }

  get url(): string {
    return formatEndpoint(this.#endpoint)
  }

  /** Its monitor is connected: what is asked now is sent. */
  get connected(): boolean {
    return this.#client !== null && this.#client.lost === null
  }

  close(): void {
    this.#client?.close()
  }

  /** When the event arrived here last; null where it did not. */
  arrivalOf(name: string): number | null {
    return this.#arrivals.get(name) ?? null
  }

  async command(
    step: string,
    name: string,
    commandArguments: Readonly<Record<string, unknown>> = {},
    timeoutMs?: number,
  ): Promise<unknown> {
    if (this.#client === null) throw failed(this.end, step, 'qemu-lost', `its monitor (${this.url}) does not answer`)
    const outcome = await this.#client.execute(name, commandArguments, timeoutMs)
    if (outcome.ok) return outcome.value
    const { kind, detail } = outcome.problem
    throw failed(this.end, step, kind === 'refused' ? 'qemu-refused' : 'qemu-lost', detail)
  }

  async facts(step: string): Promise<QemuFacts> {
    const [status, migration] = await Promise.all([
      this.command(step, 'query-status') as Promise<{ readonly status: string }>,
      this.command(step, 'query-migrate') as Promise<MigrationAnswer>,
    ])
    return {
      runState: status.status,
      migration: migration.status ?? 'none',
      reason: migration['error-desc'] ?? null,
      ramLeftBytes: migration.ram?.remaining ?? 0,
      ramSentBytes: migration.ram?.transferred ?? 0,
    }
  }

  /** Connects where there is no connection. `gone`: nobody listens there, so that QEMU has ended. */
  async connect(timeoutMs = GREETING_MS): Promise<'connected' | 'gone' | 'unknown'> {
    if (this.connected) return 'connected'
    const outcome = await connectQmp(this.#endpoint, timeoutMs)
    if (outcome.ok) {
      this.#client = outcome.value
      void this.#listen(outcome.value)
      return 'connected'
    }
    const { problem } = outcome
    return problem.kind === 'lost' && problem.nobodyListens ? 'gone' : 'unknown'
  }

  /** The first facts that the condition holds of. It is looked at when an event comes, and now and then. */
  async until(
    condition: (facts: QemuFacts) => boolean,
    options: { readonly step: string; readonly timeoutMs: number | null; readonly signal?: AbortSignal | undefined },
  ): Promise<QemuFacts> {
    const { step, timeoutMs, signal } = options
    const deadlineMs = performance.now() + (timeoutMs ?? Infinity)
    for (;;) {
      const woken = new Promise<void>((resolve) => {
        this.#wake = resolve
      })
      const facts = await this.facts(step)
      if (condition(facts)) return facts
      if (performance.now() >= deadlineMs) {
        const message = `${this.end} QEMU is ${facts.runState}, its migration ${facts.migration}, after ${String(timeoutMs)} ms`
        throw new StepFailed({ step, code: 'timed-out', message, problem: null })
      }
      await Promise.race([
        woken,
        sleep(LOOK_AGAIN_MS),
        ...(signal === undefined ? [] : [pause(LOOK_AGAIN_MS, options)]),
      ])
      await pause(0, options)
    }
  }

  async #listen(client: QmpClient): Promise<void> {
    for await (const { name, data, arrivedMs } of client.events()) {
      this.#arrivals.set(name === 'MIGRATION' ? `MIGRATION ${String(data['status'])}` : name, arrivedMs)
      this.#wake()
    }
    this.#wake()
  }
}

interface MigrationAnswer {
  readonly status?: string
  readonly 'error-desc'?: string
  readonly ram?: { readonly remaining: number; readonly transferred: number }
}

function failed(end: End, step: string, code: 'qemu-lost' | 'qemu-refused', detail: string): StepFailed {
  return new StepFailed({ step, code, message: `${end} QEMU: ${detail}`, problem: null })
}
