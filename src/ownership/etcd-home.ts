/**
 * The record as one key of an etcd cluster: PREFIX and the image id. Its sequence is the key's version, so a value that
 * was put there by other means is no record. Never bound to a lease: no time that passes changes a record.
 *
 *     written with a nonce where the revision is still the one that was read ─▶ answered by a majority: durable
 *
 * 1. A swap compares the revision, so of those that know the same record one wins.
 * 2. A lost answer is no lost race: the same swap is sent again, and where the revision has moved on the nonce says whose
 *    the record is. Once it has moved on, nothing that is still under way can be carried out any more.
 * 3. What stands on top of a record whose answer was lost is asked of etcd's history. A swap whose outcome cannot be
 *    learned in time rejects.
 */

import { randomBytes } from 'node:crypto'
import { assert } from '../foundation/assert.ts'
import { faultPoint } from '../fault-points/fault-point.ts'
import { Refusal } from '../foundation/refusal.ts'
import type { EtcdClient } from './etcd/client.ts'
import { EtcdFailure } from './etcd/failure.ts'
import type { KeyValue } from './etcd/gateway.ts'
import type { EtcdWatch } from './etcd/watch.ts'
import { RECORD_VERSION, sequenceOf } from './home.ts'
import type { Newest, OwnershipRecord, RecordDraft, RecordHome, SwapOutcome } from './home.ts'
import { decodeRecord, encodeRecord } from './record-format.ts'

/** How far back a record is looked for that others have built on, and how many of them an operator is shown. */
const HISTORY_MAX = 64
/** Between a key and the number of the copy of its record: no image id that a daemon uses leads there. */
const ASIDE = '/unreadable/'

/** What a swap wrote, or would have. */
interface Attempted {
  readonly record: OwnershipRecord
  readonly nonce: string
  /** Some of its answers were lost. */
  readonly uncertain: boolean
}

export class EtcdHome implements RecordHome {
  readonly kind = 'etcd'
  readonly shared = true
  readonly tellsSoon = true
  readonly #client: EtcdClient
  readonly #watch: EtcdWatch
  readonly #key: string
  readonly #watches = new Set<() => void>()
  /** The newest record that was seen here, and its revision. */
  #seen: { readonly sequence: number; readonly revision: number } = { sequence: 0, revision: 0 }

  constructor(client: EtcdClient, watch: EtcdWatch, key: string) {
    this.#client = client
    this.#watch = watch
    this.#key = key
  }

  describe(): string {
    return `the key ${this.#key} of etcd at ${this.#client.endpoints.join(', ')}`
  }

  locate(): void {
    // The record is where its key says, wherever the image is.
  }

  async readNewest(): Promise<Newest> {
    const { answer } = await this.#asked('read', () => this.#client.read(this.#key))
    return this.#newest(answer)
  }

  async compareAndSwap(expected: number, draft: RecordDraft): Promise<SwapOutcome> {
    assert(Number.isSafeInteger(expected) && expected >= 0, `${expected} is not the number of a record`)
    const revisionRead = await this.#revisionOf(expected)
    if (typeof revisionRead !== 'number') return { won: false, newest: revisionRead, superseded: null }
    const nonce = randomBytes(16).toString('hex')
    const record: OwnershipRecord = { ...draft, version: RECORD_VERSION, sequence: expected + 1 }
    const value = encodeRecord(record, nonce, false)
    await faultPoint('record: written')
    const swapped = await this.#asked('write', () => this.#client.swap(this.#key, revisionRead, value))
    await faultPoint('record: durable')
    const { answer, revision, uncertain } = swapped
    if (!answer.succeeded) return this.#lost({ record, nonce, uncertain }, answer.found)
    this.#seen = { sequence: record.sequence, revision }
    return { won: true, record }
  }

