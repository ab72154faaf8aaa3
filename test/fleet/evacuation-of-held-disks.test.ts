/**
 * A daemon with many exports is emptied while disks keep writes until the test lets go of them: one disk that is stuck keeps
 * nobody else, and is named; and an early evacuation waits for no disk at all. A guest writes on each export, goes on at
 * the other host, and finds there what was answered. One fleet for both, there and back, over the file engine.
 *
 * @module-tag slow
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { eventually } from '../support/eventually.ts'
import { Scratch } from '../support/scratch.ts'
import { beganInTurn, beganTogether, evacuate, exportsOf, Guests, openAll, startFleet } from './fleet-rig.ts'
import type { Fleet } from './fleet-rig.ts'

/** The rules are the same with few; `evacuation.test.ts` and `size.test.ts` have 256. */
const EXPORTS = Number(process.env['INTERLOCKD_TEST_EXPORTS'] ?? 16)
const DISKS = 4
const PATIENCE = { timeoutMs: 150_000, intervalMs: 500 }
/** Of a machine that does other things; a quiet one needs a fifth. */
const LONG = { timeout: 300_000 }
/** In which whatever was still on its way would land. */
const LATE_WRITES_MS = 1_500

const shared = new Scratch()
let fleet: Fleet
let guests: Guests

beforeAll(async () => {
  const witness = { scripted: true }
  fleet = await startFleet(shared, { count: EXPORTS, witnesses: DISKS, witness, engine: 'file' })
  guests = new Guests(shared, fleet)
}, LONG.timeout)

afterAll(() => shared.dispose())

test(
  'one at a time, and the first disk is stuck: it is named, all others go, and a second run finishes',
  LONG,
  async () => {
    const { volumes, disks, source, destination } = fleet
    const [stuck, ...others] = volumes
    const [disk] = disks
    if (stuck === undefined || disk === undefined) throw new Error('there is a disk')
    disk.holdWrites(true)
    await guests.begin([disk])
    const first = evacuate(source, '--parallel', '1')
    const othersClosed = async (): Promise<boolean> =>
      (await exportsOf(source)).filter(({ state }) => state === 'closed').length === others.length
    await eventually('all others to be closed', othersClosed, PATIENCE)
    await openAll(destination, others)
    expect(await guests.badBlocksServedBy(destination, others)).toEqual([])
    await guests.moveTo(destination, others)
    await guests.progress(2, others)

    const second = await evacuate(source, '--timeout', '500ms')
    expect(second.outcome.status).toBe(4)
    expect(second.outcome.stderr).toContain(`1 of ${EXPORTS} exports are not closed: '${stuck.name}'`)
    expect(second.report).toMatchObject({ complete: false, quiet: false })
    expect(second.report.exports.filter(({ outcome }) => outcome !== 'closed')).toMatchObject([
      { export: stuck.name, outcome: 'notClosed', problem: { code: 'still-draining', outstanding: { submitted: 1 } } },
    ])
    expect(disk.log.inDisk()).toHaveLength(1)
    // Whoever believes that it is closed is refused by the record.
    expect((await destination.api('POST', `/exports/${stuck.name}/open`, {})).status).toBe(409)

    disk.holdWrites(false)
    const third = await evacuate(source)
    expect(third.outcome).toMatchObject({ status: 0 })
    expect(third.report).toMatchObject({ complete: true, quiet: true })
    expect(third.report.exports.filter(({ receipt }) => receipt !== null)).toHaveLength(EXPORTS)
    const { report } = await first
    expect(report).toMatchObject({ complete: true, quiet: true })
    expect(beganInTurn(report)).toBe(true)
    await openAll(destination, [stuck])
    await guests.moveTo(destination, [stuck])
    await guests.progress(2)
  },
)

test('early: all go while writes are in slow disks, and these land before what is newer', LONG, async () => {
  const { volumes, disks, source, destination } = fleet
  const inDisks = (): number[] => disks.map(({ log }) => log.inDisk().length)
  const oneInEach = disks.map(() => 1)
  expect((await evacuate(destination)).report).toMatchObject({ complete: true, quiet: true })
  await openAll(source, volumes)
  expect(await guests.badBlocksServedBy(source)).toEqual([])
  for (const disk of disks) disk.holdWrites(true)
  await guests.begin()
  const { outcome, report } = await evacuate(source, '--early')
  expect(outcome).toMatchObject({ status: 0 })
  expect(report).toMatchObject({ complete: true, quiet: false })
  expect(beganTogether(report)).toBe(true)
  const handedOver = report.exports.filter((one) => one.outcome === 'handedOver').map((one) => one.export)
  const slow = volumes.filter(({ disk }) => disk !== null)
  expect(handedOver).toEqual(expect.arrayContaining(slow.map(({ name }) => name)))
  expect(inDisks()).toEqual(oneInEach)

  await openAll(destination, volumes)
  expect(await guests.badBlocksServedBy(destination)).toEqual([])
  await guests.moveTo(destination)
  const others = volumes.filter(({ disk }) => disk === null)
  await guests.progress(2, others)
  // A guest that did not have to wait here would write over its block by now, and stop; the old write would land on that.
  const settled = guests.settle()
  await sleep(LATE_WRITES_MS)
  expect(inDisks()).toEqual(oneInEach)
  for (const disk of disks) disk.holdWrites(false)
  const again = await evacuate(source)
  expect(again.outcome).toMatchObject({ status: 0 })
  expect(again.report).toMatchObject({ complete: true, quiet: true })
  expect(again.report.exports.filter(({ receipt }) => receipt?.generation === 3)).toHaveLength(EXPORTS)
  const quietMs = Date.now() + 1
  expect(disks.filter(({ log }) => !log.wasQuietAt(quietMs))).toEqual([])
  await settled
  await sleep(LATE_WRITES_MS)
  expect(disks.flatMap(({ log }) => log.changesAfter(quietMs))).toEqual([])
  expect(guests.badBlocks()).toEqual([])
})
