/**
 * Why a buffered loop device is not safe: a machine loses its power right after two loop devices have completed a write
 * each, one buffered and one with direct I/O. Only the drive is left; the write of the buffered one is not on it. The
 * preflight had said so.
 */

import { closeSync, openSync, readFileSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { Scratch } from '../support/scratch.ts'
import { startVirtualMachine } from '../support/virtual-machine.ts'

const DRIVE_BYTES = 96 * 1024 * 1024
const PROGRAM = `${process.execPath} ${join(import.meta.dirname, '../../bin/interlockctl.cjs')}`

const scratch = new Scratch()
afterAll(() => scratch.dispose())

/** A pattern that is on the drive exactly when the write is. */
function isOnDrive(drive: string, pattern: string): boolean {
  return readFileSync(drive).includes(pattern.repeat(64))
}

test('a completed write of a buffered loop is lost with the power; one of a direct loop stays', async () => {
  const drive = join(scratch.directory('power'), 'drive.raw')
  closeSync(openSync(drive, 'wx'))
  truncateSync(drive, DRIVE_BYTES)
  const machine = await startVirtualMachine(scratch, { modules: ['ext4', 'loop'], withProject: true, drives: [drive] })
  await machine.check(
    `mkfs.ext4 -q -F /dev/vda; mkdir -p /mnt/vda; mount /dev/vda /mnt/vda
     for name in buffered direct; do dd if=/dev/zero of=/mnt/vda/$name.raw bs=1M count=4 conv=fsync status=none; done
     losetup /dev/loop0 /mnt/vda/buffered.raw; losetup --direct-io=on /dev/loop1 /mnt/vda/direct.raw
     sync; echo 0 > /proc/sys/vm/dirty_writeback_centisecs`,
    120_000,
  )
  const verdicts = await machine.check(
    `for number in 0 1; do ${PROGRAM} check --local --timeout 60s /dev/loop$number | tail -n 1; done`,
    180_000,
  )
  expect(verdicts).toContain('/dev/loop0 is NOT safe to migrate: loop-buffered')
  expect(verdicts).toContain('/dev/loop1 is safe to migrate on the conditions above')

  // Each dd ends with 0 only when the device has said that the write is done. Nobody asks for a flush.
  const write = (pattern: string, device: string): string =>
    `for count in $(seq 512); do printf '${pattern}'; done > /run/pattern
     dd if=/run/pattern of=${device} bs=4096 count=1 oflag=direct conv=notrunc status=none`
  await machine.check(write('BUFFERED', '/dev/loop0'))
  await machine.check(write('DIRECTLY', '/dev/loop1'))
  await machine.program.stop('SIGKILL', 0)

  expect(isOnDrive(drive, 'DIRECTLY'), 'the write of the direct loop').toBe(true)
  expect(isOnDrive(drive, 'BUFFERED'), 'the write of the buffered loop').toBe(false)
})
