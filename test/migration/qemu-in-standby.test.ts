/**
 * What a migration does to an export, with QEMU as the client: the destination's QEMU connects and reads while its
 * export is in standby, its writes wait for the open; and a source that was closed and is opened again, because the
 * migration was cancelled, goes on with the very connection that the guest had.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { ENGINES, startDaemon } from '../support/daemon.ts'
import type { Daemon, EngineName } from '../support/daemon.ts'
import { eventually } from '../support/eventually.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { answerOrNone, answerWithin, blockNumber, connectFrontend, numberedBlock } from '../support/nbd-frontend.ts'
import { startQemuMachine } from '../support/qemu-machine.ts'
import type { Scratch } from '../support/scratch.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'

interface Rig {
  readonly image: string
  readonly daemon: Daemon
  readonly blockdev: string
}

async function startRig(scratch: Scratch, engine: EngineName, standby: boolean): Promise<Rig> {
  const image = makeImage(scratch, 8 * MEBIBYTE, 'numbered')
  const daemon = await startDaemon(scratch, { engine, standby, exports: [{ name: 'vda', path: image }] })
  return { image, daemon, blockdev: `server.type=unix,server.path=${daemon.nbdPath},export=vda` }
}

async function waitingRequests(daemon: Daemon): Promise<number> {
  return (await daemon.status('vda')).outstanding.parsed
}

describe.each(ENGINES)('QEMU and the life of an export, with the %s engine', (engine) => {
  test('standby accepts QEMU and serves its reads, parks its writes, and serves them once open', async () => {
    const scratch = scratchOfTest()
    const { daemon, blockdev } = await startRig(scratch, engine, true)
    expect((await daemon.status('vda')).state).toBe('standby')
    const machine = await startQemuMachine(scratch, blockdev)
    expect((await daemon.status('vda')).totals.reads, 'it has read already').toBeGreaterThan(0)
    expect(await machine.disk('read -v 4096 8'), 'a read in standby').toContain('01 00 00 00')
    await machine.begin('aio_write -P 0xab 0 64k')
    await eventually('the parked write', async () => (await waitingRequests(daemon)) > 0)
    await sleep(300)
    expect(await waitingRequests(daemon), 'it stays parked').toBeGreaterThan(0)

    expect((await daemon.open('vda')).state).toBe('open')
    await machine.settle()
    await machine.disk('read -P 0xab 0 64k')
    const frontend = await connectFrontend(scratch, daemon.address, 'vda')
    const block = await frontend.read(0, 4_096)
    expect(
      block.every((byte) => byte === 0xab),
      'the write is there for everybody',
    ).toBe(true)
    expect(await waitingRequests(daemon)).toBe(0)
  })

  test('a migration that is cancelled after the close goes unnoticed by QEMU', async () => {
    const scratch = scratchOfTest()
    const { daemon, blockdev } = await startRig(scratch, engine, false)
    const machine = await startQemuMachine(scratch, blockdev)
    await machine.disk('write -P 0x11 0 64k')
    const clientsBefore = (await daemon.status('vda')).clients.map(({ id }) => id)

    const first = await daemon.close('vda')
    await machine.begin('aio_write -P 0x22 0 64k')
    await eventually('the parked write', async () => (await waitingRequests(daemon)) > 0)
    const reopened = await daemon.open('vda', { receipt: first.receipt })
    expect(reopened.state).toBe('open')
    expect(reopened.generation).toBeGreaterThan(first.receipt.generation)
    await machine.settle()
    await machine.disk('read -P 0x22 0 64k')
    const after = await daemon.status('vda')
    expect(
      after.clients.map(({ id }) => id),
      'it is the same connection',
    ).toEqual(clientsBefore)
  })

  test('every request that was parked while closed is answered exactly once after the open, in order', async () => {
    const scratch = scratchOfTest()
    const { daemon } = await startRig(scratch, engine, false)
    const frontend = await connectFrontend(scratch, daemon.address, 'vda')
    const { receipt } = await daemon.close('vda')
    const sent = [1, 2, 3, 4].map((number) => frontend.write(0, numberedBlock(number)))
    expect(await answerOrNone(sent[0] ?? frontend.send('FLUSH'), 300), 'parked').toBeUndefined()
    await daemon.open('vda', { receipt })
    for (const request of sent) expect((await answerWithin(request, 5_000)).error).toBe(0)
    expect(blockNumber(await frontend.read(0, 4_096)), 'the newest is the one that stays').toBe(4)
  })
})
