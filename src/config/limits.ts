/**
 * Every bound of the daemon, in one place. What has no bound here is bounded by something that has one. The relations
 * between bounds are asserted when this file loads; those that an operator may set are checked by `limitProblems`, with
 * the same relations.
 */

import { assert } from '../foundation/assert.ts'

const KIB = 1024
const MIB = 1024 * KIB

const limits = {
  /** Bytes of payload in one NBD request or reply; what the NBD specification calls the maximum payload. */
  payloadBytesMax: 32 * MIB,
  /** Largest logical block; a write widened to whole blocks grows by less than two of them. */
  blockBytesMax: 4 * KIB,
  /** Bytes received from one connection and not yet parsed. */
  inboxBytes: 64 * KIB,
  /** Requests that one worker tracks at once, over all its exports. */
  slotsPerWorker: 8192,
  /** Requests of one connection that are tracked at once; what is beyond stays in its socket. */
  requestsPerConnectionMax: 256,
  /** Connections in negotiation and transmission, over all exports. */
  connectionsMax: 1024,
  /** Exports of one daemon. */
  exportsMax: 1024,
  /** Data workers of one daemon. */
  workersMax: 64,
  /** Default of one worker's arena: the buffers of all its requests. A power of two. Inboxes come on top. */
  arenaBytes: 64 * MIB,
  /** The least arena: one request of the largest payload, widened to whole blocks, takes the next power of two. */
  arenaBytesMin: 64 * MIB,
  /** Largest arena an operator may ask for: with the inboxes, offsets stay an Int32. */
  arenaBytesMax: 1024 * MIB,
  /** Bytes of an export's name, on the wire and in the API. */
  exportNameBytesMax: 128,
  /** Bytes of an export's description; it is a string of the NBD protocol, which allows 4096. */
  descriptionBytesMax: 4096,
  /** Bytes of one negotiation option's data; a longer one is refused, and skipped up to `optionSkipBytesMax`. */
  optionBytesMax: 8 * KIB,
  /** A client that sends a longer option than this is disconnected. */
  optionSkipBytesMax: 64 * KIB,
  /** Milliseconds from accept to transmission. */
  handshakeTimeoutMs: 10_000,
  /** Connections that wait in one listening socket. */
  listenBacklog: 511,
  /** Ranges that an early handover may list. Each is one admitted write, so no more than there are slots. */
  holdsMax: 8192,
  /** Milliseconds that SIGTERM waits for all exports to close; below systemd's default of 90 s. */
  closeTimeoutMs: 80_000,
  /** Milliseconds that one call to the home of the records may take at least, and at most. */
  recordTimeoutMsMin: 1_000,
  recordTimeoutMsMax: 300_000,
  /** Milliseconds that writes are held back for a predecessor before it is said, and said again. */
  holdAlarmMs: 10_000,
  /** Longest duration that configuration or API take. */
  durationMsMax: 2_147_483_647,
  /** Bytes of one HTTP request body; a receipt with every slot aborted fits. */
  controlBodyBytesMax: 4 * MIB,
  /** HTTP connections at once, over all control listeners. */
  controlConnectionsMax: 1024,
  /** From so many on, a connection ends with its next answer, so that those that are idle leave room for others. */
  controlConnectionsKeptMax: 512,
  /** Milliseconds that an idle HTTP connection is kept. */
  controlIdleMsMax: 60_000,
  /** Milliseconds that an HTTP request may take to arrive. */
  controlRequestTimeoutMs: 30_000,
  /** Milliseconds that answers under way get when the control server closes. */
  controlCloseTimeoutMs: 2_000,
  /** Requests listed by one answer of the API. */
  requestsListedMax: 8192,
  /** Events kept for readers that come back. */
  eventsKeptMax: 1024,
  /** Bytes of the events kept. */
  eventsKeptBytesMax: 1 * MIB,
  /** Event streams at once. */
  eventStreamsMax: 256,
  /** Bytes that an event stream may leave unread before it is cut. */
  eventBacklogBytesMax: 4 * MIB,
  /** Milliseconds between the heartbeats of an event stream. */
  eventHeartbeatMs: 15_000,
  /** Answers kept for idempotency keys. */
  idempotencyKeysMax: 1024,
  /** Bytes of all those answers together. */
  idempotencyBytesMax: 8 * MIB,
  /** Bytes of one idempotency key. */
  idempotencyKeyBytesMax: 256,
}

export const LIMITS: Readonly<typeof limits> = Object.freeze(limits)

