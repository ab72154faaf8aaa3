/**
 * A crash at every edge: the daemon is killed at each fault point of exports and ownership, which are enumerated here, on
 * its way through open, close, early close, cancelled close, takeover, clear and the end of a close that a crash left.
 * After each, the record says one of the states that are true at that point, and what follows from the state is right:
 * whether the other host may open, what the next start does, which receipt is given, again and again. The image always
 * holds what was answered last. Where the engine has the image when the daemon dies, it is done with both engines.
 *
 * The homes of records take the edges in turns, and both have those at which the record itself is being changed.
 *
 * @module-tag slow
 */

import { afterAll, describe, expect, test } from 'vitest'
import { ENGINES } from '../support/daemon.ts'
import { projectFiles } from '../style/project-files.ts'
import { checkNextOpen, dieClosing, dieClosingEarly, dieDraining, dieOpening } from './crash-course.ts'
import type { CrashEdge, CrashOutcome } from './crash-course.ts'
import { CrashRigs } from './crash-rig.ts'
import type { EngineChoice } from './crash-rig.ts'
import { homeOfRecords, refusal } from './ownership-rig.ts'
import type { HomeName } from './ownership-rig.ts'

type Table = Readonly<Record<string, readonly CrashOutcome[]>>

const OPEN: Table = {
  'open: before the token': ['closed'],
  'open: token left': ['closed'],
  'open: claimed': ['closed'],
  'open: before opening is recorded': ['closed'],
  'record: written': ['closed'],
  'record: linked': ['opening'],
  'record: durable': ['opening'],
  'open: opening recorded': ['opening'],
  'open: narrowed': ['opening'],
  'open: old receipt dropped': ['opening'],
  'open: admitting': ['opening'],
  'record: written@2': ['opening'],
  'record: linked@2': ['open'],
  'record: durable@2': ['open'],
  'open: open recorded': ['open'],
}

/** That it closes is recorded while it drains. */
const CLOSE: Table = {
  'close: before closing is recorded': ['open'],
  'record: written': ['open'],
  'record: linked': ['closing'],
  'record: durable': ['closing'],
  'close: closing recorded': ['closing'],
  'close: synced': ['open', 'closing'],
  'close: receipt kept': ['closing'],
  'close: before closed is recorded': ['closing'],
  'record: written@2': ['closing'],
  'record: linked@2': ['closed'],
  'record: durable@2': ['closed'],
  'close: closed recorded': ['closed'],
}

const EARLY: Table = {
  'early: locks released': ['open'],
  'close: before closing is recorded': ['open'],
  'record: written': ['open'],
  'record: linked': ['handed early'],
  'record: durable': ['handed early'],
  'close: closing recorded': ['handed early'],
  'early: recorded': ['handed early'],
}

/** The destination has opened when the source dies. */
const EARLY_END = [
  'close: synced',
  'close: receipt kept',
  'close: before closed is recorded',
  'record: written',
  'record: linked',
  'record: durable',
  'close: closed recorded',
]

const CANCEL: Table = {
  'cancel: before open is recorded': ['handed early'],
  'cancel: open recorded': ['open'],
}

const RECOVERY: Table = {
  'recovery: proved': ['closing'],
  'recovery: receipt kept': ['closing'],
  'recovery: recorded': ['closed'],
}

const TAKEOVER = ['takeover: before the intent', 'takeover: intent recorded', 'takeover: fenced']
const CLEAR = ['clear: proved', 'clear: removed']

const EXERCISED = [OPEN, CLOSE, EARLY, CANCEL, RECOVERY].flatMap((table) => Object.keys(table))

/** Where the engine is asked to give the image up, or to go on with it. */
const WITH_ENGINE: ReadonlySet<string> = new Set([
  'close: closing recorded',
  'close: synced',
  'early: locks released',
  'early: recorded',
  ...Object.keys(CANCEL),
])

