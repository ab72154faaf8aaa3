/**
 * The close, told what happened in every order: lost, repeated, failed and late reports included. Whatever comes, it
 * says closed only after each step succeeded, in the order of the steps, and with no fault before the end.
 */

import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { AssertionFailure } from '../../src/foundation/assert.ts'
import { CloseProcedure } from '../../src/interlock/close-procedure.ts'
import type {
  CloseDecision,
  CloseEvent,
  CloseSettings,
  CloseStep,
  DrainedRequests,
} from '../../src/interlock/close-procedure.ts'
import type { AbortedRequest } from '../../src/interlock/receipt.ts'

const EIO = 5
const SETTINGS: CloseSettings = {
  durability: 'sync',
  unsubmitted: 'drain',
  requests: 'park',
  predecessorDraining: false,
}
const ABORTED: AbortedRequest = { client: 4, cookie: '00000000000000ff', command: 'WRITE', offset: 0, length: 512 }
const EARLIER: AbortedRequest = { ...ABORTED, client: 3 }
const LATER: AbortedRequest = { ...ABORTED, client: 5 }
const RESULT: DrainedRequests = {
  cancelled: false,
  requests: 3,
  writes: 2,
  bytes: 8192,
  aborted: [],
  indeterminate: [],
}

type Untimed = CloseEvent extends infer Each ? (Each extends CloseEvent ? Omit<Each, 'atMs'> : never) : never
type Kind = CloseEvent['kind']

/** The steps of a close in which nothing goes wrong. */
const HAPPY: readonly Untimed[] = [
  { kind: 'gateShut', aborted: [] },
  { kind: 'drained', result: RESULT },
  { kind: 'synced', errno: 0 },
  { kind: 'detached' },
  { kind: 'descriptorClosed' },
  { kind: 'lockProved', free: true },
  { kind: 'recorded', outcome: 'done' },
]
const ACTS = ['drain', 'sync', 'detach', 'closeDescriptor', 'proveLock', 'record', 'closed'] as const

const indeterminate = [{ offset: 4096, length: 4096 }]
const anyEvent: fc.Arbitrary<Untimed> = fc.oneof(
  { weight: 12, arbitrary: fc.constantFrom(...HAPPY) },
  {
    weight: 3,
    arbitrary: fc.constantFrom<Untimed>(
      { kind: 'synced', errno: EIO },
      { kind: 'lockProved', free: false },
      { kind: 'recorded', outcome: 'failed' },
      { kind: 'recorded', outcome: 'lost' },
      { kind: 'drained', result: { ...RESULT, cancelled: true } },
      { kind: 'drained', result: { ...RESULT, indeterminate } },
      { kind: 'predecessorCleared' },
      { kind: 'cancelled' },
      { kind: 'faulted', reason: 'the worker died' },
    ),
  },
)

/** What a real caller sends next, most of the time: the report of what it was told to do. */
const expected: Readonly<Record<CloseStep, Untimed | null>> = {
  shuttingGate: HAPPY[0] ?? null,
  draining: HAPPY[1] ?? null,
  awaitingPredecessor: { kind: 'predecessorCleared' },
  syncing: HAPPY[2] ?? null,
  detaching: HAPPY[3] ?? null,
  closingDescriptor: HAPPY[4] ?? null,
  provingLock: HAPPY[5] ?? null,
  recording: HAPPY[6] ?? null,
  closed: null,
  cancelled: null,
  fenced: null,
}

/** Judges from the accepted events alone whether `closed` may be said, without knowing the procedure's states. */
class Witness {
  readonly #settings: CloseSettings
  readonly #accepted: Untimed[] = []

  constructor(settings: CloseSettings) {
    this.#settings = settings
  }

  saw(event: Untimed): void {
    this.#accepted.push(event)
  }

