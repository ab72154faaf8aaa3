/**
 * Tells of changes of keys soon after they happen: one stream for all the keys of a daemon, at one endpoint. It is best
 * effort, and complete all the same: what happens while there is no stream is told by the next one.
 *
 * 1. Each key has the revision up to which it is known. A stream begins right after that; it is lost and made again
 *    without losing or repeating anything, wherever the next endpoint is.
 * 2. Where etcd has compacted what is missing, the key is read as it is, and followed from there; with it all others
 *    of which something may be missing.
 * 3. A stream proves nothing by being silent. Its member is asked again and again for something that only a member with
 *    a majority can answer; one that cannot is left. No stream grows older than `STREAM_AGE_MS`.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { present } from '../../foundation/assert.ts'
import type { EtcdClient } from './client.ts'
import { EtcdFailure } from './failure.ts'
import { parseAnswer, readWatch, watchBody } from './gateway.ts'
import type { KeyValue, WatchNews } from './gateway.ts'

export const LOOK_INTERVAL_MS = 5_000
export const STREAM_AGE_MS = 300_000
/** Half of a pause is left to chance. */
export const PAUSE_MS_MIN = 200
export const PAUSE_MS_MAX = 5_000
/** Keys that come and go at once make one new stream. */
const GATHER_MS = 20
/** Why a stream was aborted that is to go on elsewhere. */
const LOST = 'its member does not answer'

type Listener = (found: KeyValue | null) => void

interface Followed {
  readonly watchId: number
  readonly key: string
  readonly listener: Listener
  /** Everything up to here was told; null where the key has to be read. */
  revision: number | null
  toldRevision: number
}

export class EtcdWatch {
  readonly #client: EtcdClient
  readonly #followed = new Map<number, Followed>()
  #lastWatchId = 0
  #endpointIndex = 0
  #stream: AbortController | null = null
  #running: Promise<void> | null = null
  #gathering: NodeJS.Timeout | null = null
  #closed = false

  constructor(client: EtcdClient) {
    this.#client = client
  }

  /** Tells how the key is, and then each change. Returns the function that ends it. */
  follow(key: string, listener: Listener): () => void {
    this.#lastWatchId += 1
    const watchId = this.#lastWatchId
    this.#followed.set(watchId, { watchId, key, listener, revision: null, toldRevision: -1 })
    this.#changed()
    return () => {
      if (this.#followed.delete(watchId)) this.#changed()
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#followed.clear()
    if (this.#gathering !== null) clearTimeout(this.#gathering)
    this.#stream?.abort()
    await this.#running
  }

  #changed(): void {
    if (this.#closed || this.#gathering !== null) return
    this.#gathering = setTimeout(() => {
      this.#gathering = null
      this.#stream?.abort()
      this.#running ??= this.#run().finally(() => {
        this.#running = null
      })
    }, GATHER_MS)
    this.#gathering.unref()
  }

  async #run(): Promise<void> {
    let pauseMs = PAUSE_MS_MIN
    while (!this.#closed && this.#followed.size > 0) {
      const stream = new AbortController()
      this.#stream = stream
      const beganMs = performance.now()
      try {
        await this.#catchUp()
        await this.#follow(stream)
      } catch (error) {
        if (!(error instanceof EtcdFailure)) throw error
        if (error.tokenRefused) this.#client.forgetToken()
        if (!stream.signal.aborted) this.#client.outage.missed(error.message)
      }
      if (stream.signal.reason === LOST) this.#client.outage.missed(LOST)
      // Ended by a change of the keys: the next stream is wanted at once, at the same place.
      if (stream.signal.aborted && stream.signal.reason !== LOST) continue
      this.#endpointIndex += 1
      pauseMs = performance.now() - beganMs > PAUSE_MS_MAX ? PAUSE_MS_MIN : Math.min(PAUSE_MS_MAX, pauseMs * 2)
      await sleep(pauseMs * (0.5 + Math.random() / 2), null, { ref: false })
    }
    this.#stream = null
    // Nobody is there any more to notice that it is back.
    this.#client.outage.answered()
  }

  async #catchUp(): Promise<void> {
    const behind = [...this.#followed.values()].filter(({ revision }) => revision === null)
    await Promise.all(
      behind.map(async (followed) => {
        const { answer, revision } = await this.#client.read(followed.key)
        followed.revision = revision
        this.#tell(followed, answer?.revision ?? 0, answer)
      }),
    )
  }

  async #follow(stream: AbortController): Promise<void> {
    const { endpoints } = this.#client
    const endpoint = present(endpoints[this.#endpointIndex % endpoints.length], 'an endpoint')
    const wanted = [...this.#followed.values()].filter(({ revision }) => revision !== null)
    const [first] = wanted
    if (first === undefined || stream.signal.aborted) return
    const bodies = wanted.map(({ key, watchId, revision }) => watchBody(key, watchId, (revision ?? 0) + 1))
    const body = bodies.map((each) => JSON.stringify(each)).join('\n')
    const lost = (): void => {
      stream.abort(LOST)
    }
    const looking = setInterval(() => {
      this.#client.look(endpoint, first.key).catch(lost)
    }, LOOK_INTERVAL_MS)
    const ageing = setTimeout(() => {
      stream.abort()
    }, STREAM_AGE_MS)
    looking.unref()
    ageing.unref()
    try {
      for await (const line of this.#client.stream(endpoint, '/v3/watch', body, stream.signal)) {
        for (const news of readWatch(parseAnswer(line))) if (!this.#take(news)) return
        this.#client.outage.answered()
      }
    } finally {
      clearInterval(looking)
      clearTimeout(ageing)
    }
  }

  /** False where the stream is of no use any more. */
  #take(news: WatchNews): boolean {
    if (news.kind === 'cancelled') {
      // A token that has expired is one of the reasons, and not told from the others.
      this.#client.forgetToken()
      this.#client.outage.missed(news.reason)
      return false
    }
    const followed = this.#followed.get(news.watchId)
    if (followed === undefined) return true
    switch (news.kind) {
      case 'compacted':
        followed.revision = null
        this.#forget(news.revision)
        return false
      case 'progress':
        followed.revision = Math.max(followed.revision ?? 0, news.revision)
        return true
      case 'changed':
        followed.revision = Math.max(followed.revision ?? 0, news.revision)
        this.#tell(followed, news.revision, news.found)
        return true
    }
  }

  /** Keys that were quiet since before a compaction are read with one stream lost, not with one for each. */
  #forget(compactedRevision: number): void {
    for (const followed of this.#followed.values()) {
      const { revision } = followed
      if (revision !== null && revision + 1 < compactedRevision) followed.revision = null
    }
  }

  #tell(followed: Followed, revision: number, found: KeyValue | null): void {
    if (revision <= followed.toldRevision) return
    followed.toldRevision = revision
    followed.listener(found)
  }
}
