/**
 * For how long a cluster has answered nobody of this daemon: no call, and not the stream by which changes are told. It
 * decides nothing. It is there to be measured, and it says in the log, again and again, what an outage means meanwhile:
 * what is open serves on, so nothing else would make anybody look.
 */

import type { EtcdLog } from './settings.ts'

const ALARM_MS = 10_000

export class EtcdOutage {
  readonly #endpoints: readonly string[]
  readonly #log: EtcdLog
  #sinceMs: number | null = null
  #alarmsCount = 0

  constructor(endpoints: readonly string[], log: EtcdLog) {
    this.#endpoints = endpoints
    this.#log = log
  }

  /** 0 while it answers, and while nobody asks. */
  get lastsMs(): number {
    return this.#sinceMs === null ? 0 : performance.now() - this.#sinceMs
  }

  /** It did not answer; `reason` says how. */
  missed(reason: string): void {
    this.#sinceMs ??= performance.now()
    const outageMs = Math.round(this.lastsMs)
    if (outageMs < (this.#alarmsCount + 1) * ALARM_MS) return
    this.#alarmsCount = Math.floor(outageMs / ALARM_MS)
    this.#log.warn(
      { endpoints: this.#endpoints, outageMs, error: reason },
      'etcd has not answered for long: what is open serves on, nothing opens, and closes wait for their record',
    )
  }

  answered(): void {
    if (this.#alarmsCount > 0) {
      this.#log.info({ endpoints: this.#endpoints, outageMs: Math.round(this.lastsMs) }, 'etcd is back')
    }
    this.#sinceMs = null
    this.#alarmsCount = 0
  }
}
