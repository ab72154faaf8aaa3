/** The terms of a handover: what its close does, how long it is waited for, and what is accepted on somebody's word. */

export interface HandoverTerms {
  /** The destination opens while slow writes still run at the source, and holds back what overlaps them. */
  readonly early: boolean
  /** What the source's kernel does not have yet: it is let through, or dropped unanswered. */
  readonly unsubmitted: 'drain' | 'abort'
  /** What comes in at the source once its gate is shut. Parked requests survive a handover that is taken back. */
  readonly requests: 'park' | 'refuse'
  /** How long the source may take to close, and the destination to open, before the way back is taken. Null: for ever. */
  readonly timeoutMs: number | null
  /** How long a daemon is asked again that does not answer, or cannot reach its records: it may be restarting. */
  readonly patienceMs: number
  /** Somebody's word that both ends mean one image, where there is no shared record to prove it by. */
  readonly sameImage: boolean
  /** Codes of the preflight of stacks that are accepted, at both ends. */
  readonly allowUnsafe: readonly string[]
}

export const DEFAULT_TERMS: HandoverTerms = {
  early: false,
  unsubmitted: 'drain',
  requests: 'park',
  timeoutMs: 60_000,
  patienceMs: 10_000,
  sameImage: false,
  allowUnsafe: [],
}
