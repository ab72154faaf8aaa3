/**
 * The main job between two containers: a guest under load moves, with an ordinary close and with an early one. The engine
 * in each is whatever the engine of containers lets it have.
 */

import { join } from 'node:path'
import { expect, test } from 'vitest'
import { eventually } from '../support/eventually.ts'
import { answerOrNone, blockNumber, connectFrontend, numberedBlock } from '../support/nbd-frontend.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { VerifyingWriter } from '../support/verifying-writer.ts'
import { BLOCK_BYTES, blockOf, recordAt, startPair } from './host-pair.ts'
import { RECORD_FOLDER, startSlowDisk } from './slow-disk.ts'

const BLOCKS = 512
const DEPTH = 16
const WRITES = 400

test('a guest under load is handed over, and nothing is lost', async () => {
  const scratch = scratchOfTest()
  const { source, destination, image } = await startPair(scratch)
  const writer = new VerifyingWriter(await connectFrontend(scratch, await source.address(), 'vda'), BLOCKS)
  const writing = writer.write(DEPTH, () => false)
  await source.untilInFlight('vda', 1)
  const { receipt } = await source.close('vda', { disconnect: true })
  expect(receipt).toMatchObject({ generation: 1, clearedBy: 'drain', indeterminate: [], holder: {} })
  expect(await destination.open('vda', { receipt })).toMatchObject({ state: 'open', generation: 2 })
  expect(await writing).toBe('lost')
  const before = writer.answeredCount
  writer.moveTo(await connectFrontend(scratch, await destination.address(), 'vda'))
  expect(await writer.write(DEPTH, () => writer.answeredCount >= before + WRITES)).toBe('enough')
  expect(await writer.lostWrites()).toEqual([])
  const record = await recordAt(`${image}.interlock`)
  expect(record).toMatchObject({ generation: 2, state: 'open', holder: { name: 'destination' } })
  expect(record.holder.host).not.toBe(receipt.holder.host)
})

test('an early handover between two containers: only what overlaps waits for the slow disk', async () => {
  const scratch = scratchOfTest()
  const disk = await startSlowDisk(scratch, { scripted: true })
  const { source, destination, folder } = await startPair(scratch, {
    source: disk.slow,
    destination: () => disk.below,
  })
  const old = await connectFrontend(scratch, await source.address(), 'vda')
  const fresh = await connectFrontend(scratch, await destination.address(), 'vda')
  disk.witness.holdWrites(true)
  old.write(8 * BLOCK_BYTES, numberedBlock(1))
  await eventually('the write in the disk', () => disk.witness.log.writes().length > 0)
  expect(await source.api('POST', '/exports/vda/close', { early: true })).toMatchObject({ status: 202 })
  expect(await destination.open('vda')).toMatchObject({ state: 'open', generation: 2 })
  await fresh.request('WRITE', { offset: 0, data: numberedBlock(2) })
  const overlapping = fresh.write(8 * BLOCK_BYTES, numberedBlock(3))
  expect(disk.witness.log.inDisk()).toHaveLength(1)
  expect(await answerOrNone(overlapping, 500)).toBeUndefined()
  disk.witness.holdWrites(false)
  expect((await overlapping.reply).error).toBe(0)
  expect(disk.witness.log.inDisk()).toEqual([])
  expect(blockNumber(blockOf(disk.witness.backingPath, 8))).toBe(3)
  expect((await source.close('vda')).receipt).toMatchObject({ generation: 1, drained: { writes: 1 } })
  const record = await eventually('the source to be let go of', async () => {
    const found = await recordAt(join(folder, RECORD_FOLDER))
    return found.draining.length === 0 && found
  })
  expect(record).toMatchObject({ generation: 2, state: 'open', holder: { name: 'destination' } })
})
