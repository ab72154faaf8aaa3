/**
 * A crash at every edge: the daemon is killed at each fault point of exports and ownership, which are enumerated here, on
 * its way through open, close, early close, cancelled close, takeover, clear and the end of a close that a crash left.
 * After each, the record says one of the states that are true at that point, and what follows from the state is right:
 * whether the other host may open, what the next start does, which receipt is given, again and again. The image always
 * holds what was answered last.
 *
 * @module-tag slow
 */

import { afterAll, beforeEach, describe, expect, test } from 'vitest'
import { handedEarly } from '../../src/ownership/opening-rule.ts'
import { Scratch } from '../support/scratch.ts'
import { projectFiles } from '../style/project-files.ts'
import { CrashRig } from './crash-rig.ts'
import { refusal } from './ownership-rig.ts'

type Outcome = 'closed' | 'opening' | 'open' | 'closing' | 'handed early'
type Table = Readonly<Record<string, readonly Outcome[]>>

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
  'record: written@2': ['opening'],
  'record: linked@2': ['open'],
  'open: open recorded': ['open'],
}

/** That it closes is recorded while it drains. */
const CLOSE: Table = {
  'close: before closing is recorded': ['open'],
  'record: written': ['open'],
  'record: linked': ['closing'],
  'close: closing recorded': ['closing'],
  'close: synced': ['open', 'closing'],
  'close: receipt kept': ['closing'],
  'close: before closed is recorded': ['closing'],
  'record: written@2': ['closing'],
  'record: linked@2': ['closed'],
  'close: closed recorded': ['closed'],
}

const EARLY: Table = {
  'early: locks released': ['open'],
  'close: before closing is recorded': ['open'],
  'record: linked': ['handed early'],
  'close: closing recorded': ['handed early'],
  'early: recorded': ['handed early'],
}

/** The destination has opened when the source dies. */
const EARLY_END = ['close: synced', 'close: receipt kept', 'close: before closed is recorded', 'close: closed recorded']

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

const scratch = new Scratch()
let rig: CrashRig
let usable = false

beforeEach(async ({ onTestFailed }) => {
  // One rig for all, as long as nothing goes wrong: what a crash leaves is what the next one finds.
  if (!usable) rig = await CrashRig.start(scratch)
  usable = true
  onTestFailed(() => {
    usable = false
  })
})
afterAll(() => scratch.dispose())

test('every fault point of exports and ownership is exercised here', () => {
  const files = ['src/exports', 'src/ownership'].flatMap((folder) => projectFiles(folder))
  const named = files.flatMap(({ path, text }) =>
    [...text.matchAll(/\bfaultPoint\(([^)]*)\)/gu)].map(([, argument = '']) => {
      expect(argument, `in ${path} each is named where it is`).toMatch(/^'[^']+'$/u)
      return argument.slice(1, -1)
    }),
  )
  expect(named.length).toBeGreaterThan(0)
  const exercised = [...EXERCISED, ...EARLY_END, ...TAKEOVER, ...CLEAR].map((fault) => fault.replace(/@\d+$/u, ''))
  expect(new Set(exercised)).toEqual(new Set(named))
})

function outcome(): Outcome {
  const { state } = rig.newest
  if (state === 'fenced') throw new Error('nobody has fenced it')
  return state === 'closing' && handedEarly(rig.newest) ? 'handed early' : state
}

/** What must be true after the victim died, whoever opens next. The victim's generation was written to, or closed before. */
async function checkNextOpen(allowed: readonly Outcome[], otherFirst: boolean): Promise<void> {
  const { victim, other, newest } = rig
  const found = outcome()
  expect(allowed).toContain(found)
  switch (found) {
    case 'opening':
    case 'open': {
      await rig.refuses(other)
      await victim.start()
      const expected = { state: 'open', generation: newest.generation + 1, clearedBy: 'lock' }
      expect(await victim.daemon.status('vda')).toMatchObject(expected)
      await rig.write(victim)
      break
    }
    case 'closing':
      await rig.refuses(other)
      await checkReceiptAndOpen(newest.generation, false)
      break
    case 'closed':
    case 'handed early':
      await checkReceiptAndOpen(newest.generation, otherFirst)
      break
  }
  await rig.rest()
}

/** The receipt is the same whenever it is asked for, and the other host opens the next generation, before or after. */
async function checkReceiptAndOpen(generation: number, otherFirst: boolean): Promise<void> {
  const { victim, other } = rig
  const recorded = rig.newest.receipt
  if (otherFirst) expect(await rig.openAndWrite(other)).toBe(generation + 1)
  await victim.start()
  const receipt = await victim.receipt()
  expect(receipt).toMatchObject({ generation, reason: 'handover' })
  if (recorded !== null) expect(receipt).toEqual(recorded)
  expect(await victim.receipt()).toEqual(receipt)
  if (!otherFirst) expect(await rig.openAndWrite(other)).toBe(generation + 1)
  expect(await victim.receipt()).toEqual(receipt)
  expect(await victim.daemon.status('vda')).toMatchObject({ state: 'standby' })
  await rig.refuses(victim)
  expect(rig.newest).toMatchObject({ generation: generation + 1, state: 'open', draining: [] })
}

