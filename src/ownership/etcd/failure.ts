/**
 * A call to etcd that brought no answer, and the two things that its caller has to know of it: whether it was certainly not
 * carried out, and whether asking elsewhere or later may help. What is not known to be refused counts as unknown: the call
 * may have been carried out, or may be still, for as long as it is under way somewhere.
 */

export interface FailureFacts {
  readonly outcome: 'notDone' | 'unknown'
  /** Another endpoint, or the same one later, may do better. */
  readonly passing: boolean
  /** The answer was that the token is not valid: a new one may do. */
  readonly tokenRefused?: boolean
  /** The revision that was asked for is not kept any more. */
  readonly compacted?: boolean
}

export class EtcdFailure extends Error {
  override readonly name = 'EtcdFailure'
  readonly outcome: FailureFacts['outcome']
  readonly passing: boolean
  readonly tokenRefused: boolean
  readonly compacted: boolean

  constructor(detail: string, { outcome, passing, tokenRefused = false, compacted = false }: FailureFacts) {
    super(detail)
    this.outcome = outcome
    this.passing = passing
    this.tokenRefused = tokenRefused
    this.compacted = compacted
  }

  /** The same, of a call whose earlier attempts may have been carried out. */
  afterUncertainty(): EtcdFailure {
    const { passing, tokenRefused, compacted } = this
    return new EtcdFailure(this.message, { outcome: 'unknown', passing, tokenRefused, compacted })
  }
}

/** Codes of gRPC by which etcd says that it did nothing. */
const NOT_DONE: ReadonlySet<number> = new Set([3, 5, 7, 8, 11, 12, 16])
const INVALID_ARGUMENT = 3
const RESOURCE_EXHAUSTED = 8
const OUT_OF_RANGE = 11
const UNAUTHENTICATED = 16

/** What an answer that is not a success means. Its texts are etcd's own, the same in all its versions. */
export function failureOfAnswer(code: number | null, message: string): EtcdFailure {
  const outcome = code !== null && NOT_DONE.has(code) ? 'notDone' : 'unknown'
  const stale = message.includes('user name is empty') || message.includes('revision of auth store is old')
  const tokenRefused = code === UNAUTHENTICATED || (code === INVALID_ARGUMENT && stale)
  const busy = code === RESOURCE_EXHAUSTED && message.includes('too many requests')
  return new EtcdFailure(message, {
    outcome,
    passing: outcome === 'unknown' || tokenRefused || busy,
    tokenRefused,
    compacted: code === OUT_OF_RANGE && message.includes('compacted'),
  })
}