  /** As far back as etcd keeps them: what was compacted is gone. */
  async readAll(): Promise<readonly Newest[]> {
    const { answer } = await this.#asked('read', () => this.#client.read(this.#key))
    if (answer === null) return []
    const records = [this.#newest(answer)]
    for (let later = answer; records.length < HISTORY_MAX && later.version > 1;) {
      const earlier = await this.#asked('read', () => this.#before(later))
      if (earlier === null) break
      records.unshift(this.#decoded(earlier))
      later = earlier
    }
    return records
  }

  /** A key of its own, which no daemon reads. */
  async setAside(sequence: number): Promise<string> {
    const { answer } = await this.#asked('read', () => this.#client.read(this.#key))
    if (answer?.version !== sequence) {
      throw new Refusal('record-io', `record ${sequence} is not the newest any more of ${this.describe()}`)
    }
    const key = `${this.#key}${ASIDE}${sequence}`
    const copied = await this.#asked('write', () => this.#client.swap(key, 0, answer.value))
    const { succeeded, found } = copied.answer
    if (!succeeded && !Buffer.from(answer.value).equals(found?.value ?? Buffer.alloc(0))) {
      throw new Refusal('record-io', `the key ${key} of etcd holds another record; look at it, and delete it`)
    }
    return `the key ${key}`
  }

  watch(listener: (newest: Newest) => void): () => void {
    const unfollow = this.#watch.follow(this.#key, (found) => {
      listener(this.#newest(found))
    })
    const end = (): void => {
      unfollow()
      this.#watches.delete(end)
    }
    this.#watches.add(end)
    return end
  }

  close(): Promise<void> {
    for (const end of this.#watches) end()
    return Promise.resolve()
  }

  /** The revision of the record with that number; the newest record where that is another one. */
  async #revisionOf(expected: number): Promise<number | Newest> {
    if (expected === 0) return 0
    if (this.#seen.sequence === expected) return this.#seen.revision
    const { answer } = await this.#asked('read', () => this.#client.read(this.#key))
    const newest = this.#newest(answer)
    return answer !== null && sequenceOf(newest) === expected ? answer.revision : newest
  }

  /** The revision was another one. `found` is what was there at that moment. */
  async #lost(attempted: Attempted, found: KeyValue | null): Promise<SwapOutcome> {
    const newest = this.#newest(found)
    const { record, nonce, uncertain } = attempted
    if (found?.version === record.sequence && isBy(found, nonce)) return { won: true, record }
    if (!uncertain || found === null || found.version <= record.sequence)
      return { won: false, newest, superseded: null }
    const ours = await this.#past(found, record.sequence)
    return { won: false, newest, superseded: isBy(ours, nonce) ? record : null }
  }

  /** The key as it was with that version. */
  async #past(found: KeyValue, version: number): Promise<KeyValue> {
    let later = found
    try {
      for (let step = 0; step < HISTORY_MAX; step++) {
        const { answer } = await this.#client.read(this.#key, later.revision - 1)
        if (answer === null || answer.version < version) break
        if (answer.version === version) return answer
        later = answer
      }
    } catch (error) {
      if (!(error instanceof EtcdFailure)) throw error
      throw this.#refusal('write', error.message, 'unknown', error.passing)
    }
    throw this.#refusal('write', 'others have built on it, and what they found is not kept', 'unknown')
  }

  /** The key as it was before it was written last; null where that is not kept. */
  async #before({ revision, version }: KeyValue): Promise<KeyValue | null> {
    try {
      const { answer } = await this.#client.read(this.#key, revision - 1)
      return answer !== null && answer.version < version ? answer : null
    } catch (error) {
      if (error instanceof EtcdFailure && error.compacted) return null
      throw error
    }
  }

  #newest(found: KeyValue | null): Newest {
    if (found === null) {
      this.#seen = { sequence: 0, revision: 0 }
      return { kind: 'absent' }
    }
    const { version, revision } = found
    if (version >= this.#seen.sequence || revision > this.#seen.revision) this.#seen = { sequence: version, revision }
    return this.#decoded(found)
  }

  #decoded({ value, version }: KeyValue): Newest {
    const decoded = decodeRecord(value, version)
    if (typeof decoded !== 'string') return { kind: 'record', record: decoded.record }
    return { kind: 'unreadable', sequence: version, detail: `${this.describe()}: ${decoded}` }
  }

  async #asked<T>(verb: 'read' | 'write', ask: () => Promise<T>): Promise<T> {
    try {
      return await ask()
    } catch (error) {
      if (!(error instanceof EtcdFailure)) throw error
      throw this.#refusal(verb, error.message, error.outcome, error.passing)
    }
  }

  #refusal(verb: 'read' | 'write', reason: string, outcome: EtcdFailure['outcome'], passing = false): Refusal {
    const tooLarge = reason.includes('too large') || reason.includes('larger than max')
    const advice = tooLarge ? " (etcd's --max-request-bytes bounds it)" : ''
    const what =
      verb === 'write' && outcome === 'unknown'
        ? 'it is not known whether the ownership record was written'
        : `the ownership record cannot be ${verb === 'read' ? 'read' : 'written'}`
    const detail = `${what}, which is ${this.describe()}: ${reason}${advice}`
    return new Refusal(passing ? 'record-unreachable' : 'record-io', detail)
  }
}

function isBy({ value, version }: KeyValue, nonce: string): boolean {
  const decoded = decodeRecord(value, version)
  return typeof decoded !== 'string' && decoded.nonce === nonce
}
