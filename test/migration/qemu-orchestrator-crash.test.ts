/**
 * The orchestrator of a live migration is killed at each of its steps and run again, with nothing but the same command
 * line: the guest arrives, and no block is bad. A run that takes up what a killed one has left is killed in its turn, so
 * that one move goes through many kills. After each the guest runs at one place at most; and where it may have run at
 * the destination, it never runs at the source again.
 *
 * @module-tag slow
 */

import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { MIGRATION_STEPS } from '../../src/handover/index.ts'
import type { Daemon } from '../support/daemon.ts'
import { startDaemon } from '../support/daemon.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { DISKS, MovingGuest, resultOf } from '../support/live-migration.ts'
import type { Move } from '../support/live-migration.ts'
import { makeGuestSystem } from '../support/migrating-guest.ts'
import { Scratch } from '../support/scratch.ts'

const KILLED = 137
/** Nobody can be as fast as that: it leads back. */
const OUT_OF_TIME = ['--timeout', '0s']

const scratch = new Scratch()
let hosts: [Daemon, Daemon]
let guest: MovingGuest

beforeAll(async () => {
  const exports = DISKS.map((name) => ({ name, path: makeImage(scratch, 4 * MEBIBYTE) }))
  const system = await makeGuestSystem(scratch, DISKS.length)
  const startHost = (standby: boolean): Promise<Daemon> =>
    startDaemon(scratch, { exports, standby, ownership: 'directory', tcp: false })
  hosts = [await startHost(false), await startHost(true)]
  guest = await MovingGuest.boot(scratch, system, hosts[0])
})
afterAll(() => scratch.dispose())

const other = (): Daemon => (guest.host === hosts[0] ? hosts[1] : hosts[0])

/** Each line is one move; a run begins where the one before was killed. The guest stops while nobody looks, too. */
const ON_THE_WAY = [
  ['migrate: looked', 'migrate: checked', 'migrate: stopped', 'handover: before closing', 'migrate: closing'],
  ['migrate: copying', 'handover: closing@2', 'migrate: continued', 'migrate: closed', 'migrate: opened'],
  ['handover: closed@1', 'handover: opened@1', 'migrate: copied', 'migrate: before running'],
]
const ARRIVED = ['migrate: running', 'migrate: verified']
const ON_THE_WAY_BACK = ['migrate: way back', 'handover: brought back@2', 'migrate: disks back']
/** The last thing that it does there. */
const BACK = 'migrate: back'

test('every step is killed at', () => {
  const points = [...ON_THE_WAY.flat(), ...ARRIVED, ...ON_THE_WAY_BACK, BACK]
  expect(points).toEqual(expect.arrayContaining(MIGRATION_STEPS.map((step) => `migrate: ${step}`)))
})

/** Begins a move whose orchestrator is killed at each of the points, one run after the other. */
async function killedAt(points: readonly string[], flags: readonly string[] = []): Promise<Move> {
  const [first = '', ...further] = points
  let move = await guest.begin(other(), { flags, faultPoint: `${first}:kill` })
  for (const point of [null, ...further]) {
    if (point !== null) move = guest.again(move, { flags, faultPoint: `${point}:kill` })
    expect((await move.program.exited).status, `${point ?? first}: ${move.program.said}`).toBe(KILLED)
    expect((await guest.runsAt(move)).length, point ?? first).toBeLessThanOrEqual(1)
  }
  return move
}

describe('killed, and run again, it arrives or says where the guest is', () => {
  test.each(ON_THE_WAY)('at "%s" and further on', async (...points) => {
    await guest.arrived(guest.again(await killedAt(points)))
  })

  test('where it had arrived, it says so', async () => {
    const move = await killedAt(ARRIVED)
    expect(await guest.runsAt(move)).toEqual(['destination'])
    const { ending } = await guest.arrived(guest.again(move))
    expect(ending).toMatchObject({ already: true, downtime: null })
  })

  test.each(ON_THE_WAY_BACK)('on the way back, at "%s"', async (point) => {
    const move = await killedAt([point], OUT_OF_TIME)
    expect(await guest.runsAt(move), 'it waits for all of its disks').toEqual([])
    await guest.arrived(guest.again(move))
  })

  test(`at "${BACK}", it says that the guest is at the source`, async () => {
    const move = await guest.begin(other(), { flags: OUT_OF_TIME, faultPoint: `${BACK}:kill` })
    expect((await move.program.exited).status, move.program.said).toBe(KILLED)
    expect(await guest.machine.runs()).toBe(true)
    // The destination's QEMU was told to end, and answers nobody any more.
    const { ending } = resultOf(await guest.again(move).program.exited, 3)
    expect(ending).toMatchObject({ kind: 'unchanged', guestAt: 'source' })
    await move.machine.program.stop('SIGKILL')
    await guest.goesOn()
    await guest.move(other())
    await guest.check()
  })
})

test('a guest that may have run at the destination never runs again at the source', async () => {
  const move = await killedAt(['migrate: running'])
  await move.machine.program.stop('SIGKILL')
  const again = guest.again(move)
  const { ending } = resultOf(await again.program.exited, 1)
  expect(ending).toMatchObject({ kind: 'unclear', guestAt: null })
  for (const name of DISKS)
    expect((await move.to.status(name)).state, 'they stay where the guest was last').toBe('open')
  expect(await guest.runsAt(move)).toEqual([])
})
