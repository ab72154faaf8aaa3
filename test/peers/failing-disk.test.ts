/**
 * Disks that fail, fill up, cannot flush, and lose their power, made by nbdkit. What failed is answered as failed and
 * never forgotten; no close claims more than was proved; what was answered as durable is there afterwards.
 */

import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { ENGINES, startDaemon } from '../support/daemon.ts'
import type { Daemon, EngineName } from '../support/daemon.ts'
import { eventually } from '../support/eventually.ts'
import { startQemuNbd } from '../support/foreign-server.ts'
import { answerWithin, blockNumber, connectFrontend, NBD_ERRORS, numberedBlock } from '../support/nbd-frontend.ts'
import type { NbdFrontend } from '../support/nbd-frontend.ts'
import type { Scratch } from '../support/scratch.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { startWitnessDisk } from '../support/witness-disk.ts'
import type { WitnessDisk, WitnessDiskOptions } from '../support/witness-disk.ts'

const BLOCK_BYTES = 4_096

interface Rig {
  readonly disk: WitnessDisk
  readonly daemon: Daemon
  readonly frontend: NbdFrontend
}

async function startRig(
  scratch: Scratch,
  engine: EngineName,
  disk: WitnessDiskOptions,
  durability: 'sync' | 'writeback' = 'sync',
): Promise<Rig> {
  const witness = await startWitnessDisk(scratch, disk)
  const daemon = await startDaemon(scratch, { engine, exports: [{ name: 'vda', path: witness.path, durability }] })
  return { disk: witness, daemon, frontend: await connectFrontend(scratch, daemon.address, 'vda') }
}

async function errorOf(frontend: NbdFrontend, ...request: Parameters<NbdFrontend['send']>): Promise<number> {
  return (await answerWithin(frontend.send(...request), 10_000)).error
}

function numberAt(disk: WitnessDisk, offset: number): number | undefined {
  return blockNumber(readFileSync(disk.backingPath).subarray(offset, offset + BLOCK_BYTES))
}

