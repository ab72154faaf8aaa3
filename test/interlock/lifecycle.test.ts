import { readFile } from 'node:fs/promises'
import { describe, expect, it } from 'vitest'
import { LIFECYCLE_PAGE, lifecyclePage } from '../../scripts/lifecycle-diagram.ts'
import { Refusal } from '../../src/foundation/refusal.ts'
import {
  LIFECYCLE,
  Lifecycle,
  VERBS,
  acceptsNegotiation,
  gateSettings,
  verbProblem,
} from '../../src/interlock/lifecycle.ts'
import type { ExportState, GateChoices } from '../../src/interlock/lifecycle.ts'

const PARKING: GateChoices = { standbyReads: 'serve', closeRequests: 'park' }
const REFUSING: GateChoices = { standbyReads: 'park', closeRequests: 'refuse' }

/** Shortest ways from standby. */
const PATHS: Readonly<Record<ExportState, readonly ExportState[]>> = {
  standby: [],
  opening: ['opening'],
  open: ['opening', 'open'],
  closing: ['opening', 'open', 'closing'],
  closed: ['opening', 'open', 'closing', 'closed'],
  fenced: ['fenced'],
}

function exportIn(state: ExportState): Lifecycle {
  const lifecycle = new Lifecycle('vda')
  for (const next of PATHS[state]) lifecycle.to(next)
  expect(lifecycle.state).toBe(state)
  return lifecycle
}

function refusalOf(attempt: () => unknown): Refusal {
  try {
    attempt()
  } catch (error) {
    if (error instanceof Refusal) return error
    throw error
  }
  throw new Error('nothing was refused')
}

describe('the lifecycle', () => {
  it('goes where its table says and nowhere else', () => {
    for (const from of LIFECYCLE.states) {
      for (const to of LIFECYCLE.states) {
        const lifecycle = exportIn(from)
        if (LIFECYCLE.allows(from, to)) {
          expect(lifecycle.to(to)).toBe(from)
          expect(lifecycle.state).toBe(to)
        } else {
          expect(() => lifecycle.to(to)).toThrow(`an export cannot go from ${from} to ${to}`)
          expect(lifecycle.state).toBe(from)
        }
      }
    }
  })

  it('is closed only out of closing, and open only out of opening or a cancelled close', () => {
    const into = (to: ExportState): ExportState[] => LIFECYCLE.states.filter((from) => LIFECYCLE.allows(from, to))
    expect(into('closed')).toEqual(['closing'])
    expect(into('open')).toEqual(['opening', 'closing'])
    expect(into('fenced')).toEqual(['standby', 'opening', 'open', 'closing', 'closed'])
  })

  it('leaves fenced only for opening or standby', () => {
    expect(LIFECYCLE.states.filter((to) => LIFECYCLE.allows('fenced', to))).toEqual(['standby', 'opening'])
  })

  it("has Xen's numbers", () => {
    expect(LIFECYCLE.states.map((state) => [state, exportIn(state).xenbusState])).toEqual([
      ['standby', 2],
      ['opening', 3],
      ['open', 4],
      ['closing', 5],
      ['closed', 6],
      ['fenced', 6],
    ])
  })
})

describe('the verbs', () => {
  it('begin, join or repeat where the table says so', () => {
    const answers = VERBS.map((verb) => [
      verb,
      ...LIFECYCLE.states.map((state) =>
        verbProblem('vda', state, verb) === null ? exportIn(state).answer(verb) : '-',
      ),
    ])
    expect(answers).toEqual([
      // standby, opening, open, closing, closed, fenced
      ['open', 'begin', 'join', 'repeat', 'begin', 'begin', 'begin'],
      ['close', 'repeat', '-', 'begin', 'join', 'repeat', '-'],
      ['standby', 'repeat', '-', '-', '-', 'begin', 'begin'],
      ['clear', 'begin', '-', 'begin', 'begin', '-', '-'],
      ['adopt', 'begin', '-', '-', '-', 'begin', 'begin'],
      ['fence', 'begin', 'begin', 'begin', 'begin', 'begin', 'repeat'],
      ['remove', 'begin', '-', '-', '-', 'begin', 'begin'],
    ])
  })

  it('that begin can reach what they ask for', () => {
    const goals = { open: 'opening', close: 'closing', standby: 'standby', fence: 'fenced' } as const
    for (const [verb, goal] of Object.entries(goals) as [keyof typeof goals, ExportState][]) {
      for (const state of LIFECYCLE.states) {
        if (verbProblem('vda', state, verb) !== null || exportIn(state).answer(verb) !== 'begin') continue
        // An open of what is closing cancels the close.
        expect(
          LIFECYCLE.allows(state, state === 'closing' && verb === 'open' ? 'open' : goal),
          `${verb} ${state}`,
        ).toBe(true)
      }
    }
  })

  it('are refused with a sentence that names the export, the state, the verb and what to do', () => {
    const sentence = "export 'vda' is closing and cannot 'standby': wait until it is closed, or 'fence' it"
    expect(verbProblem('vda', 'closing', 'standby')).toBe(sentence)
    const refusal = refusalOf(() => exportIn('closing').answer('standby'))
    expect([refusal.code, refusal.message]).toEqual(['wrong-state', sentence])
    expect(refusal.members).toEqual({ export: 'vda', state: 'closing', verb: 'standby' })
  })
})

describe('what a state means for clients', () => {
  const settings = (choices: GateChoices) =>
    LIFECYCLE.states.map((state) => {
      const { reads, writes } = gateSettings(state, choices)
      return `${state} ${reads} ${writes} ${acceptsNegotiation(state, choices) ? 'accept' : 'shutdown'}`
    })

  it('serving in standby, and parking in the close', () => {
    expect(settings(PARKING)).toEqual([
      'standby admit park accept',
      'opening admit park accept',
      'open admit admit accept',
      'closing park park accept',
      'closed park park shutdown',
      'fenced refuse refuse shutdown',
    ])
  })

  it('parking in standby, and refusing in the close', () => {
    expect(settings(REFUSING)).toEqual([
      'standby park park accept',
      'opening park park accept',
      'open admit admit accept',
      'closing refuse refuse shutdown',
      'closed refuse refuse shutdown',
      'fenced refuse refuse shutdown',
    ])
  })

  it('a write is admitted in open and nowhere else', () => {
    for (const choices of [PARKING, REFUSING]) {
      expect(LIFECYCLE.states.filter((state) => gateSettings(state, choices).writes === 'admit')).toEqual(['open'])
    }
  })
})

describe('docs/lifecycle.md', () => {
  it('is what the tables say; `npx tsx scripts/lifecycle-diagram.ts` writes it anew', async () => {
    expect(await readFile(LIFECYCLE_PAGE, 'utf8')).toBe(await lifecyclePage())
  })
})
