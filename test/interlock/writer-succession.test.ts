/**
 * The succession against its whole history: the model keeps everything that ever happened and works each answer out
 * anew from the three rules.
 */

import fc from 'fast-check'
import { beforeEach, describe, expect, it } from 'vitest'
import { WriterSuccession } from '../../src/interlock/writer-succession.ts'
import type { WriteDecision } from '../../src/interlock/writer-succession.ts'

const IDENTITIES = ['host-a', 'host-b', 'host-c'] as const

const operation = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('arrive' as const), identity: fc.constantFrom(...IDENTITIES) }),
  },
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('write' as const), pick: fc.nat() }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('leave' as const), pick: fc.nat() }) },
)

type Happening =
  | { readonly kind: 'arrived' | 'left'; readonly client: number; readonly identity: string }
  | { readonly kind: 'wrote' | 'turned away'; readonly client: number; readonly identity: string }

/** Answers by searching the history. */
class Model {
  readonly history: Happening[] = []

  living(): Map<number, string> {
    const living = new Map<number, string>()
    for (const { kind, client, identity } of this.history) {
      if (kind === 'arrived') living.set(client, identity)
      if (kind === 'left') living.delete(client)
    }
    return living
  }

  /** The newest client that ever wrote, connected or not. */
  newestWriter(): number {
    return Math.max(-1, ...this.history.filter(({ kind }) => kind === 'wrote').map(({ client }) => client))
  }

  writer(): number | undefined {
    const newest = this.newestWriter()
    return this.living().has(newest) ? newest : undefined
  }

  barred(): Set<string> {
    const writer = this.writer()
    if (writer === undefined) return new Set()
    const own = this.living().get(writer)
    const since = this.history.findIndex(({ kind, client }) => kind === 'wrote' && client === writer)
    const before = new Model()
    before.history.push(...this.history.slice(0, since))
    const older = before.writer()
    const barred = new Set<string>()
    if (older !== undefined) barred.add(before.living().get(older) ?? '')
    for (const { kind, identity } of this.history.slice(since)) if (kind === 'turned away') barred.add(identity)
    if (own !== undefined) barred.delete(own)
    return barred
  }

  decide(client: number): WriteDecision {
    if (client < this.newestWriter() || this.barred().has(this.living().get(client) ?? '')) return 'barred'
    const writer = this.writer()
    return writer === undefined || writer === client ? 'admit' : 'evict-older'
  }
}

describe('the succession and its model', () => {
  it('decide alike, and the clients whose writes are admitted only get newer', () => {
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 60, size: 'max' }), (operations) => {
        const succession = new WriterSuccession('exclusive')
        const model = new Model()
        const admitted: number[] = []
        let arrivals = 0
        const leave = (client: number, identity: string): void => {
          succession.leave(client)
          model.history.push({ kind: 'left', client, identity })
        }
        for (const next of operations) {
          const living = [...model.living()]
          if (next.kind === 'arrive') {
            const client = arrivals++
            const decision = succession.arrive(client, next.identity)
            expect(decision !== 'welcome').toBe(model.barred().has(next.identity))
            if (decision === 'welcome') model.history.push({ kind: 'arrived', client, identity: next.identity })
          } else {
            const [client, identity] = living[next.pick % living.length] ?? [-1, '']
            if (client === -1) continue
            if (next.kind === 'leave') leave(client, identity)
            else {
              const older = model.writer()
              const decision = succession.admitWrite(client)
              expect(decision).toBe(model.decide(client))
              if (decision === 'evict-older') expect(succession.evicted).toBe(older)
              model.history.push({ kind: decision === 'barred' ? 'turned away' : 'wrote', client, identity })
              if (decision !== 'barred') admitted.push(client)
            }
          }
          succession.invariants()
          expect(succession.writer).toBe(model.writer() ?? -1)
          expect(IDENTITIES.filter((identity) => succession.isBarred(identity))).toEqual(
            IDENTITIES.filter((identity) => model.barred().has(identity)),
          )
        }
        expect(admitted).toEqual([...admitted].sort((a, b) => a - b))
      }),
      { numRuns: 300 },
    )
  })

  it('two hosts that both reconnect and write for ever evict each other once', () => {
    fc.assert(
      fc.property(fc.array(fc.boolean(), { maxLength: 60, size: 'max' }), (turns) => {
        const succession = new WriterSuccession('exclusive')
        const connected: Record<string, number | undefined> = {}
        let arrivals = 0
        let evictions = 0
        for (const turn of turns) {
          const identity = turn ? 'host-a' : 'host-b'
          const client = connected[identity] ?? arrivals++
          if (connected[identity] === undefined && succession.arrive(client, identity) !== 'welcome') continue
          connected[identity] = client
          if (succession.admitWrite(client) !== 'evict-older') continue
          evictions += 1
          succession.leave(succession.evicted)
          connected[turn ? 'host-b' : 'host-a'] = undefined
        }
        expect(evictions).toBeLessThanOrEqual(1)
      }),
    )
  })
})

