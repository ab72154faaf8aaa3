/**
 * An etcd cluster as one store: its endpoints in turn, a bound on every call, authentication, and the two calls that
 * records need. A daemon has one, for all its exports.
 *
 * 1. A call is tried at one endpoint after the other until one answers or its time is over. A swap may be tried again
 *    because it compares: of the same swap sent twice one at most is carried out.
 * 2. `uncertain` says that an attempt before the answer may have been carried out too.
 * 3. All answers are of one cluster, and none is older than what was known when it was asked for. Anything else (a
 *    mistaken endpoint, a cluster that was restored) is refused: it would be another truth.
 * 4. While nobody answers, calls fail fast: an outage costs each caller one look around, not the whole of its time.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import type { BlockingRunner } from '../../blocking/calls.ts'
import { assert, present } from '../../foundation/assert.ts'
import { EtcdAccess } from './access.ts'
import { exchangeLines, exchangeText } from './exchange.ts'
import { EtcdFailure } from './failure.ts'
import { EtcdOutage } from './outage.ts'
import {
  parseAnswer,
  rangeBody,
  readHeader,
  readRange,
  readSwap,
  readToken,
  serializableBody,
  swapBody,
} from './gateway.ts'
import type { KeyValue, SwapAnswer } from './gateway.ts'
import type { EtcdLog, EtcdSettings } from './settings.ts'

const ATTEMPT_MS_MIN = 500
const ATTEMPT_MS_MAX = 5_000
/** Between two rounds over the endpoints. */
const ROUND_PAUSE_MS = 100
/** After a failure nobody is asked again for so long. */
const QUIET_MS = 1_000

export interface Answered<T> {
  readonly answer: T
  readonly revision: number
  readonly uncertain: boolean
}

interface Outage {
  readonly failure: EtcdFailure
  readonly sinceMs: number
  quietUntilMs: number
}

export class EtcdClient {
  readonly endpoints: readonly string[]
  /** As all who ask through this client see it. */
  readonly outage: EtcdOutage
  readonly #settings: EtcdSettings
  readonly #access: EtcdAccess
  readonly #log: EtcdLog
  #preferred = 0
  #token: Promise<string | null> | null = null
  #clusterId: string | null = null
  /** Endpoints that were seen to be of the cluster. */
  readonly #known = new Set<string>()
  #revision = 0
  #outage: Outage | null = null

  constructor(settings: EtcdSettings, runner: BlockingRunner, log: EtcdLog) {
    assert(settings.endpoints.length > 0, 'an etcd client has an endpoint')
    this.endpoints = settings.endpoints
    this.outage = new EtcdOutage(settings.endpoints, log)
    this.#settings = settings
    this.#access = new EtcdAccess(settings, runner)
    this.#log = log
  }

  /** The key as of now, agreed upon by the cluster; or as it was at a revision. */
  async read(key: string, revision: number | null = null): Promise<Answered<KeyValue | null>> {
    const answered = await this.#call('/v3/kv/range', rangeBody(key, revision))
    return { ...answered, answer: readRange(answered.answer) }
  }

  /** Writes where the key is still at that revision; 0 where it does not exist. */
  async swap(key: string, expectedRevision: number, value: Uint8Array): Promise<Answered<SwapAnswer>> {
    const answered = await this.#call('/v3/kv/txn', swapBody(key, expectedRevision, value))
    return { ...answered, answer: readSwap(answered.answer) }
  }

  /** Whether that endpoint answers for the whole cluster. Rejects where it does not. */
  async look(endpoint: string, key: string): Promise<void> {
    await this.#attempt(endpoint, '/v3/kv/range', rangeBody(key), this.#attemptMs)
  }

