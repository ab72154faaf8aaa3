/** The tracker against a list of plain objects: after any sequence of steps the counts of both agree. */

import fc from 'fast-check'
import { beforeEach, describe, expect, it } from 'vitest'
import { changesBytes } from '../../src/interlock/request-kind.ts'
import { PHASE_TRANSITIONS, Phase, RequestTracker } from '../../src/interlock/request-tracker.ts'

const LIMITS = { slotsMax: 12, clientsMax: 4, exportsMax: 3 }
const READ = 0
const WRITE = 1
const COOKIE = Uint8Array.from([0xff, 0, 1, 2, 3, 0x0a, 0xb0, 6, 7, 8])

interface Request {
  readonly slot: number
  readonly client: number
  readonly exportIndex: number
  readonly command: number
  readonly length: number
  readonly since: number
  phase: Phase
}

const STEPS = ['admit', 'holdBack', 'letGo', 'submit', 'clear', 'finish'] as const
const LEADS_TO = {
  admit: Phase.ADMITTED,
  holdBack: Phase.HELD,
  letGo: Phase.ADMITTED,
  submit: Phase.SUBMITTED,
  clear: Phase.CLEARED,
  finish: Phase.FREE,
} as const
const COMES_FROM: Readonly<Record<(typeof STEPS)[number], readonly Phase[]>> = {
  admit: [Phase.PARSED],
  holdBack: [Phase.ADMITTED],
  letGo: [Phase.HELD],
  submit: [Phase.ADMITTED],
  clear: [Phase.SUBMITTED],
  finish: [Phase.PARSED, Phase.ADMITTED, Phase.HELD, Phase.CLEARED],
}
const PHASES = [Phase.PARSED, Phase.ADMITTED, Phase.HELD, Phase.SUBMITTED, Phase.CLEARED] as const
const CLIENTS = [0, 1, 2, 3]
const EXPORTS = [0, 1, 2]
const UNCLEARED: readonly Phase[] = [Phase.ADMITTED, Phase.HELD, Phase.SUBMITTED]

const operation = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('begin' as const),
      client: fc.nat(LIMITS.clientsMax - 1),
      exportIndex: fc.nat(LIMITS.exportsMax - 1),
      command: fc.constantFrom(0, 1, 3, 4, 5, 6, 7),
      length: fc.nat(2 ** 32 - 1),
    }),
  },
  {
    weight: 8,
    arbitrary: fc.record({ kind: fc.constant('step' as const), step: fc.constantFrom(...STEPS), pick: fc.nat() }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('orphan' as const), client: fc.nat(LIMITS.clientsMax - 1) }) },
)

class Pair {
  readonly tracker = new RequestTracker(LIMITS)
  requests: Request[] = []
  readonly gone = new Set<number>()
  now = 0

  begin(client: number, exportIndex: number, command: number, length: number): void {
    if (this.gone.has(client)) {
      expect(() => this.tracker.begin(exportIndex, client, command, 0, 0, length, COOKIE, 0, this.now)).toThrow()
      return
    }
    this.now += 1
    const slot = this.tracker.begin(exportIndex, client, command, 0, 0, length, COOKIE, 0, this.now)
    if (slot === -1) expect(this.requests.length).toBe(LIMITS.slotsMax)
    else this.requests.push({ slot, client, exportIndex, command, length, since: this.now, phase: Phase.PARSED })
  }

  step(step: (typeof STEPS)[number], pick: number): void {
    const request = this.requests[pick % this.requests.length]
    if (request === undefined) return
    const allowed = COMES_FROM[step].includes(request.phase) && !(step === 'admit' && this.gone.has(request.client))
    const uses = this.tracker.reuse[request.slot] ?? 0
    if (!allowed) {
      expect(() => {
        this.tracker[step](request.slot)
      }).toThrow()
      return
    }
    this.tracker[step](request.slot)
    request.phase = LEADS_TO[step]
    expect(this.tracker.reuse[request.slot]).toBe(request.phase === Phase.FREE ? uses + 1 : uses)
    this.requests = this.requests.filter((other) => other.phase !== Phase.FREE)
    if (!this.requests.some((other) => other.client === request.client)) this.gone.delete(request.client)
  }