  mayBeClosed(): boolean {
    let at = 0
    let predecessorDraining = this.#settings.predecessorDraining
    for (const event of this.#accepted) {
      if (event.kind === 'faulted') return false
      if (event.kind === 'synced' && event.errno !== 0) return false
      if (event.kind === 'recorded' && event.outcome === 'lost') return false
      if (event.kind === 'cancelled' && at <= 2) return false
      if (event.kind === 'predecessorCleared') predecessorDraining = false
      if (event.kind === 'synced' && predecessorDraining) return false
      if (event.kind === 'drained' && event.result.cancelled) return false
      if (
        event.kind === 'drained' &&
        event.result.indeterminate.length > 0 &&
        this.#settings.durability === 'writeback'
      ) {
        return false
      }
      if (event.kind === HAPPY[at]?.kind && succeeded(event)) at += 1
    }
    return at === HAPPY.length
  }
}

function succeeded(event: Untimed): boolean {
  return !(event.kind === 'lockProved' && !event.free) && !(event.kind === 'recorded' && event.outcome !== 'done')
}

const anySettings = fc.record<CloseSettings>({
  durability: fc.constantFrom('sync', 'writeback'),
  unsubmitted: fc.constantFrom('drain', 'abort'),
  requests: fc.constantFrom('park', 'refuse'),
  predecessorDraining: fc.boolean(),
})

describe('the close under any order of events', () => {
  /** Mostly what the procedure waits for, which null stands for. */
  const next = fc.oneof({ weight: 8, arbitrary: fc.constant(null) }, { weight: 1, arbitrary: anyEvent })
  const schedule = fc.array(next, { minLength: 4, maxLength: 40, size: 'max' })
  let closedRuns = 0

  it('closed implies that every step succeeded, in order, with no fault', () => {
    fc.assert(
      fc.property(anySettings, schedule, (settings, events) => {
        const procedure = new CloseProcedure(settings, 0)
        const witness = new Witness(settings)
        procedure.begin()
        for (const [atMs, surprise] of events.entries()) {
          const event = surprise ?? expected[procedure.state.step]
          if (event === null) continue
          const before = procedure.state
          const decision = tryTake(procedure, { ...event, atMs })
          if (decision === null) {
            expect(procedure.state).toBe(before)
            continue
          }
          witness.saw(event)
          if (decision.act === 'closed') {
            closedRuns += 1
            expect(witness.mayBeClosed()).toBe(true)
          }
          if (before.step === 'closed' || before.step === 'fenced') {
            expect(procedure.state).toBe(before)
            expect(['nothing', 'refuseCancel']).toContain(decision.act)
          } else expect(procedure.state.step === 'closed').toBe(decision.act === 'closed')
        }
      }),
      { numRuns: 2000 },
    )
    // Or the property would say nothing.
    expect(closedRuns).toBeGreaterThan(100)
  })

  it('every close that is not disturbed is closed, however often proof and record must be tried again', () => {
    fc.assert(
      fc.property(anySettings, fc.nat(5), fc.nat(5), (settings, busyLocks, failedRecords) => {
        const procedure = new CloseProcedure(settings, 0)
        procedure.begin()
        let [busy, failed] = [busyLocks, failedRecords]
        for (let atMs = 1; procedure.state.step !== 'closed'; atMs++) {
          expect(atMs).toBeLessThan(30)
          const step = procedure.state.step
          if (step === 'provingLock' && busy-- > 0) {
            expect(procedure.take({ kind: 'lockProved', free: false, atMs })).toEqual({ act: 'proveLock', again: true })
          } else if (step === 'recording' && failed-- > 0) {
            const decision = procedure.take({ kind: 'recorded', outcome: 'failed', atMs })
            expect(decision).toMatchObject({ act: 'record', again: true })
          } else {
            const event = expected[step]
            if (event === null) throw new Error(`nothing follows ${step}`)
            procedure.take({ ...event, atMs })
          }
        }
      }),
    )
  })
})

/** The decision, or null where the event could not come now. */
function tryTake(procedure: CloseProcedure, event: CloseEvent): CloseDecision | null {
  try {
    return procedure.take(event)
  } catch (error) {
    if (error instanceof AssertionFailure) return null
    throw error
  }
}

