/**
 * Live migrations of a real guest between QEMUs and between daemons over the same images, with the guest writing to two
 * disks and checking them all the time. One guest is booted and goes through everything: moves to and fro, a slow source,
 * an early handover, and cancels.
 */

import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Downtime } from '../../src/handover/index.ts'
import type { Daemon, DaemonOptions } from '../support/daemon.ts'
import { startDaemon } from '../support/daemon.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { DISKS, MovingGuest } from '../support/live-migration.ts'
import { makeGuestSystem } from '../support/migrating-guest.ts'
import { Scratch } from '../support/scratch.ts'
import { startWitnessDisk } from '../support/witness-disk.ts'

const MOVES = 2

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

describe('a cancel leads back', () => {
  test.each(['copying', 'stopped', 'closing'] as const)('after "%s"', async (step) => {
    const move = await guest.begin(other(), { faultPoint: `migrate: ${step}:sleep=1500` })
    await move.reached(step)
    move.program.signal('SIGINT')
    const { ending } = await guest.broughtBack(move)
    expect(ending).toMatchObject({ failure: { code: 'cancelled' } })
    for (const name of DISKS) expect((await move.to.status(name)).state).not.toBe('open')
  })
})

function tell(what: string, downtime: Downtime | null): void {
  console.log(`${what}: ${JSON.stringify(downtime)}`)
}