/** Others see a record in a directory once it is linked, and in etcd once it is durable. */
const HOMES: Readonly<Record<string, readonly HomeName[]>> = {
  'record: written': ['directory', 'etcd'],
  'record: linked': ['directory'],
  'record: durable': ['etcd'],
  'takeover: intent recorded': ['directory', 'etcd'],
  'clear: removed': ['directory', 'etcd'],
  'recovery: recorded': ['directory', 'etcd'],
}

const rigs = new CrashRigs(['file', 'io_uring'])

afterAll(() => rigs.dispose())

test('every fault point of exports and ownership is exercised here', () => {
  const files = ['src/exports', 'src/ownership'].flatMap((folder) => projectFiles(folder))
  const naming = files.filter(({ path }) => path !== 'src/ownership/steps.ts')
  const named = naming.flatMap(({ path, text }) =>
    [...text.matchAll(/\bfaultPoint(?:\(|: )([^)}]*?) ?[)}]/gu)].map(([, argument = '']) => {
      expect(argument, `in ${path} each is named where it is`).toMatch(/^'[^']+'$/u)
      return argument.slice(1, -1)
    }),
  )
  expect(named.length).toBeGreaterThan(0)
  const exercised = [...EXERCISED, ...EARLY_END, ...TAKEOVER, ...CLEAR].map(pointOf)
  expect(new Set(exercised)).toEqual(new Set(named))
})

function pointOf(fault: string): string {
  return fault.replace(/@\d+$/u, '')
}

/** Those of the home at which the records are; `first` has the first of those that are taken in turns. */
function sharedOut<T>(rows: readonly T[], faultOf: (row: T) => string, first: HomeName = 'directory'): T[] {
  const here = homeOfRecords()
  let isOurTurn = here !== first
  return rows.filter((row) => {
    const homes = HOMES[pointOf(faultOf(row))]
    if (homes !== undefined) return homes.includes(here)
    isOurTurn = !isOurTurn
    return isOurTurn
  })
}

const faultsOf = (faults: readonly string[], first?: HomeName): string[] => sharedOut(faults, (fault) => fault, first)

/** Its name, who opens first, the engine, and the edge. */
type Row = [string, boolean, EngineChoice, CrashEdge]

function rowsOf(table: Table, engines: (fault: string) => readonly EngineChoice[]): Row[] {
  const rows = Object.entries(table).flatMap(([fault, allowed]) =>
    engines(fault).map((engine) => ({ fault, allowed, engine })),
  )
  return sharedOut(rows, ({ fault }) => fault).map(({ fault, allowed, engine }, index): Row => {
    const otherFirst = index % 2 === 0
    return [fault, otherFirst, engine, { fault, allowed, otherFirst }]
  })
}

const onEither = (): readonly EngineChoice[] => ['either']
const onBoth = (fault: string): readonly EngineChoice[] => (WITH_ENGINE.has(fault) ? ENGINES : ['either'])

describe.concurrent('opening', () => {
  test.each(rowsOf(OPEN, onEither))('%s (the other host opens first: %s, %s)', (_fault, _first, engine, edge) =>
    rigs.use(engine, (rig) => dieOpening(rig, edge)),
  )
})

describe.concurrent('closing', () => {
  test.each(rowsOf(CLOSE, onBoth))('%s (the other host opens first: %s, %s)', (_fault, _first, engine, edge) =>
    rigs.use(engine, (rig) => dieClosing(rig, edge)),
  )
})

describe.concurrent('closing early', () => {
  test.each(rowsOf(EARLY, onBoth))('%s (the other host opens first: %s, %s)', (_fault, _first, engine, edge) =>
    rigs.use(engine, (rig) => dieClosingEarly(rig, edge)),
  )

  test.each(faultsOf(EARLY_END))('%s, when the destination has opened', (fault) =>
    rigs.use('either', (rig) => dieDraining(rig, fault)),
  )
})

describe.concurrent('cancelling a close', () => {
  test.each(rowsOf(CANCEL, onBoth))('%s (the other host opens first: %s, %s)', (_fault, _first, engine, edge) =>
    rigs.use(engine, async (rig) => {
      const { victim } = rig
      await rig.openAndWrite(victim)
      // It must not be over before it is cancelled.
      victim.arm('close: synced:sleep=60000')
      await victim.daemon.ask('POST', '/exports/vda/close', { early: true })
      await victim.consumed()
      await victim.dieOf(edge.fault, 'open')
      await checkNextOpen(rig, edge)
    }),
  )
})

