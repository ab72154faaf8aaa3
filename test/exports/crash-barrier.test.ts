/**
 * A crash is not a clearing: a daemon is killed with a write in a slow block device, and started again at once. The
 * kernel still has the write; the next generation is not opened before the kernel is done with it, however long that
 * takes, and then says by what it knew. The device is a loop device over a disk that keeps its writes until it is told. Such
 * a device answers no read either meanwhile, so that an opening comes no further than its first read, with or without our
 * locks: what is seen here is that a restart waits and goes on by itself. What keeps the next writer off on a disk that
 * answers is seen by test/migration/orphaned-writes.test.ts.
 *
 * @module-tag slow
 */

import { closeSync, openSync, readSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, onTestFinished, test } from 'vitest'
import { ENGINES } from '../support/daemon.ts'
import { eventually } from '../support/eventually.ts'
import { blockNumber, connectFrontend, numberedBlock } from '../support/nbd-frontend.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { startWitnessDisk } from '../support/witness-disk.ts'
import { startHost } from './ownership-rig.ts'

const OFFSET = 8_192
/** Long enough for an opening that waits to have tried many times. */
const MANY_TRIES_MS = 1_000

function numberOnDisk(path: string): number | undefined {
  const block = Buffer.alloc(4_096)
  const file = openSync(path, 'r')
  readSync(file, block, 0, block.length, OFFSET)
  closeSync(file)
  return blockNumber(block)
}

test.each(ENGINES)(
  'killed with a write in the kernel and started again at once, it opens by the lock (%s)',
  async (engine) => {
    const scratch = scratchOfTest()
    const disk = await startWitnessDisk(scratch, { scripted: true })
    const device = await disk.attachLoop()
    onTestFinished(() => {
      disk.holdWrites(false)
    })
    const ownershipSettings = [`directory = ${JSON.stringify(scratch.directory('records'))}`]
    const exports = [{ name: 'vda', path: device, image_id: 'disk' }]
    const first = await startHost(scratch, device, { engine, exports, ownershipSettings })
    const old = await connectFrontend(scratch, first.address, 'vda')
    disk.holdWrites(true)
    old.write(OFFSET, numberedBlock(1))
    const inDisk = (): number => disk.log.inDisk().filter(({ kind }) => kind === 'Write').length
    await eventually('the write in the disk', () => inDisk() === 1)
    first.program.signal('SIGKILL')
    const { stateDirectory } = first
    const second = await startHost(scratch, device, { engine, exports, ownershipSettings, stateDirectory })
    await sleep(MANY_TRIES_MS)
    const waiting = { generation: 0, stateReason: `${device} has not answered yet` }
    expect(await second.status('vda')).toMatchObject(waiting)
    expect(inDisk()).toBe(1)
    disk.holdWrites(false)
    await second.untilOpen('vda')
    expect(inDisk()).toBe(0)
    expect(numberOnDisk(disk.backingPath)).toBe(1)
    expect(await second.status('vda')).toMatchObject({ generation: 2, clearedBy: 'lock' })
    const fresh = await connectFrontend(scratch, second.address, 'vda')
    await fresh.request('WRITE', { offset: OFFSET, data: numberedBlock(2) })
    expect(numberOnDisk(disk.backingPath)).toBe(2)
  },
)
