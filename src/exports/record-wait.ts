/**
 * What is said while something waits for the home of its record, a close above all: once when the waiting begins, and
 * once when it is over, in the log and as an event; all the while in the status. It waits for nothing itself.
 */

import { Refusal } from '../foundation/refusal.ts'
import type { RefusalCode } from '../foundation/refusal.ts'
import type { ExportContext } from './export-context.ts'
import type { HostedExport } from './hosted-export.ts'

const REASONS: ReadonlySet<RefusalCode> = new Set([
  'record-unreachable',
  'record-io',
  'record-unreadable',
  'state-directory',
])

export class RecordWait {
  readonly #context: ExportContext
  readonly #hosted: HostedExport
  #reason: string | null = null
  #sinceMs = 0

  constructor(context: ExportContext, hosted: HostedExport) {
    this.#context = context
    this.#hosted = hosted
  }

  /** Whether that is a failure of the home, or of where the receipt is kept: it may be over when it is asked again. */
  static isReason(error: unknown): error is Refusal {
    return error instanceof Refusal && REASONS.has(error.code)
  }

  get reason(): string | null {
    return this.#reason
  }

  /** `what` waits. Again and again it is one waiting. */
  begin(what: string, error: Error): void {
    const began = this.#reason === null
    this.#reason = `${what} waits for its record: ${error.message}`
    if (!began) return
    this.#sinceMs = this.#context.now()
    const code = error instanceof Refusal ? error.code : 'internal'
    this.#context.log.warn({ export: this.#hosted.name, code }, this.#reason)
    this.#context.emit(this.#hosted.name, { kind: 'record', change: 'waiting', detail: this.#reason })
  }

  /** What comes next says more: nobody waits for that any more. */
  drop(): void {
    this.#reason = null
  }

  end(): void {
    if (this.#reason === null) return
    this.#reason = null
    const detail = `the record was written after ${Math.round(this.#context.now() - this.#sinceMs)} ms of waiting`
    this.#context.log.info({ export: this.#hosted.name }, detail)
    this.#context.emit(this.#hosted.name, { kind: 'record', change: 'written', detail })
  }
}