/** What an operator may set in `[limits]`. */
export interface OperatorLimits {
  readonly connectionsMax: number
  readonly handshakeTimeoutMs: number
  readonly requestsPerConnectionMax: number
  /** Per worker. */
  readonly arenaBytes: number
  /** How long SIGTERM waits for the exports to close. */
  readonly closeTimeoutMs: number
  /** How long writes may be held back for a predecessor before that is an event, and one again. */
  readonly holdAlarmMs: number
}

export const DEFAULT_OPERATOR_LIMITS: OperatorLimits = Object.freeze({
  connectionsMax: LIMITS.connectionsMax,
  handshakeTimeoutMs: LIMITS.handshakeTimeoutMs,
  requestsPerConnectionMax: LIMITS.requestsPerConnectionMax,
  arenaBytes: LIMITS.arenaBytes,
  closeTimeoutMs: LIMITS.closeTimeoutMs,
  holdAlarmMs: LIMITS.holdAlarmMs,
})

/** Names that are the same in a URL, a log line and a shell: no separator, no space, never "." or "..". */
export const EXPORT_NAME_PATTERN = '^[A-Za-z0-9_][A-Za-z0-9_.:@+-]*$'

export interface LimitProblem {
  /** The operator's name of the limit. */
  readonly key: string
  readonly problem: string
}

/** What is wrong with these limits; empty when nothing is. */
export function limitProblems(limits: OperatorLimits): LimitProblem[] {
  const problems: LimitProblem[] = []
  const within = (key: string, value: number, low: number, high: number): void => {
    if (Number.isSafeInteger(value) && value >= low && value <= high) return
    problems.push({ key, problem: `must be from ${low} to ${high}, and is ${value}` })
  }
  within('connections_max', limits.connectionsMax, 1, LIMITS.connectionsMax * 4)
  within('handshake_timeout', limits.handshakeTimeoutMs, 100, 3_600_000)
  within('requests_per_connection_max', limits.requestsPerConnectionMax, 1, LIMITS.slotsPerWorker)
  within('close_timeout', limits.closeTimeoutMs, 1000, LIMITS.durationMsMax)
  within('hold_alarm', limits.holdAlarmMs, 100, LIMITS.durationMsMax)
  within('arena_bytes', limits.arenaBytes, LIMITS.arenaBytesMin, LIMITS.arenaBytesMax)
  if (problems.length === 0 && !isPowerOfTwo(limits.arenaBytes)) {
    problems.push({ key: 'arena_bytes', problem: `must be a power of two, and is ${limits.arenaBytes}` })
  }
  return problems
}

function isPowerOfTwo(value: number): boolean {
  return Number.isInteger(Math.log2(value))
}

assert(limitProblems(DEFAULT_OPERATOR_LIMITS).length === 0, 'the default limits satisfy their own relations')
assert(
  LIMITS.payloadBytesMax + 2 * LIMITS.blockBytesMax <= LIMITS.arenaBytesMin,
  'the largest request, widened, fits the least arena',
)
assert(
  LIMITS.arenaBytesMax + LIMITS.connectionsMax * 4 * (LIMITS.inboxBytes + 16 * LIMITS.requestsPerConnectionMax) <
    2 ** 31,
  'with the inboxes of the most connections an arena offset is an Int32',
)
assert(LIMITS.payloadBytesMax % LIMITS.blockBytesMax === 0, 'the largest payload is whole blocks')
assert(LIMITS.requestsPerConnectionMax <= LIMITS.slotsPerWorker, 'one connection cannot need more than all slots')
assert(LIMITS.holdsMax >= LIMITS.slotsPerWorker, 'every tracked write can be listed in an early handover')
assert(LIMITS.requestsListedMax <= LIMITS.slotsPerWorker, 'no more requests are listed than can exist')
assert(LIMITS.exportNameBytesMax + 16 <= LIMITS.optionBytesMax, 'an option that names an export fits')
assert(LIMITS.optionBytesMax <= LIMITS.optionSkipBytesMax, 'what is accepted is not more than what is read')
assert(LIMITS.optionBytesMax + 16 <= LIMITS.inboxBytes, 'a whole option fits an inbox')
assert(LIMITS.eventsKeptBytesMax * 2 <= LIMITS.eventBacklogBytesMax, 'a whole replay does not cut its reader')
assert(
  LIMITS.eventStreamsMax + LIMITS.controlConnectionsKeptMax < LIMITS.controlConnectionsMax,
  'event streams and idle connections leave connections to others',
)
