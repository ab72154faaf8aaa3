/**
 * Where a command line program writes: results to one stream, everything else to the other. On a terminal one line can
 * be live, replaced as often as wanted, and is gone when something else is written; without one, only whole lines.
 */

import type { Writable } from 'node:stream'

export interface TerminalStream extends Writable {
  readonly isTTY?: boolean
  readonly columns?: number
}

export class Terminal {
  readonly #results: TerminalStream
  readonly #messages: TerminalStream
  #live = false

  constructor(results: TerminalStream, messages: TerminalStream) {
    this.#results = results
    this.#messages = messages
  }

  /** Whether a live line can be shown. */
  get interactive(): boolean {
    return this.#messages.isTTY === true
  }

  /** Whether a person reads the results, as far as one can tell. */
  get resultsAreRead(): boolean {
    return this.#results.isTTY === true
  }

  result(text: string): void {
    this.clearLive()
    this.#results.write(`${text}\n`)
  }

  message(text: string): void {
    this.clearLive()
    this.#messages.write(`${text}\n`)
  }

  live(text: string): void {
    if (!this.interactive) return
    const columns = this.#messages.columns ?? 80
    this.#messages.write(`\r\u001b[2K${text.slice(0, columns - 1)}`)
    this.#live = true
  }

  clearLive(): void {
    if (this.#live) this.#messages.write('\r\u001b[2K')
    this.#live = false
  }
}