  orphan(client: number): void {
    this.tracker.orphanClient(client)
    if (this.requests.some((request) => request.client === client)) this.gone.add(client)
  }

  agree(): void {
    this.tracker.invariants()
    expect(this.#counted()).toEqual(this.#modelled())
  }

  #counted(): object {
    const { tracker } = this
    const slots = EXPORTS.map((): number[] => [])
    for (const exportIndex of EXPORTS) tracker.slotsOfExport(exportIndex, (slot) => slots[exportIndex]?.push(slot))
    return {
      free: tracker.freeCount,
      clients: CLIENTS.map((client) => ({
        phases: PHASES.map((phase) => tracker.countOf(client, phase)),
        outstanding: tracker.outstandingOfClient(client),
        bytes: tracker.clientBytes(client),
        oldest: tracker.oldestSinceOfClient(client),
      })),
      exports: EXPORTS.map((exportIndex) => ({
        phases: PHASES.map((phase) => tracker.exportCountOf(exportIndex, phase)),
        outstanding: tracker.outstandingOfExport(exportIndex),
        bytes: tracker.exportBytes(exportIndex),
        oldest: tracker.oldestSinceOfExport(exportIndex),
        uncleared: tracker.unclearedOfExport(exportIndex),
        writes: tracker.unclearedWritesOfExport(exportIndex),
        orphans: tracker.orphansOfExport(exportIndex),
        slots: slots[exportIndex],
      })),
      orphans: this.requests.map(({ slot }) => tracker.isOrphan(slot)),
    }
  }

  #modelled(): object {
    const totals = (mine: readonly Request[]) => ({
      phases: countByPhase(mine),
      outstanding: mine.length,
      bytes: sum(mine.map(({ length }) => length)),
      oldest: Math.min(...mine.map(({ since }) => since)),
    })
    return {
      free: LIMITS.slotsMax - this.requests.length,
      clients: CLIENTS.map((client) => totals(this.requests.filter((request) => request.client === client))),
      exports: EXPORTS.map((exportIndex) => {
        const mine = this.requests.filter((request) => request.exportIndex === exportIndex)
        const uncleared = mine.filter(({ phase }) => UNCLEARED.includes(phase))
        const writes = uncleared.filter(({ command }) => changesBytes(command))
        return {
          ...totals(mine),
          uncleared: uncleared.length,
          writes: writes.length,
          orphans: writes.filter(({ client }) => this.gone.has(client)).length,
          slots: mine.map(({ slot }) => slot).sort((a, b) => a - b),
        }
      }),
      orphans: this.requests.map(({ client }) => this.gone.has(client)),
    }
  }
}

const countByPhase = (requests: readonly Request[]): number[] =>
  PHASES.map((phase) => requests.filter((request) => request.phase === phase).length)
const sum = (numbers: readonly number[]): number => numbers.reduce((total, each) => total + each, 0)

describe('the tracker and its model', () => {
  it('count the same after any sequence of steps, and refuse the same steps', () => {
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 100, size: 'max' }), (operations) => {
        const pair = new Pair()
        for (const next of operations) {
          if (next.kind === 'begin') pair.begin(next.client, next.exportIndex, next.command, next.length)
          else if (next.kind === 'orphan') pair.orphan(next.client)
          else pair.step(next.step, next.pick)
          pair.agree()
        }
      }),
      { numRuns: 60 },
    )
  })
})

