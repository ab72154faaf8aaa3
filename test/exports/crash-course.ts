/**
 * How a host of the rig dies on its way through a verb, and what must be true afterwards, whoever opens next: the record
 * says one of the states that are true at that point, and what follows from the state is right. The victim's generation
 * was written to, or closed before, so the image shows whether anything that was answered is lost.
 */

import { expect } from 'vitest'
import { handedEarly } from '../../src/ownership/opening-rule.ts'
import type { CrashRig } from './crash-rig.ts'

export type CrashOutcome = 'closed' | 'opening' | 'open' | 'closing' | 'handed early'

/** Where it dies, and what the record may say then. */
export interface CrashEdge {
  readonly fault: string
  readonly allowed: readonly CrashOutcome[]
  /** Who opens first matters where the other host may open. */
  readonly otherFirst: boolean
}

export async function dieOpening(rig: CrashRig, edge: CrashEdge): Promise<void> {
  const { victim } = rig
  await rig.openAndWrite(victim)
  await victim.daemon.close('vda')
  await victim.dieOf(edge.fault, 'open')
  await checkNextOpen(rig, edge)
}

export async function dieClosing(rig: CrashRig, edge: CrashEdge): Promise<void> {
  await rig.openAndWrite(rig.victim)
  await rig.victim.dieOf(edge.fault, 'close')
  await checkNextOpen(rig, edge)
}

export async function dieClosingEarly(rig: CrashRig, edge: CrashEdge): Promise<void> {
  await rig.openAndWrite(rig.victim)
  await rig.victim.dieOf(edge.fault, 'close', { early: true })
  await checkNextOpen(rig, edge)
}

/** At the end of an early close, when the destination has opened. */
export async function dieDraining(rig: CrashRig, fault: string): Promise<void> {
  const { victim, other } = rig
  const generation = await rig.openAndWrite(victim)
  victim.arm('close: synced:stop')
  await victim.daemon.ask('POST', '/exports/vda/close', { early: true })
  await victim.stoppedAt('close: synced')
  expect(await rig.openAndWrite(other)).toBe(generation + 1)
  expect(rig.newest.draining).toHaveLength(1)
  if (fault === 'close: synced') {
    await victim.daemon.kill()
  } else {
    victim.arm(`${fault}:kill`)
    victim.daemon.program.signal('SIGCONT')
    await victim.died(fault)
  }
  await victim.start()
  const receipt = await victim.receipt()
  expect(receipt).toMatchObject({ generation })
  expect(rig.newest).toMatchObject({ generation: generation + 1, draining: [] })
  await other.daemon.close('vda')
  expect(await victim.receipt()).toEqual(receipt)
  await rig.rest()
}

export async function checkNextOpen(rig: CrashRig, { allowed, otherFirst }: CrashEdge): Promise<void> {
  const { victim, other, newest } = rig
  const found = outcome(rig)
  expect(allowed).toContain(found)
  switch (found) {
    case 'opening':
    case 'open': {
      await rig.refuses(other)
      await victim.start()
      const expected = { state: 'open', generation: newest.generation + 1, clearedBy: 'lock' }
      expect(await victim.opened()).toMatchObject(expected)
      await rig.write(victim)
      break
    }
    case 'closing':
      await rig.refuses(other)
      await checkReceiptAndOpen(rig, newest.generation, false)
      break
    case 'closed':
    case 'handed early':
      await checkReceiptAndOpen(rig, newest.generation, otherFirst)
      break
  }
  await rig.rest()
}

function outcome({ newest }: CrashRig): CrashOutcome {
  const { state } = newest
  if (state === 'fenced') throw new Error('nobody has fenced it')
  return state === 'closing' && handedEarly(newest) ? 'handed early' : state
}

/** The receipt is the same whenever it is asked for, and the other host opens the next generation, before or after. */
async function checkReceiptAndOpen(rig: CrashRig, generation: number, otherFirst: boolean): Promise<void> {
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
