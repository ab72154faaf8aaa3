import { describe, expect, it } from 'vitest'
import { AssertionFailure } from '../../src/foundation/assert.ts'
import { TransitionTable } from '../../src/foundation/transition-table.ts'

const DOOR = new TransitionTable('a door', {
  open: { shut: 'push' },
  shut: { open: 'pull', locked: 'turn the key' },
  locked: { shut: 'turn it back' },
})

describe('a transition table', () => {
  it('knows its states in the order of its rows', () => {
    expect(DOOR.states).toEqual(['open', 'shut', 'locked'])
  })

  it('allows its edges and nothing else', () => {
    const allowed = DOOR.states.flatMap((from) =>
      DOOR.states.filter((to) => DOOR.allows(from, to)).map((to) => [from, to]),
    )
    expect(allowed).toEqual([
      ['open', 'shut'],
      ['shut', 'open'],
      ['shut', 'locked'],
      ['locked', 'shut'],
    ])
  })

  it('names both states when it refuses', () => {
    expect(() => {
      DOOR.assertAllowed('open', 'locked')
    }).toThrow(new AssertionFailure('a door cannot go from open to locked'))
  })

  it('gives the same edges as a matrix', () => {
    expect([...DOOR.matrix()]).toEqual([0, 1, 0, 1, 0, 1, 0, 1, 0])
  })

  it('draws itself', () => {
    expect(DOOR.mermaid().split('\n')).toEqual([
      'stateDiagram-v2',
      '  open --> shut: push',
      '  shut --> open: pull',
      '  shut --> locked: turn the key',
      '  locked --> shut: turn it back',
    ])
  })

  it('refuses a state that follows itself, and an edge without a reason', () => {
    expect(() => new TransitionTable('a wheel', { turning: { turning: 'always' } })).toThrow('leads to itself')
    expect(() => new TransitionTable('a lamp', { on: { off: '' }, off: {} })).toThrow('for no reason')
  })

  it('refuses an edge to what is not a state', () => {
    const rows: Record<string, Record<string, string>> = { on: { broken: 'drop' } }
    expect(() => new TransitionTable('a lamp', rows)).toThrow('broken, which is not a state')
  })
})
