/**
 * What a person sees while a close drains: on a terminal one live line, otherwise a plain line now and then. It only
 * looks (at events and status) and never fails: if looking does not work, the close does not care.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import type { ControlClient, PhaseCounts } from '../client/index.ts'
import { formatDurationMs } from '../config/quantity.ts'
import { outstandingLine } from './presentation.ts'
import type { Terminal } from './terminal.ts'

/** A close that is over by then shows nothing at all. */
const QUIET_MS = 300
const LIVE_INTERVAL_MS = 200
const PLAIN_INTERVAL_MS = 5000

/** Shows progress until the close has settled, and passes on how it settled. */
export async function withProgress<T>(
  client: ControlClient,
  name: string,
  terminal: Terminal,
  close: Promise<T>,
): Promise<T> {
  const over = new AbortController()
  const watching = new CloseProgress(client, name, terminal, over.signal).run()
  try {
    return await close
  } finally {
    over.abort()
    await watching
    terminal.clearLive()
  }
}

class CloseProgress {
  readonly #client: ControlClient
  readonly #name: string
  readonly #terminal: Terminal
  readonly #signal: AbortSignal
  readonly #startedAt = performance.now()
  #step = 'draining'

  constructor(client: ControlClient, name: string, terminal: Terminal, signal: AbortSignal) {
    this.#client = client
    this.#name = name
    this.#terminal = terminal
    this.#signal = signal
  }

  async run(): Promise<void> {
    await Promise.allSettled([this.#followSteps(), this.#poll()])
  }

  /** The events name the step; how much is left comes from the status, which is never older than the look at it. */
  async #followSteps(): Promise<void> {
    for await (const event of this.#client.events({ export: this.#name, signal: this.#signal })) {
      if (event.kind === 'drain') this.#step = event.step
    }
  }

  async #poll(): Promise<void> {
    const intervalMs = this.#terminal.interactive ? LIVE_INTERVAL_MS : PLAIN_INTERVAL_MS
    await sleep(QUIET_MS, undefined, { signal: this.#signal })
    for (;;) {
      const { outstanding } = await this.#client.status(this.#name, { signal: this.#signal })
      this.#show(outstanding)
      await sleep(intervalMs, undefined, { signal: this.#signal })
    }
  }

  #show(outstanding: PhaseCounts): void {
    const elapsed = formatDurationMs(performance.now() - this.#startedAt)
    const line = `${this.#name}: ${this.#step}, ${outstandingLine(outstanding)} left after ${elapsed}`
    if (this.#terminal.interactive) this.#terminal.live(line)
    else this.#terminal.message(line)
  }
}
