/**
 * The messages of etcd's JSON gateway that are used here, and nothing of how they travel: bodies of requests, and answers
 * read into values. Keys and values are base64, 64-bit numbers are texts, and what is zero or false is left out. An answer
 * that cannot be understood is a failure of unknown outcome, never half an answer.
 */

import { EtcdFailure } from './failure.ts'

export interface KeyValue {
  readonly value: Uint8Array
  /** Of the cluster, when the key was written last. */
  readonly revision: number
  /** How often the key was written since it came to be. */
  readonly version: number
}

export interface Header {
  readonly clusterId: string
  readonly revision: number
}

/** `revision`: as it was then; null as it is now. */
export function rangeBody(key: string, revision: number | null = null): object {
  return { key: base64(key), ...(revision !== null && { revision: String(revision) }) }
}

/** Answered by one member from what it knows: good for nothing but to see who answers. */
export function serializableBody(key: string): object {
  return { key: base64(key), serializable: true }
}

/** Puts the value where the key's revision is still that; 0 stands for a key that does not exist. Else reads the key. */
export function swapBody(key: string, expectedRevision: number, value: Uint8Array): object {
  const name = base64(key)
  return {
    compare: [{ key: name, target: 'MOD', result: 'EQUAL', mod_revision: String(expectedRevision) }],
    success: [{ request_put: { key: name, value: Buffer.from(value).toString('base64') } }],
    failure: [{ request_range: { key: name } }],
  }
}

/** Everything that happens to the key from that revision on. */
export function watchBody(key: string, watchId: number, fromRevision: number): object {
  return {
    create_request: {
      key: base64(key),
      watch_id: String(watchId),
      start_revision: String(fromRevision),
      progress_notify: true,
    },
  }
}

export function readHeader(answer: unknown): Header {
  const header = member(answer, 'header')
  const clusterId = member(header, 'cluster_id')
  if (typeof clusterId !== 'string') throw misunderstood()
  return { clusterId, revision: integer(member(header, 'revision')) }
}

/** Null where there is no such key. */
export function readRange(answer: unknown): KeyValue | null {
  const [first] = list(member(answer, 'kvs'))
  return first === undefined ? null : readKeyValue(first)
}

export interface SwapAnswer {
  readonly succeeded: boolean
  /** Of the same moment, where it did not succeed. */
  readonly found: KeyValue | null
}

export function readSwap(answer: unknown): SwapAnswer {
  const [response] = list(member(answer, 'responses'))
  if (member(answer, 'succeeded') === true) return { succeeded: true, found: null }
  const range = member(response, 'response_range')
  if (range === undefined) throw misunderstood()
  return { succeeded: false, found: readRange(range) }
}

export type WatchNews =
  /** Null: the key was deleted. */
  | { readonly kind: 'changed'; readonly watchId: number; readonly revision: number; readonly found: KeyValue | null }
  /** Nothing has happened up to that revision. */
  | { readonly kind: 'progress'; readonly watchId: number; readonly revision: number }
  /** What it asked for is gone; of that revision everything is there. */
  | { readonly kind: 'compacted'; readonly watchId: number; readonly revision: number }
  | { readonly kind: 'cancelled'; readonly reason: string }

/** One line of a stream. */
export function readWatch(line: unknown): readonly WatchNews[] {
  const problem = member(line, 'error')
  if (problem !== undefined) return [{ kind: 'cancelled', reason: textOr(member(problem, 'message'), 'it failed') }]
  const result = member(line, 'result')
  if (result === undefined) throw misunderstood()
  const watchId = integer(member(result, 'watch_id'))
  if (member(result, 'canceled') === true) {
    const revision = integer(member(result, 'compact_revision'))
    if (revision > 0) return [{ kind: 'compacted', watchId, revision }]
    return [{ kind: 'cancelled', reason: textOr(member(result, 'cancel_reason'), 'it was cancelled') }]
  }
  const events = list(member(result, 'events'))
  // Its revision is that of the member; what it has still to send of this key may be older.
  if (member(result, 'created') === true) return []
  if (events.length === 0) {
    return [{ kind: 'progress', watchId, revision: integer(member(member(result, 'header'), 'revision')) }]
  }
  return events.map((event) => {
    const found = member(event, 'kv')
    const deleted = member(event, 'type') === 'DELETE'
    const revision = integer(member(found, 'mod_revision'))
    return { kind: 'changed', watchId, revision, found: deleted ? null : readKeyValue(found) }
  })
}

export function readToken(answer: unknown): string {
  const token = member(answer, 'token')
  if (typeof token !== 'string') throw misunderstood()
  return token
}

/** Code and words of an answer that is no success; null and the text itself where they are not etcd's. */
export function readProblem(text: string): { readonly code: number | null; readonly message: string } {
  try {
    const document: unknown = JSON.parse(text)
    const code = member(document, 'code')
    const message = textOr(member(document, 'message'), textOr(member(document, 'error'), text))
    return { code: typeof code === 'number' ? code : null, message }
  } catch {
    return { code: null, message: text.slice(0, 200) }
  }
}

export function parseAnswer(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw misunderstood()
  }
}

function readKeyValue(found: unknown): KeyValue {
  const value = member(found, 'value')
  const revision = integer(member(found, 'mod_revision'))
  const version = integer(member(found, 'version'))
  if (revision < 1 || version < 1) throw misunderstood()
  return { value: Buffer.from(textOr(value, ''), 'base64'), revision, version }
}

function member(value: unknown, name: string): unknown {
  if (typeof value !== 'object' || value === null || !Object.hasOwn(value, name)) return undefined
  return (value as Readonly<Record<string, unknown>>)[name]
}

function list(value: unknown): readonly unknown[] {
  if (value === undefined) return []
  if (!Array.isArray(value)) throw misunderstood()
  return value
}

function integer(value: unknown): number {
  if (value === undefined) return 0
  const number = typeof value === 'string' && /^-?\d+$/u.test(value) ? Number(value) : value
  if (typeof number !== 'number' || !Number.isSafeInteger(number)) throw misunderstood()
  return number
}

function textOr(value: unknown, otherwise: string): string {
  return typeof value === 'string' ? value : otherwise
}

function base64(text: string): string {
  return Buffer.from(text, 'utf8').toString('base64')
}

function misunderstood(): EtcdFailure {
  return new EtcdFailure('what answered does not speak as etcd does', { outcome: 'unknown', passing: true })
}
