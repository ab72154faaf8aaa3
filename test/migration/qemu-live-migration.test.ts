/**
 * Live migrations of a real guest between QEMUs and between daemons over the same images, with the guest writing to two
 * disks and checking them all the time. One guest is booted and goes through everything: twenty moves to and fro, a slow
 * source, early handovers, cancels, and ends of everybody who takes part.
 *
 * @module-tag slow
 */

import { closeSync, fsyncSync, openSync, readSync, writeSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Downtime, MigrationResult, MigrationStep } from '../../src/handover/index.ts'
import type { Daemon, DaemonOptions } from '../support/daemon.ts'
import { startAgain, startDaemon } from '../support/daemon.ts'
import { eventually } from '../support/eventually.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { DISKS, MovingGuest, resultOf } from '../support/live-migration.ts'
import { makeGuestSystem } from '../support/migrating-guest.ts'
import { Scratch } from '../support/scratch.ts'
import { startWitnessDisk } from '../support/witness-disk.ts'

const MOVES = 20

const scratch = new Scratch()
let hosts: [Daemon, Daemon]
let guest: MovingGuest
let startHost: (paths?: Readonly<Record<string, string>>, options?: Partial<DaemonOptions>) => Promise<Daemon>

const images: Readonly<Record<string, string>> = Object.fromEntries(
  DISKS.map((name) => [name, makeImage(scratch, 4 * MEBIBYTE)]),
)

beforeAll(async () => {
  const directory = scratch.directory('records')
  startHost = (paths = {}, options = {}) =>
    startDaemon(scratch, {
      exports: Object.entries({ ...images, ...paths }).map(([name, path]) => ({ name, path, image_id: name })),
      ownership: 'directory',
      ownershipSettings: [`directory = ${JSON.stringify(directory)}`],
      tcp: false,
      ...options,
    })
  const system = await makeGuestSystem(scratch, 2)
  hosts = [await startHost({}, { engine: 'io_uring' }), await startHost({}, { engine: 'file', standby: true })]
  guest = await MovingGuest.boot(scratch, system, hosts[0])
})
afterAll(() => scratch.dispose())

/** The other of the two hosts that are always there. */
const other = (): Daemon => (guest.host === hosts[0] ? hosts[1] : hosts[0])

test(`${MOVES} moves to and fro, and not one bad block`, async () => {
  for (let count = 1; count <= MOVES; count += 1) {
    const { ending } = await guest.move(other())
    if (ending.kind === 'migrated') tell(`move ${count}`, ending.downtime)
  }
  await guest.check()
})

test('a source on a disk that takes two seconds for each write, plain and early', async () => {
  const disk = await startWitnessDisk(scratch, { backingPath: images['vda'] ?? '', writeDelayMs: 2_000 })
  const slow = await startHost({ vda: disk.path }, { standby: true })
  await guest.machine.setDepth(1)
  for (const flags of [[], ['--early']]) {
    await guest.move(slow)
    const { ending } = await guest.move(hosts[0], { flags })
    expect(disk.log.inDisk(), 'no write of the source is left behind').toEqual([])
    if (ending.kind === 'migrated') tell(`from a slow disk, ${flags.join(' ') || 'plain'}`, ending.downtime)
  }
  await guest.machine.setDepth(8)
  await guest.check()
})

/** A move to the other host that is cancelled when it has got so far. */
async function cancelled(step: MigrationStep): Promise<MigrationResult> {
  const move = await guest.begin(other(), { faultPoint: `migrate: ${step}:sleep=3000` })
  await move.reached(step)
  move.program.signal('SIGINT')
  const result = await guest.broughtBack(move)
  for (const name of DISKS) expect((await move.to.status(name)).state).not.toBe('open')
  return result
}

const generations = (host: Daemon): Promise<number[]> =>
  Promise.all(DISKS.map(async (name) => (await host.status(name)).generation))