/** A close that has taken the first `count` events of the happy way, one per 10 ms. */
function closeAfter(count: number, settings: Partial<CloseSettings> = {}): CloseProcedure {
  const procedure = new CloseProcedure({ ...SETTINGS, ...settings }, 0)
  procedure.begin()
  for (const [index, event] of HAPPY.slice(0, count).entries()) procedure.take({ ...event, atMs: (index + 1) * 10 })
  return procedure
}

describe('the steps of the close', () => {
  it('begin with the gate, as the operator said', () => {
    expect(new CloseProcedure(SETTINGS, 0).begin()).toEqual({
      act: 'shutGate',
      requests: 'park',
      abortUnsubmitted: false,
    })
    expect(new CloseProcedure({ ...SETTINGS, unsubmitted: 'abort', requests: 'refuse' }, 0).begin()).toEqual({
      act: 'shutGate',
      requests: 'refuse',
      abortUnsubmitted: true,
    })
  })

  it('follow each other', () => {
    const procedure = closeAfter(0)
    const acts = HAPPY.map((event, index) => procedure.take({ ...event, atMs: index }).act)
    expect(acts).toEqual(ACTS)
  })

  it.each(HAPPY.map((event, index) => [event.kind, index] as const))('cannot do without %s', (_kind, missing) => {
    const procedure = closeAfter(missing)
    for (const event of HAPPY.slice(missing + 1)) {
      expect(tryTake(procedure, { ...event, atMs: 1 })).toBeNull()
    }
    expect(procedure.state.step).not.toBe('closed')
  })

  it('collect the facts of the receipt', () => {
    const procedure = new CloseProcedure(SETTINGS, 100)
    procedure.begin()
    procedure.take({ kind: 'gateShut', aborted: [EARLIER, ABORTED], atMs: 101 })
    procedure.take({ kind: 'drained', result: { ...RESULT, aborted: [ABORTED, LATER], indeterminate }, atMs: 140 })
    procedure.take({ kind: 'synced', errno: 0, atMs: 152 })
    procedure.take({ kind: 'detached', atMs: 153 })
    procedure.take({ kind: 'descriptorClosed', atMs: 154 })
    const facts = {
      drained: { requests: 3, writes: 2, bytes: 8192 },
      aborted: [EARLIER, ABORTED, LATER],
      indeterminate,
      elapsedMs: { drain: 40, sync: 12, record: 5, total: 57 },
    }
    expect(procedure.take({ kind: 'lockProved', free: true, atMs: 157 })).toEqual({
      act: 'record',
      facts,
      again: false,
    })
    // A record whose writing is in doubt is written again with the same facts: there is one receipt.
    expect(procedure.take({ kind: 'recorded', outcome: 'failed', atMs: 500 })).toEqual({
      act: 'record',
      facts,
      again: true,
    })
    expect(procedure.take({ kind: 'recorded', outcome: 'done', atMs: 900 })).toEqual({ act: 'closed', facts })
  })

  it('wait for a predecessor that still drains before the sync', () => {
    const procedure = closeAfter(1, { predecessorDraining: true })
    expect(procedure.take({ kind: 'drained', result: RESULT, atMs: 20 })).toEqual({ act: 'awaitPredecessor' })
    expect(tryTake(procedure, { kind: 'synced', errno: 0, atMs: 21 })).toBeNull()
    expect(procedure.take({ kind: 'predecessorCleared', atMs: 30 })).toEqual({ act: 'sync' })
  })

  it('do not wait for a predecessor that cleared while they drained', () => {
    const procedure = closeAfter(1, { predecessorDraining: true })
    expect(procedure.take({ kind: 'predecessorCleared', atMs: 15 })).toEqual({ act: 'nothing' })
    expect(procedure.take({ kind: 'drained', result: RESULT, atMs: 20 })).toEqual({ act: 'sync' })
  })
})

