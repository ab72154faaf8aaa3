/**
 * What a person sees while daemons are emptied: on a terminal one live line over all of them, otherwise a plain line now
 * and then. It follows the events, which cost a daemon little however many exports it has, and never fails.
 */

import type { ControlClient, ExportState, StreamEvent } from '../client/index.ts'
import { formatDurationMs } from '../config/quantity.ts'
import { formatEndpoint } from '../foundation/endpoint.ts'
import { printable } from './presentation.ts'
import type { Terminal } from './terminal.ts'

const LIVE_INTERVAL_MS = 200
const PLAIN_INTERVAL_MS = 5000
/** An export that closes for longer than this is named. */
const SLOW_MS = 1000
const NAMED_MAX = 3

interface Seen {
  /** As a person is told of it. */
  readonly said: string
  state: ExportState
  requests: number
  elapsedMs: number
}

export class EvacuationProgress {
  readonly #terminal: Terminal
  readonly #clients: readonly ControlClient[]
  readonly #over = new AbortController()
  readonly #startedAt = performance.now()
  readonly #followed: Promise<unknown>
  readonly #timer: NodeJS.Timeout
  /** By daemon and name. */
  readonly #exports = new Map<string, Seen>()

  constructor(clients: readonly ControlClient[], terminal: Terminal) {
    this.#terminal = terminal
    this.#clients = clients
    this.#followed = Promise.allSettled(clients.map((client, index) => this.#follow(client, index)))
    const intervalMs = terminal.interactive ? LIVE_INTERVAL_MS : PLAIN_INTERVAL_MS
    this.#timer = setInterval(() => {
      this.#show()
    }, intervalMs)
  }

  async end(): Promise<void> {
    clearInterval(this.#timer)
    this.#over.abort()
    await this.#followed
    this.#terminal.clearLive()
  }

  /** The list comes after the stream is live, so that no change falls between them. */
  async #follow(client: ControlClient, index: number): Promise<void> {
    const { signal } = this.#over
    for await (const event of client.events({ signal })) {
      if (event.kind === 'ready' || event.kind === 'missed') {
        for (const { name, state } of await client.list({ signal })) this.#of(index, name).state = state
      } else {
        this.#take(index, event)
      }
    }
  }

  #take(index: number, event: Exclude<StreamEvent, { kind: 'ready' | 'missed' }>): void {
    if (event.kind === 'transition') this.#of(index, event.export).state = event.to
    if (event.kind !== 'drain') return
    const { parsed, admitted, held, submitted } = event.outstanding
    const seen = this.#of(index, event.export)
    seen.requests = parsed + admitted + held + submitted
    seen.elapsedMs = event.elapsedMs
  }

  #of(index: number, name: string): Seen {
    const key = `${index} ${name}`
    const seen = this.#exports.get(key) ?? { said: this.#say(index, name), state: 'open', requests: 0, elapsedMs: 0 }
    this.#exports.set(key, seen)
    return seen
  }

  /** Several daemons may have exports of the same name. */
  #say(index: number, name: string): string {
    const client = this.#clients.length > 1 ? this.#clients[index] : undefined
    return printable(client === undefined ? name : `${name} of ${formatEndpoint(client.endpoint)}`)
  }

  #show(): void {
    const exports = [...this.#exports.values()]
    if (exports.length === 0) return
    const closing = exports.filter(({ state }) => state === 'closing')
    const left = exports.filter(({ state }) => state === 'open' || state === 'opening').length
    // The report will say that it is not closed.
    const fenced = exports.filter(({ state }) => state === 'fenced').length
    const requests = closing.reduce((total, seen) => total + seen.requests, 0)
    const slowest = closing.filter(({ elapsedMs }) => elapsedMs >= SLOW_MS).sort((a, b) => b.elapsedMs - a.elapsedMs)
    const named = slowest.slice(0, NAMED_MAX).map(({ said }) => said)
    const gone = exports.length - closing.length - left - fenced
    const words = [
      `${gone} of ${exports.length} exports have gone`,
      `${closing.length} are closing with ${requests} requests left`,
      ...(left > 0 ? [`${left} to come`] : []),
      ...(fenced > 0 ? [`${fenced} fenced`] : []),
      ...(named.length > 0 ? [`slow: ${named.join(', ')}`] : []),
    ]
    const line = `${words.join(', ')} after ${formatDurationMs(performance.now() - this.#startedAt)}`
    if (this.#terminal.interactive) this.#terminal.live(line)
    else this.#terminal.message(line)
  }
}