/** Who opens first matters where the other host may open. */
function inTurns(table: Table): [string, boolean][] {
  return Object.keys(table).map((fault, index): [string, boolean] => [fault, index % 2 === 0])
}

describe('opening', () => {
  test.each(inTurns(OPEN))('%s (the other host opens first: %s)', async (fault, otherFirst) => {
    const { victim } = rig
    await rig.openAndWrite(victim)
    await victim.daemon.close('vda')
    await victim.dieOf(fault, 'open')
    await checkNextOpen(OPEN[fault] ?? [], otherFirst)
  })
})

describe('closing', () => {
  test.each(inTurns(CLOSE))('%s (the other host opens first: %s)', async (fault, otherFirst) => {
    await rig.openAndWrite(rig.victim)
    await rig.victim.dieOf(fault, 'close')
    await checkNextOpen(CLOSE[fault] ?? [], otherFirst)
  })
})

describe('closing early', () => {
  test.each(inTurns(EARLY))('%s (the other host opens first: %s)', async (fault, otherFirst) => {
    await rig.openAndWrite(rig.victim)
    await rig.victim.dieOf(fault, 'close', { early: true })
    await checkNextOpen(EARLY[fault] ?? [], otherFirst)
  })

  test.each(EARLY_END)('%s, when the destination has opened', async (fault) => {
    const { victim, other } = rig
    const generation = await rig.openAndWrite(victim)
    victim.arm('close: synced:stop')
    await victim.daemon.ask('POST', '/exports/vda/close', { early: true })
    await victim.stoppedAt('close: synced')
    expect(await rig.openAndWrite(other)).toBe(generation + 1)
    expect(rig.newest.draining).toHaveLength(1)
    victim.arm(`${fault}:kill`)
    if (fault === 'close: synced') victim.daemon.program.signal('SIGKILL')
    else victim.daemon.program.signal('SIGCONT')
    if (fault !== 'close: synced') await victim.died(fault)
    else await victim.daemon.program.exited
    await victim.start()
    const receipt = await victim.receipt()
    expect(receipt).toMatchObject({ generation })
    expect(rig.newest).toMatchObject({ generation: generation + 1, draining: [] })
    await other.daemon.close('vda')
    expect(await victim.receipt()).toEqual(receipt)
    await rig.rest()
  })
})

describe('cancelling a close', () => {
  test.each(inTurns(CANCEL))('%s (the other host opens first: %s)', async (fault, otherFirst) => {
    const { victim } = rig
    await rig.openAndWrite(victim)
    // It must not be over before it is cancelled.
    victim.arm('close: synced:sleep=60000')
    await victim.daemon.ask('POST', '/exports/vda/close', { early: true })
    await victim.consumed()
    await victim.dieOf(fault, 'open')
    await checkNextOpen(CANCEL[fault] ?? [], otherFirst)
  })
})

describe('finishing the close that a crash has left', () => {
  test.each(inTurns(RECOVERY))('%s (the other host opens first: %s)', async (fault, otherFirst) => {
    const { victim } = rig
    await rig.openAndWrite(victim)
    await victim.dieOf('close: closing recorded', 'close')
    await victim.dieStarting(fault)
    await checkNextOpen(RECOVERY[fault] ?? [], otherFirst)
  })

  test.each(Object.keys(RECOVERY))('%s, of an early close, when the destination has opened', async (fault) => {
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
  })
})

describe('taking over', () => {
  test.each(TAKEOVER)('%s', async (fault) => {
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
      expect(await other.daemon.status('vda')).toMatchObject({ state: 'open', clearedBy: 'lock' })
    }
    await rig.rest()
  })
})

describe('clearing a predecessor', () => {
  test.each(CLEAR)('%s', async (fault) => {
    const { victim, other } = rig
    const generation = await rig.openAndWrite(other)
    await other.dieOf('early: recorded', 'close', { early: true })
    expect(await rig.openAndWrite(victim)).toBe(generation + 1)
    await victim.dieOf(fault, 'clear', { takeover: true })
    const left = fault === 'clear: removed' ? [] : [{ generation }]
    expect(rig.newest).toMatchObject({ state: 'open', generation: generation + 1, draining: left })
    await victim.start()
    expect(await victim.daemon.status('vda')).toMatchObject({ state: 'open', generation: generation + 2 })
    expect(rig.newest).toMatchObject({ draining: left })
    if (left.length > 0) await victim.daemon.ask('POST', '/exports/vda/clear', { takeover: true })
    expect(rig.newest).toMatchObject({ state: 'open', generation: generation + 2, draining: [] })
    await rig.write(victim)
    await other.start()
    expect(await refusal(other.daemon, 'close')).toMatchObject({ code: 'wrong-state' })
    await rig.refuses(other)
    await rig.rest()
  })
})