describe('a close that fails', () => {
  it('fences when the sync fails', () => {
    const procedure = closeAfter(2)
    expect(procedure.take({ kind: 'synced', errno: EIO, atMs: 30 })).toEqual({
      act: 'fence',
      reason: 'the image could not be made durable: fdatasync failed with errno 5',
    })
    expect(procedure.state.step).toBe('fenced')
  })

  it('fences when a write failed in writeback, and names it in sync', () => {
    const drained: Untimed = { kind: 'drained', result: { ...RESULT, indeterminate } }
    expect(closeAfter(1, { durability: 'writeback' }).take({ ...drained, atMs: 20 }).act).toBe('fence')
    expect(closeAfter(1).take({ ...drained, atMs: 20 }).act).toBe('sync')
  })

  it('fences when somebody else wrote the record', () => {
    expect(closeAfter(6).take({ kind: 'recorded', outcome: 'lost', atMs: 70 }).act).toBe('fence')
  })

  it.each([0, 1, 2, 3, 4, 5, 6])('fences on a fault after %i steps', (count) => {
    const procedure = closeAfter(count)
    const reason = 'the worker died'
    expect(procedure.take({ kind: 'faulted', reason, atMs: 99 })).toEqual({ act: 'fence', reason })
    for (const event of HAPPY) expect(procedure.take({ ...event, atMs: 100 })).toEqual({ act: 'nothing' })
    expect(procedure.state).toEqual({ step: 'fenced', reason })
  })

  it('is closed for good once it was recorded', () => {
    const procedure = closeAfter(7)
    expect(procedure.take({ kind: 'faulted', reason: 'late', atMs: 99 })).toEqual({ act: 'nothing' })
    expect(procedure.take({ kind: 'cancelled', atMs: 99 })).toEqual({ act: 'refuseCancel' })
    expect(procedure.state.step).toBe('closed')
  })
})

describe('a close that is cancelled', () => {
  const late: Readonly<Record<number, Kind>> = { 0: 'gateShut', 1: 'drained', 2: 'synced' }

  it.each([0, 1, 2])('resumes after %i steps, and the report that was under way is ignored', (count) => {
    const procedure = closeAfter(count)
    expect(procedure.take({ kind: 'cancelled', atMs: 50 })).toEqual({ act: 'resume' })
    const report = HAPPY.find((event) => event.kind === late[count])
    if (report === undefined) throw new Error('no report')
    expect(procedure.take({ ...report, atMs: 60 })).toEqual({ act: 'nothing' })
    expect(procedure.state.step).toBe('cancelled')
  })

  it('resumes while it waits for a predecessor', () => {
    const procedure = closeAfter(2, { predecessorDraining: true })
    expect(procedure.take({ kind: 'cancelled', atMs: 50 })).toEqual({ act: 'resume' })
  })

  it.each([3, 4, 5, 6])('is refused after %i steps: the generation ends', (count) => {
    const procedure = closeAfter(count)
    const before = procedure.state
    expect(procedure.take({ kind: 'cancelled', atMs: 50 })).toEqual({ act: 'refuseCancel' })
    expect(procedure.state).toBe(before)
  })

  it('still fences when the sync that was under way fails', () => {
    const procedure = closeAfter(2)
    procedure.take({ kind: 'cancelled', atMs: 50 })
    expect(procedure.take({ kind: 'synced', errno: EIO, atMs: 60 }).act).toBe('fence')
    expect(procedure.state.step).toBe('fenced')
  })

  it('takes a cancelled drain only after a cancel', () => {
    const cancelled: CloseEvent = { kind: 'drained', result: { ...RESULT, cancelled: true }, atMs: 20 }
    expect(() => closeAfter(1).take(cancelled)).toThrow('only when the close was')
    const procedure = closeAfter(1)
    procedure.take({ kind: 'cancelled', atMs: 15 })
    expect(procedure.take(cancelled)).toEqual({ act: 'nothing' })
  })
})