  /** The lines of a stream of that endpoint, which ends when it loses its leader. */
  async *stream(endpoint: string, path: string, body: string, signal: AbortSignal): AsyncGenerator<string, void> {
    await this.#makeKnown(endpoint, this.#attemptMs)
    const { streams } = await this.#access.agents()
    const headers = { ...(await this.#authorization(endpoint, this.#attemptMs)), 'grpc-metadata-hasleader': 'true' }
    const exchange = { url: new URL(path, endpoint), agent: streams, headers, body, timeoutMs: this.#attemptMs }
    yield* exchangeLines(exchange, signal)
  }

  /** After a stream was refused because of its token. */
  forgetToken(): void {
    this.#token = null
  }

  close(): void {
    this.#access.close()
  }

  get #attemptMs(): number {
    return Math.max(ATTEMPT_MS_MIN, Math.min(ATTEMPT_MS_MAX, this.#settings.timeoutMs / 3))
  }

  async #call(path: string, body: object): Promise<Answered<unknown>> {
    const endMs = performance.now() + this.#settings.timeoutMs
    const leftMs = (): number => endMs - performance.now()
    const outage = this.#outage
    if (outage !== null && performance.now() < outage.quietUntilMs) throw outage.failure
    let uncertain = false
    // What an attempt says that the end of our patience cut short is only that.
    let telling: EtcdFailure | null = null
    for (let attempt = 1; ; attempt++) {
      const endpoint = this.#endpoint(this.#preferred)
      const allowedMs = Math.min(this.#attemptMs, Math.max(1, leftMs()))
      try {
        const answer = await this.#attempt(endpoint, path, body, allowedMs)
        this.#answers()
        return { answer, revision: readHeader(answer).revision, uncertain }
      } catch (error) {
        if (!(error instanceof EtcdFailure)) throw error
        uncertain ||= error.outcome === 'unknown'
        if (telling === null || allowedMs === this.#attemptMs) telling = error
        if (!error.passing) throw uncertain ? error.afterUncertainty() : error
        if (error.tokenRefused) this.#token = null
        else this.#leave(endpoint)
        const roundIsOver = attempt % this.endpoints.length === 0
        if (leftMs() <= 0 || (outage !== null && roundIsOver)) {
          throw this.#nobodyAnswers(uncertain ? telling.afterUncertainty() : telling)
        }
        if (roundIsOver) await sleep(Math.max(1, Math.min(ROUND_PAUSE_MS, leftMs())))
      }
    }
  }

  async #attempt(endpoint: string, path: string, body: object, attemptMs: number): Promise<unknown> {
    await this.#makeKnown(endpoint, attemptMs)
    const knownRevision = this.#revision
    const headers = await this.#authorization(endpoint, attemptMs)
    const answer = await this.#post(endpoint, path, body, headers, attemptMs)
    const { clusterId, revision } = readHeader(answer)
    if (clusterId !== this.#clusterId) {
      this.#known.delete(endpoint)
      throw foreign(endpoint, clusterId, this.#clusterId)
    }
    if (revision < knownRevision) {
      const detail = `${endpoint} is at revision ${revision}, and ${knownRevision} was seen before: it has lost what it knew`
      throw new EtcdFailure(detail, { outcome: 'unknown', passing: false })
    }
    this.#revision = Math.max(this.#revision, revision)
    this.outage.answered()
    return answer
  }

  /** Before anything is asked of an endpoint that could change something. */
  async #makeKnown(endpoint: string, attemptMs: number): Promise<void> {
    if (this.#known.has(endpoint)) return
    const headers = await this.#authorization(endpoint, attemptMs)
    const body = serializableBody(this.#settings.prefix)
    const { clusterId } = readHeader(await this.#post(endpoint, '/v3/kv/range', body, headers, attemptMs))
    this.#clusterId ??= clusterId
    if (clusterId !== this.#clusterId) throw foreign(endpoint, clusterId, this.#clusterId)
    this.#known.add(endpoint)
  }

  async #post(
    endpoint: string,
    path: string,
    body: object,
    headers: Readonly<Record<string, string>>,
    timeoutMs: number,
  ): Promise<unknown> {
    const { calls } = await this.#access.agents()
    const url = new URL(path, endpoint)
    return parseAnswer(await exchangeText({ url, agent: calls, headers, body: JSON.stringify(body), timeoutMs }))
  }

  async #authorization(endpoint: string, attemptMs: number): Promise<Readonly<Record<string, string>>> {
    if (this.#token === null) {
      const token = this.#authenticate(endpoint, attemptMs)
      this.#token = token
      token.catch(() => {
        if (this.#token === token) this.#token = null
      })
    }
    const token = await this.#token
    return token === null ? {} : { authorization: token }
  }

  async #authenticate(endpoint: string, attemptMs: number): Promise<string | null> {
    const user = await this.#access.user()
    if (user === null) return null
    try {
      return readToken(await this.#post(endpoint, '/v3/auth/authenticate', { ...user }, {}, attemptMs))
    } catch (error) {
      if (!(error instanceof EtcdFailure)) throw error
      // etcd's own client goes on without a token too: authentication may be switched on later.
      if (error.message.includes('authentication is not enabled')) return null
      // Nothing that could change a record was sent.
      throw new EtcdFailure(error.message, { outcome: 'notDone', passing: error.passing })
    }
  }

  #endpoint(index: number): string {
    return present(this.endpoints[index % this.endpoints.length], 'an endpoint')
  }

  #leave(endpoint: string): void {
    if (this.#endpoint(this.#preferred) === endpoint) this.#preferred = (this.#preferred + 1) % this.endpoints.length
  }

  #answers(): void {
    if (this.#outage === null) return
    const outageMs = Math.round(performance.now() - this.#outage.sinceMs)
    this.#outage = null
    this.#log.info({ endpoints: this.endpoints, outageMs }, 'etcd answers again')
  }

  #nobodyAnswers(failure: EtcdFailure): EtcdFailure {
    const nowMs = performance.now()
    this.outage.missed(failure.message)
    if (this.#outage === null) {
      const { message } = failure
      this.#log.warn({ endpoints: this.endpoints, error: message }, 'etcd does not answer: nothing new is opened')
    }
    const known = new EtcdFailure(failure.message, { outcome: 'notDone', passing: true })
    this.#outage = { failure: known, sinceMs: this.#outage?.sinceMs ?? nowMs, quietUntilMs: nowMs + QUIET_MS }
    return failure
  }
}

function foreign(endpoint: string, clusterId: string, expected: string | null): EtcdFailure {
  const detail =
    `${endpoint} is of cluster ${clusterId}, and not of ${expected ?? 'none'}: an endpoint of another cluster, or one that` +
    ' was restored from a backup; start the daemon again once it is known to have the right records'
  return new EtcdFailure(detail, { outcome: 'unknown', passing: false })
}