describe('the rules of the tracker', () => {
  let tracker: RequestTracker
  const begin = (command = WRITE, client = 0): number =>
    tracker.begin(0, client, command, 1, 8192, 4096, COOKIE, 2, 1000)

  beforeEach(() => {
    tracker = new RequestTracker(LIMITS)
  })

  it('the numbers of the phases are the rows of their table', () => {
    const names = Object.fromEntries(Object.entries(Phase).map(([name, value]) => [value, name.toLowerCase()]))
    expect(PHASE_TRANSITIONS.states).toEqual(Object.values(names))
  })

  it('a request keeps what it was parsed with', () => {
    const slot = begin()
    expect(tracker.cookieText(slot)).toBe('010203' + '0ab0060708')
    expect(tracker.phaseName(slot)).toBe('parsed')
    expect([tracker.offset[slot], tracker.length[slot], tracker.flags[slot], tracker.since[slot]]).toEqual([
      8192, 4096, 1, 1000,
    ])
    expect([tracker.wideOffset[slot], tracker.wideLength[slot]]).toEqual([8192, 4096])
  })

  it('a length of 32 bits and an offset of 53 are exact', () => {
    const slot = tracker.begin(0, 0, WRITE, 0, Number.MAX_SAFE_INTEGER - 0xffff_ffff, 0xffff_ffff, COOKIE, 0, 0)
    expect((tracker.offset[slot] ?? 0) + (tracker.length[slot] ?? 0)).toBe(Number.MAX_SAFE_INTEGER)
    expect(tracker.clientBytes(0)).toBe(0xffff_ffff)
  })

  it('a range is widened, never narrowed, and not once the disk has it', () => {
    const slot = begin()
    tracker.widen(slot, 4096, 16384)
    expect([tracker.wideOffset[slot], tracker.wideLength[slot]]).toEqual([4096, 16384])
    expect([tracker.offset[slot], tracker.length[slot]]).toEqual([8192, 4096])
    expect(() => {
      tracker.widen(slot, 8193, 4096)
    }).toThrow('contains the range')
    tracker.admit(slot)
    tracker.submit(slot)
    expect(() => {
      tracker.widen(slot, 4096, 16384)
    }).toThrow('only a parsed or admitted')
  })

  it('a submitted request is never forgotten', () => {
    const slot = begin()
    tracker.admit(slot)
    tracker.submit(slot)
    expect(() => {
      tracker.finish(slot)
    }).toThrow('is submitted and cannot become free')
    expect(tracker.unclearedWritesOfExport(0)).toBe(1)
  })

  it('the client that is gone keeps its number until its last request has left', () => {
    const slot = begin()
    tracker.admit(slot)
    tracker.submit(slot)
    tracker.orphanClient(0)
    expect(tracker.isOrphan(slot)).toBe(true)
    expect(tracker.orphansOfExport(0)).toBe(1)
    expect(() => begin()).toThrow('cannot begin a request')
    tracker.clear(slot)
    expect(tracker.orphansOfExport(0)).toBe(0)
    expect(tracker.outstandingOfClient(0)).toBe(1)
    tracker.finish(slot)
    expect(tracker.isOrphan(begin())).toBe(false)
  })

  it('what a client that is gone had only sent is never admitted', () => {
    const slot = begin()
    tracker.orphanClient(0)
    expect(() => {
      tracker.admit(slot)
    }).toThrow('a request whose client is gone is not admitted')
    tracker.finish(slot)
    expect(tracker.outstandingOfExport(0)).toBe(0)
  })

  it('an orphaned read is no orphan of the export: it changes no bytes', () => {
    const slot = begin(READ)
    tracker.admit(slot)
    tracker.orphanClient(0)
    expect(tracker.isOrphan(slot)).toBe(true)
    expect(tracker.orphansOfExport(0)).toBe(0)
  })

  it('says that it is full, and takes a request again once one has left', () => {
    const slots = Array.from({ length: LIMITS.slotsMax }, () => begin())
    expect(new Set(slots).size).toBe(LIMITS.slotsMax)
    expect(begin()).toBe(-1)
    tracker.finish(slots[3] ?? -1)
    expect(begin()).toBe(slots[3])
  })

  it('each use of a slot has another number', () => {
    const slot = begin()
    const uses = [tracker.reuse[slot]]
    tracker.finish(slot)
    expect(begin()).toBe(slot)
    uses.push(tracker.reuse[slot])
    expect(uses).toEqual([0, 1])
  })

  it('notices a count that is wrong', () => {
    const slot = begin()
    tracker.length[slot] = 1
    expect(() => {
      tracker.invariants()
    }).toThrow('bytes of a client')
  })
})