describe('a cancel leads back, and the next move is none the worse', () => {
  test.each(['copying', 'stopped', 'closing'] as const)('after "%s": QEMU was not told to go on', async (step) => {
    const { ending, course } = await cancelled(step)
    expect(ending).toMatchObject({ failure: { code: 'cancelled' } })
    expect(course.map((moment) => moment.step)).not.toContain('continued')
  })

  test.each(['closed', 'opened', 'copied'] as const)(
    'after "%s": the source opens the next generation',
    async (step) => {
      const before = await generations(guest.host)
      const { ending, course } = await cancelled(step)
      expect(ending).toMatchObject({ failure: { code: 'cancelled' } })
      const after = await generations(guest.host)
      after.forEach((generation, index) => {
        expect(generation).toBeGreaterThan(before[index] ?? 0)
      })
      // All of the guest was sent; its destination is told to end, and is not waited for until it has.
      const [disksBack = 0, back = Infinity] = ['disks back', 'back'].map(
        (wanted) => course.find((moment) => moment.step === wanted)?.atMs,
      )
      expect(back - disksBack).toBeLessThan(20_000)
    },
  )

  test('and moves', async () => {
    await guest.move(other())
    await guest.check()
  })
})

describe("the destination's QEMU ends, and the guest goes on at the source", () => {
  test.each(['copying', 'stopped', 'opened', 'copied'] as const)('after "%s"', async (step) => {
    const move = await guest.begin(other(), { faultPoint: `migrate: ${step}:sleep=3000` })
    await move.reached(step)
    move.machine.program.signal('SIGKILL')
    await guest.broughtBack(move)
  })
})

describe("the source's daemon is killed while it closes", () => {
  const dyingAt = (point: string) => ({ environment: { INTERLOCKD_FAULT_POINT: `${point}:kill` } })
  const DYING = dyingAt('close: synced')

  test('started again, it finishes what it had begun', async () => {
    const dying = await startHost({}, DYING)
    await guest.move(dying)
    const move = await guest.begin(hosts[0], { flags: ['--patience', '60s'] })
    await dying.program.exited
    await startAgain(scratch, dying)
    await guest.arrived(move)
  })

  // At the first of these the source has not said yet that it closes anything, and one of the disks is open in its record.
  test.each(['close: before closing is recorded', 'close: synced'])(
    'gone for good at "%s", another daemon of its host waits for its lock',
    async (point) => {
      const dying = await startHost({}, dyingAt(point))
      const beside = await startHost({}, { standby: true, stateDirectory: dying.stateDirectory })
      await guest.move(dying)
      await guest.move(beside, { flags: ['--patience', '1s'] })
      const clearedBy = await Promise.all(DISKS.map(async (name) => (await beside.status(name)).clearedBy))
      expect(clearedBy).toContain('lock')
      await guest.move(hosts[0])
      await guest.check()
    },
  )

  test('gone for good, with the destination elsewhere: nobody guesses, and once it is back the move goes on', async () => {
    const dying = await startHost({}, DYING)
    await guest.move(dying)
    const move = await guest.begin(hosts[0], { flags: ['--patience', '1s'] })
    const { ending } = resultOf(await move.program.exited, 1)
    expect(ending).toMatchObject({ kind: 'unclear', guestAt: null })
    await startAgain(scratch, dying)
    await guest.arrived(guest.again(move, { flags: ['--patience', '60s'] }))
    await guest.check()
  })
})

test('the rig sees a block that is older than its last acknowledged write', async () => {
  const image = openSync(images['vda'] ?? '', 'r+')
  const blockOf = (): Buffer => {
    const block = Buffer.alloc(4_096)
    readSync(image, block, 0, block.length, 0)
    return block
  }
  const old = blockOf()
  await eventually('a newer write of the block', () => !blockOf().equals(old), { timeoutMs: 60_000 })
  await guest.machine.setDepth(0)
  await guest.check()
  writeSync(image, old, 0, old.length, 0)
  fsyncSync(image)
  closeSync(image)
  expect(await guest.machine.check()).toMatchObject({ bad: 1, errors: 0 })
  expect(guest.machine.complaints).toEqual([expect.stringContaining('bad: device 0 block 0 holds')])
})

function tell(what: string, downtime: Downtime | null): void {
  console.log(`${what}: ${JSON.stringify(downtime)}`)
}