describe.concurrent('finishing the close that a crash has left', () => {
  test.each(rowsOf(RECOVERY, onEither))('%s (the other host opens first: %s, %s)', (_fault, _first, engine, edge) =>
    rigs.use(engine, async (rig) => {
      const { victim } = rig
      await rig.openAndWrite(victim)
      await victim.dieOf('close: closing recorded', 'close')
      await victim.dieStarting(edge.fault)
      await checkNextOpen(rig, edge)
    }),
  )

  test.each(faultsOf(Object.keys(RECOVERY), 'etcd'))(
    '%s, of an early close, when the destination has opened',
    (fault) =>
      rigs.use('either', async (rig) => {
        const { victim, other } = rig
        const generation = await rig.openAndWrite(victim)
        await victim.dieOf('early: recorded', 'close', { early: true })
        expect(await rig.openAndWrite(other)).toBe(generation + 1)
        await victim.dieStarting(fault)
        await victim.start()
        const receipt = await victim.receipt()
        expect(receipt).toMatchObject({ generation, clearedBy: 'lock' })
        expect(await victim.receipt()).toEqual(receipt)
        expect(rig.newest).toMatchObject({ generation: generation + 1, draining: [] })
        await rig.rest()
      }),
  )
})

describe.concurrent('taking over', () => {
  test.each(faultsOf(TAKEOVER))('%s', (fault) =>
    rigs.use('either', async (rig) => {
      const { victim, other } = rig
      const generation = await rig.openAndWrite(other)
      await other.daemon.kill()
      await victim.dieOf(fault, 'open', { takeover: true })
      const begun = fault !== 'takeover: before the intent'
      expect(rig.newest).toMatchObject({ state: 'open', generation })
      expect(rig.newest.intent?.generation).toBe(begun ? generation : undefined)
      await victim.start()
      expect(await victim.daemon.status('vda')).toMatchObject({ state: 'standby' })
      await rig.refuses(victim)
      await other.start()
      if (begun) {
        // Neither goes on by itself: the one is being taken over from, the other must ask again.
        expect(await other.daemon.status('vda')).toMatchObject({ state: 'standby' })
        await rig.refuses(other)
        expect(await rig.openAndWrite(victim, { takeover: true })).toBe(generation + 1)
        expect(rig.newest).toMatchObject({ intent: null, cleared: { generation, by: 'fence' } })
        expect(await refusal(other.daemon, 'close')).toMatchObject({ code: 'wrong-state' })
      } else {
        expect(await other.opened()).toMatchObject({ clearedBy: 'lock' })
      }
      await rig.rest()
    }),
  )
})

describe.concurrent('clearing a predecessor', () => {
  test.each(faultsOf(CLEAR))('%s', (fault) =>
    rigs.use('either', async (rig) => {
      const { victim, other } = rig
      const generation = await rig.openAndWrite(other)
      await other.dieOf('early: recorded', 'close', { early: true })
      expect(await rig.openAndWrite(victim)).toBe(generation + 1)
      await victim.dieOf(fault, 'clear', { takeover: true })
      const left = fault === 'clear: removed' ? [] : [{ generation }]
      expect(rig.newest).toMatchObject({ state: 'open', generation: generation + 1, draining: left })
      await victim.start()
      expect(await victim.opened()).toMatchObject({ generation: generation + 2 })
      expect(rig.newest).toMatchObject({ draining: left })
      if (left.length > 0) await victim.daemon.ask('POST', '/exports/vda/clear', { takeover: true })
      expect(rig.newest).toMatchObject({ state: 'open', generation: generation + 2, draining: [] })
      await rig.write(victim)
      await other.start()
      expect(await refusal(other.daemon, 'close')).toMatchObject({ code: 'wrong-state' })
      await rig.refuses(other)
      await rig.rest()
    }),
  )
})
