/**
 * Linux's own NBD client, the one that Xen's blkback and most machines use: attached in a virtual machine to the daemon
 * on this one, it carries a real file system, which is checked from both sides.
 */

import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ENGINES, startDaemon } from '../support/daemon.ts'
import { eventually } from '../support/eventually.ts'
import { runChecked, runProgram } from '../support/foreign-program.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { Scratch } from '../support/scratch.ts'
import { HOST_ADDRESS, startVirtualMachine } from '../support/virtual-machine.ts'
import type { VirtualMachine } from '../support/virtual-machine.ts'

const SIZE_BYTES = 32 * MEBIBYTE

/** Something that compresses badly and is the same on both sides. */
const CONTENT_COMMAND = 'seq 1 200000'
const CONTENT_DIGEST = createHash('sha256')
for (let number = 1; number <= 200_000; number += 1) CONTENT_DIGEST.update(`${number}\n`)
const CONTENT_SHA256 = CONTENT_DIGEST.digest('hex')

const scratch = new Scratch()
let machine: VirtualMachine

beforeAll(async () => {
  machine = await startVirtualMachine(scratch, { modules: ['nbd', 'ext4', 'crc32c_generic'] })
})
afterAll(() => scratch.dispose())

describe.each(ENGINES)("Linux's own client against the %s engine", (engine) => {
  test('attaches, makes a file system, writes, remounts, compares, checks, detaches', async () => {
    const image = makeImage(scratch, SIZE_BYTES)
    const daemon = await startDaemon(scratch, { engine, exports: [{ name: 'vda', path: image }] })
    await machine.check(`nbd-client -N vda ${HOST_ADDRESS} ${daemon.nbdPort} /dev/nbd0`)
    expect(await machine.check('blockdev --getsize64 /dev/nbd0')).toBe(`${SIZE_BYTES}\n`)
    await machine.check('mkfs.ext4 -q -E discard /dev/nbd0 && mkdir -p /mnt/vda && mount /dev/nbd0 /mnt/vda', 60_000)
    await machine.check(
      `${CONTENT_COMMAND} > /mnt/vda/content
       cp /mnt/vda/content /mnt/vda/deleted && sync && rm /mnt/vda/deleted && fstrim /mnt/vda
       umount /mnt/vda
       mount -o ro /dev/nbd0 /mnt/vda`,
      60_000,
    )
    expect(await machine.check('sha256sum < /mnt/vda/content')).toContain(CONTENT_SHA256)
    await machine.check('umount /mnt/vda && e2fsck -f -n /dev/nbd0', 60_000)
    expect((await daemon.status('vda')).clients).toHaveLength(1)
    await machine.check('nbd-client -d /dev/nbd0')
    await eventually('the client is gone', async () => (await daemon.status('vda')).clients.length === 0)

    const { receipt } = await daemon.close('vda')
    expect(receipt.indeterminate).toEqual([])
    await runChecked('e2fsck', ['-f', '-n', image])
    const copy = join(scratch.directory('content'), 'content')
    await runChecked('debugfs', ['-R', `dump /content ${copy}`, image])
    expect((await runProgram('sha256sum', [copy])).stdout).toContain(CONTENT_SHA256)
    expect((await daemon.stop()).status).toBe(0)
  })
})
