import { execFileSync } from 'node:child_process'
import { truncateSync, writeFileSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import {
  deviceReadOnly,
  deviceSizeBytes,
  discardBlocks,
  logicalBlockBytes,
  physicalBlockBytes,
  zeroBlocks,
} from '../../src/posix/block-device.ts'
import { closeDescriptor } from '../../src/posix/descriptor.ts'
import { ERRNO } from '../../src/posix/errno.ts'
import { fsync, OPEN, openFile } from '../../src/posix/file.ts'
import type { Scratch } from '../support/scratch.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'

const MIB = 2 ** 20

function attachLoop(scratch: Scratch, image: string, ...options: string[]): string {
  const device = execFileSync('losetup', ['--find', '--show', ...options, image], { encoding: 'utf8' }).trim()
  scratch.defer(device, () => {
    execFileSync('losetup', ['--detach', device])
  })
  return device
}

function openDevice(scratch: Scratch, device: string, flags: number): number {
  const descriptor = openFile(device, flags)
  expect(descriptor).toBeGreaterThanOrEqual(0)
  scratch.defer('descriptor', () => {
    closeDescriptor(descriptor)
  })
  return descriptor
}

test.each([512, 4096])('a loop device with blocks of %i bytes says so', (blockBytes) => {
  const scratch = scratchOfTest()
  const image = join(scratch.directory('loop'), 'image')
  writeFileSync(image, '')
  truncateSync(image, 3 * MIB)
  const device = attachLoop(scratch, image, '--sector-size', String(blockBytes))
  const descriptor = openDevice(scratch, device, OPEN.readOnly)
  expect(deviceSizeBytes(descriptor)).toBe(3 * MIB)
  expect(logicalBlockBytes(descriptor)).toBe(blockBytes)
  expect(physicalBlockBytes(descriptor)).toBeGreaterThanOrEqual(blockBytes)
  expect(deviceReadOnly(descriptor)).toBe(0)
})

test('a read-only device says so', () => {
  const scratch = scratchOfTest()
  const image = join(scratch.directory('loop'), 'image')
  writeFileSync(image, Buffer.alloc(MIB))
  const descriptor = openDevice(scratch, attachLoop(scratch, image, '--read-only'), OPEN.readOnly)
  expect(deviceReadOnly(descriptor)).toBe(1)
})

test('discard and zero reach the disk behind the device', () => {
  const scratch = scratchOfTest()
  const image = join(scratch.directory('loop'), 'image')
  writeFileSync(image, Buffer.alloc(MIB, 9))
  const descriptor = openDevice(scratch, attachLoop(scratch, image), OPEN.readWrite)
  expect(discardBlocks(descriptor, 64 * 1024, 64 * 1024)).toBe(0)
  expect(zeroBlocks(descriptor, 256 * 1024, 4096)).toBe(0)
  expect(fsync(descriptor)).toBe(0)
  const content = readFileSync(image)
  expect(content.subarray(64 * 1024, 128 * 1024).every((byte) => byte === 0)).toBe(true)
  expect(content.subarray(256 * 1024, 256 * 1024 + 4096).every((byte) => byte === 0)).toBe(true)
  expect(content.filter((byte) => byte === 9).length).toBe(MIB - 64 * 1024 - 4096)
  expect(zeroBlocks(descriptor, 1, 512)).toBe(-ERRNO.EINVAL)
})

test('a regular file is no device', () => {
  const scratch = scratchOfTest()
  const image = join(scratch.directory('loop'), 'image')
  writeFileSync(image, 'x')
  const descriptor = openDevice(scratch, image, OPEN.readOnly)
  expect(deviceSizeBytes(descriptor)).toBe(-ERRNO.ENOTTY)
  expect(logicalBlockBytes(descriptor)).toBe(-ERRNO.ENOTTY)
  expect(deviceReadOnly(descriptor)).toBe(-ERRNO.ENOTTY)
})