describe('the rules of succession', () => {
  let succession: WriterSuccession

  beforeEach(() => {
    succession = new WriterSuccession('exclusive')
    succession.arrive(1, 'host-a')
    expect(succession.admitWrite(1)).toBe('admit')
  })

  it('the first write of a newcomer evicts the older writer; its arrival does not', () => {
    succession.arrive(2, 'host-b')
    expect(succession.admitWrite(1)).toBe('admit')
    expect(succession.writer).toBe(1)
    expect(succession.admitWrite(2)).toBe('evict-older')
    expect([succession.writer, succession.evicted]).toEqual([2, 1])
    expect(succession.admitWrite(2)).toBe('admit')
  })

  it('nothing more of the evicted is admitted', () => {
    succession.arrive(2, 'host-b')
    succession.admitWrite(2)
    expect(succession.admitWrite(1)).toBe('barred')
  })

  it('nothing of a client that arrived before the writer is admitted, though it never wrote', () => {
    succession.arrive(2, 'host-b')
    succession.arrive(3, 'host-a')
    expect(succession.admitWrite(3)).toBe('evict-older')
    expect(succession.admitWrite(2)).toBe('barred')
    expect(succession.isBarred('host-b')).toBe(true)
  })

  it('nothing older than a writer is admitted after that writer has gone', () => {
    succession.arrive(2, 'host-a')
    succession.admitWrite(2)
    succession.leave(2)
    expect(succession.writer).toBe(-1)
    expect(succession.admitWrite(1)).toBe('barred')
    succession.arrive(3, 'host-a')
    expect(succession.admitWrite(3)).toBe('admit')
  })

  it('the evicted identity is refused while the newcomer lives, and reported once', () => {
    succession.arrive(2, 'host-b')
    succession.admitWrite(2)
    succession.leave(1)
    expect(succession.arrive(3, 'host-a')).toBe('barred')
    expect(succession.arrive(4, 'host-a')).toBe('barred-again')
    expect(succession.arrive(5, 'host-c')).toBe('welcome')
  })

  it('another connection of the evicted identity does not evict the newcomer', () => {
    succession.arrive(2, 'host-b')
    succession.arrive(3, 'host-a')
    expect(succession.admitWrite(2)).toBe('evict-older')
    expect(succession.admitWrite(3)).toBe('barred')
    expect(succession.writer).toBe(2)
  })

  it('the bar falls when the newcomer is gone', () => {
    succession.arrive(2, 'host-b')
    succession.admitWrite(2)
    succession.leave(1)
    succession.leave(2)
    expect(succession.arrive(3, 'host-a')).toBe('welcome')
    expect(succession.admitWrite(3)).toBe('admit')
  })

  it('a frontend that comes back under its own identity bars nobody', () => {
    succession.arrive(2, 'host-a')
    expect(succession.admitWrite(2)).toBe('evict-older')
    succession.leave(1)
    expect(succession.arrive(3, 'host-a')).toBe('welcome')
    expect(succession.admitWrite(3)).toBe('evict-older')
  })

  it('the bar in favour of one newcomer falls with it when the next one takes over', () => {
    succession.arrive(2, 'host-b')
    succession.admitWrite(2)
    succession.arrive(3, 'host-c')
    expect(succession.admitWrite(3)).toBe('evict-older')
    expect([succession.isBarred('host-a'), succession.isBarred('host-b')]).toEqual([false, true])
  })

  it('a shared export admits everybody', () => {
    const shared = new WriterSuccession('shared')
    shared.arrive(1, 'host-a')
    shared.arrive(2, 'host-b')
    expect([2, 1, 2].map((client) => shared.admitWrite(client))).toEqual(['admit', 'admit', 'admit'])
    expect(shared.writer).toBe(-1)
    shared.invariants()
  })

  it('a client arrives before it writes or leaves, and once', () => {
    expect(() => succession.admitWrite(9)).toThrow('has arrived')
    expect(() => {
      succession.leave(9)
    }).toThrow('has arrived')
    expect(() => succession.arrive(1, 'host-a')).toThrow('arrives once')
  })
})
