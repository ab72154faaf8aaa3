/**
 * What a handover costs the guest: the same migrations, driven by the same program, over two of our daemons and over two
 * qemu-nbd, which hand nothing over. Only the guest that is moved works. It is measured and told, and no figure passes or
 * fails; for figures that mean something, INTERLOCKD_TEST_MOVES of each are made on a quiet machine.
 *
 * @module-tag slow
 */

import { join } from 'node:path'
import { expect, test } from 'vitest'
import { connect } from '../../src/client/index.ts'
import type { Disk, Downtime } from '../../src/handover/index.ts'
import { migrateQemu } from '../../src/handover/index.ts'
import { startDaemon } from '../support/daemon.ts'
import type { Daemon } from '../support/daemon.ts'
import { startQemuNbd } from '../support/foreign-server.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { makeGuestSystem, startGuestMachine } from '../support/migrating-guest.ts'
import type { GuestMachine, GuestSystem } from '../support/migrating-guest.ts'
import type { Scratch } from '../support/scratch.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'

const ROUNDS = Number(process.env['INTERLOCKD_TEST_MOVES'] ?? 2)
const PLACES = ['source', 'destination'] as const

/** The rest of the memory's copy, with whatever runs beside it. */
type Measured = Downtime & { readonly copyMs: number }

/** A guest with one disk, and how it gets from each place to the other. */
interface Contender {
  readonly name: string
  machine: GuestMachine
  at: 0 | 1
  readonly servers: readonly string[]
  readonly prepare: (to: 0 | 1) => Promise<readonly Disk[]>
  readonly downtimes: Measured[]
}

async function move(scratch: Scratch, system: GuestSystem, contender: Contender): Promise<void> {
  const to = contender.at === 0 ? 1 : 0
  const disks = await contender.prepare(to)
  const uri = `unix:${join(scratch.directory('incoming'), 'migration.sock')}`
  const machine = await startGuestMachine(scratch, system, { disks: [contender.servers[to] ?? ''], incoming: uri })
  await contender.machine.setDepth(8)
  const { ending, course } = await migrateQemu({
    disks,
    sourceMonitor: { scheme: 'unix', path: contender.machine.monitorPath },
    destinationMonitor: { scheme: 'unix', path: machine.monitorPath },
    uri,
  })
  expect(ending).toMatchObject({ kind: 'migrated' })
  const [continued = 0, copied = 0] = ['continued', 'copied'].map(
    (wanted) => course.find(({ step }) => step === wanted)?.atMs,
  )
  if (ending.kind === 'migrated' && ending.downtime !== null) {
    contender.downtimes.push({ ...ending.downtime, copyMs: Math.round((copied - continued) * 10) / 10 })
  }
  await contender.machine.program.stop('SIGKILL')
  Object.assign(contender, { machine, at: to })
  await machine.setDepth(0)
  expect(await machine.check()).toMatchObject({ bad: 0, errors: 0 })
}

async function ours(scratch: Scratch, system: GuestSystem): Promise<Contender> {
  const exports = [{ name: 'vda', path: makeImage(scratch, 4 * MEBIBYTE) }]
  const start = (standby: boolean): Promise<Daemon> =>
    startDaemon(scratch, { exports, standby, ownership: 'directory', tcp: false })
  const daemons = [await start(false), await start(true)] as const
  const servers = daemons.map(({ nbdPath }) => `server.type=unix,server.path=${nbdPath},export=vda`)
  const machine = await startGuestMachine(scratch, system, { disks: servers.slice(0, 1) })
  const prepare = async (to: 0 | 1): Promise<readonly Disk[]> => {
    await daemons[to].ask('POST', '/exports/vda/standby')
    const [source, destination] = [daemons[to === 0 ? 1 : 0], daemons[to]].map((daemon) => connect(daemon.controlUrl))
    if (source === undefined || destination === undefined) throw new Error('there are two daemons')
    return [{ name: 'vda', source, destination }]
  }
  return { name: 'interlockd', machine, at: 0, servers, prepare, downtimes: [] }
}

async function qemuNbd(scratch: Scratch, system: GuestSystem): Promise<Contender> {
  const image = makeImage(scratch, 4 * MEBIBYTE)
  const servers: string[] = []
  for (const _place of PLACES) {
    const { path } = await startQemuNbd(scratch, image, 'vda', 'directsync', { locking: false })
    servers.push(`server.type=unix,server.path=${path},export=vda`)
  }
  const machine = await startGuestMachine(scratch, system, { disks: servers.slice(0, 1) })
  return { name: 'qemu-nbd', machine, at: 0, servers, prepare: () => Promise.resolve([]), downtimes: [] }
}

test('the downtime of the same migration, over our daemons and over qemu-nbd', async () => {
  const scratch = scratchOfTest()
  const system = await makeGuestSystem(scratch, 1)
  const contenders = [await ours(scratch, system), await qemuNbd(scratch, system)]
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const contender of contenders) await move(scratch, system, contender)
  }
  for (const { name, downtimes } of contenders) {
    expect(downtimes).toHaveLength(ROUNDS)
    console.log(`${name}: ${JSON.stringify(medians(downtimes))}`)
  }
})

function medians(downtimes: readonly Measured[]): Record<string, number | undefined> {
  const keys = ['totalMs', 'diskMs', 'settleMs', 'handoverMs', 'waitMs', 'copyMs'] as const
  return Object.fromEntries(
    keys.map((key) => {
      const sorted = downtimes.map((downtime) => downtime[key]).sort((one, another) => one - another)
      return [key, sorted[Math.floor(sorted.length / 2)]]
    }),
  )
}