describe.each(ENGINES)('a failing disk under the %s engine', (engine) => {
  test.each(['EIO', 'ENOSPC'] as const)(
    '%s is answered, listed, named in the receipt, and gone once overwritten',
    async (writeError) => {
      const { disk, daemon, frontend } = await startRig(scratchOfTest(), engine, { writeError })
      await frontend.request('WRITE', { offset: 0, data: numberedBlock(1) })
      disk.failWrites(true)
      expect(await errorOf(frontend, 'WRITE', { offset: 8 * BLOCK_BYTES, data: numberedBlock(2) })).toBe(
        NBD_ERRORS[writeError],
      )
      expect(await errorOf(frontend, 'WRITE', { offset: 16 * BLOCK_BYTES, data: numberedBlock(3) })).toBe(
        NBD_ERRORS[writeError],
      )
      const failed = [8, 16].map((block) => ({ offset: block * BLOCK_BYTES, length: BLOCK_BYTES }))
      const status = await daemon.status('vda')
      expect(status.state, 'the export stays open').toBe('open')
      expect(status.indeterminate).toEqual(failed)

      disk.failWrites(false)
      await frontend.request('WRITE', { offset: 8 * BLOCK_BYTES, data: numberedBlock(4) })
      expect((await daemon.status('vda')).indeterminate, 'the overwritten range is known again').toEqual(
        failed.slice(1),
      )
      const { receipt } = await daemon.close('vda')
      expect(receipt).toMatchObject({ state: 'closed', indeterminate: failed.slice(1) })
      expect([numberAt(disk, 0), numberAt(disk, 8 * BLOCK_BYTES)]).toEqual([1, 4])
    },
  )

  test('the widened range of an unaligned write is what is listed', async () => {
    const { disk, daemon, frontend } = await startRig(scratchOfTest(), engine, {})
    disk.failWrites(true)
    expect(await errorOf(frontend, 'WRITE', { offset: 10_000, data: numberedBlock(2, 104) })).toBe(NBD_ERRORS.EIO)
    const { blockSize, indeterminate } = await daemon.status('vda')
    const first = Math.floor(10_000 / blockSize) * blockSize
    const end = Math.ceil(10_104 / blockSize) * blockSize
    expect(indeterminate).toEqual([{ offset: first, length: end - first }])
  })

  test.each(['sync', 'writeback'] as const)(
    'a flush that fails at the close fences, durability %s',
    async (durability) => {
      const { disk, daemon, frontend } = await startRig(scratchOfTest(), engine, { scripted: true }, durability)
      await frontend.request('WRITE', { offset: 0, data: numberedBlock(1) })
      disk.failFlushes(true)
      const refused = await daemon.api('POST', '/exports/vda/close', {})
      expect(refused.status).toBe(500)
      expect(refused.body).toMatchObject({ code: 'sync-failed' })
      const status = await daemon.status('vda')
      expect(status).toMatchObject({ state: 'fenced', lastReceipt: null })
      expect(await errorOf(frontend, 'READ', { offset: 0, length: BLOCK_BYTES }), 'fenced refuses').toBe(
        NBD_ERRORS.ESHUTDOWN,
      )

      disk.failFlushes(false)
      const again = await daemon.api('POST', '/exports/vda/close', {})
      expect(again.status, 'a flush that works later proves nothing about the one that failed').toBeGreaterThanOrEqual(
        400,
      )
      expect((await daemon.status('vda')).state).toBe('fenced')
    },
  )

  test('a failed FLUSH of a client fences a writeback export', async () => {
    const { disk, daemon, frontend } = await startRig(scratchOfTest(), engine, { scripted: true }, 'writeback')
    await frontend.request('WRITE', { offset: 0, data: numberedBlock(1) })
    disk.failFlushes(true)
    expect(await errorOf(frontend, 'FLUSH')).not.toBe(0)
    await eventually('the fence', async () => (await daemon.status('vda')).state === 'fenced')
    disk.failFlushes(false)
    expect((await daemon.api('POST', '/exports/vda/close', {})).status).toBeGreaterThanOrEqual(400)
  })

  test('a failed write fences a writeback export', async () => {
    const { disk, daemon, frontend } = await startRig(scratchOfTest(), engine, {}, 'writeback')
    disk.failWrites(true)
    expect(await errorOf(frontend, 'WRITE', { offset: 0, data: numberedBlock(1) })).toBe(NBD_ERRORS.EIO)
    await eventually('the fence', async () => (await daemon.status('vda')).state === 'fenced')
    disk.failWrites(false)
    expect((await daemon.api('POST', '/exports/vda/close', {})).status).toBeGreaterThanOrEqual(400)
  })

  test('a power cut takes nothing that was answered', async () => {
    const scratch = scratchOfTest()
    const { disk, frontend } = await startRig(scratch, engine, { volatileCache: true })
    for (let block = 0; block < 8; block += 1) {
      await frontend.request('WRITE', { offset: block * BLOCK_BYTES, data: numberedBlock(block + 1) })
    }
    await frontend.request('WRITE_ZEROES', { offset: 0, length: BLOCK_BYTES })
    await disk.cutPower()
    const survived = Array.from({ length: 8 }, (_, block) => numberAt(disk, block * BLOCK_BYTES))
    expect(survived).toEqual([0, 2, 3, 4, 5, 6, 7, 8])
  })

  test('a power cut takes nothing that was flushed from a writeback export', async () => {
    const { disk, frontend } = await startRig(scratchOfTest(), engine, { volatileCache: true }, 'writeback')
    await frontend.request('WRITE', { offset: 0, data: numberedBlock(1) })
    await frontend.request('FLUSH')
    await frontend.request('WRITE', { offset: BLOCK_BYTES, data: numberedBlock(2), flags: 1 })
    await frontend.request('WRITE', { offset: 2 * BLOCK_BYTES, data: numberedBlock(3) })
    await disk.cutPower()
    expect([numberAt(disk, 0), numberAt(disk, BLOCK_BYTES)]).toEqual([1, 2])
    expect(numberAt(disk, 2 * BLOCK_BYTES), 'the disk really forgets what was not flushed').toBe(0)
  })
})

test('the rig sees a server that answers before it is durable: qemu-nbd without flushes', async () => {
  const scratch = scratchOfTest()
  const disk = await startWitnessDisk(scratch, { volatileCache: true })
  const server = await startQemuNbd(scratch, disk.path, 'vda', 'none')
  const frontend = await connectFrontend(scratch, server.address, 'vda')
  await frontend.request('WRITE', { offset: 0, data: numberedBlock(1) })
  await disk.cutPower()
  expect(numberAt(disk, 0), 'answered and lost').toBe(0)
})
