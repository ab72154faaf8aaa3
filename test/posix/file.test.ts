import { linkSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { closeDescriptor, closesOnExec } from '../../src/posix/descriptor.ts'
import { ERRNO, errnoName } from '../../src/posix/errno.ts'
import { fileSystemName } from '../../src/posix/file-system.ts'
import {
  directAlignment,
  FALLOCATE,
  fallocate,
  fdatasync,
  fsync,
  link,
  OPEN,
  openFile,
  pread,
  pwrite,
} from '../../src/posix/file.ts'
import { mapMemory, unmapMemory } from '../../src/posix/mapping.ts'
import { temporaryDirectory } from '../support/temporary-directory.ts'

const KIB = 1024

test('opens, creates and refuses as asked', () => {
  const path = join(temporaryDirectory(), 'file')
  expect(openFile(path, OPEN.readOnly)).toBe(-ERRNO.ENOENT)
  const descriptor = openFile(path, OPEN.readWrite | OPEN.create | OPEN.exclusive, 0o600)
  expect(descriptor).toBeGreaterThanOrEqual(0)
  expect(closesOnExec(descriptor)).toBe(true)
  expect(statSync(path).mode & 0o777).toBe(0o600)
  expect(openFile(path, OPEN.readWrite | OPEN.create | OPEN.exclusive, 0o600)).toBe(-ERRNO.EEXIST)
  expect(openFile(path, OPEN.readOnly | OPEN.directory)).toBe(-ERRNO.ENOTDIR)
  expect(openFile(`${path}\0hidden`, OPEN.readOnly)).toBe(-ERRNO.EINVAL)
  expect(closeDescriptor(descriptor)).toBe(0)
})

test('direct, durable writes and reads at addresses of mapped memory', () => {
  const path = join(temporaryDirectory(), 'image')
  const descriptor = openFile(path, OPEN.readWrite | OPEN.create | OPEN.direct | OPEN.dataSync, 0o600)
  const memory = mapMemory(8 * KIB)
  memory.bytes.fill(0x5a, 0, 4 * KIB)
  expect(pwrite(descriptor, memory.address, 4 * KIB, 4 * KIB)).toBe(4 * KIB)
  expect(pread(descriptor, memory.address + BigInt(4 * KIB), 4 * KIB, 4 * KIB)).toBe(4 * KIB)
  expect(memory.bytes.subarray(4 * KIB).every((byte) => byte === 0x5a)).toBe(true)
  expect(pwrite(descriptor, memory.address + 1n, 4 * KIB, 0)).toBe(-ERRNO.EINVAL)
  expect(pread(descriptor, memory.address, 4 * KIB, 100 * KIB)).toBe(0)
  expect([512, 4096]).toContain(directAlignment(descriptor))
  expect(fdatasync(descriptor)).toBe(0)
  expect(fsync(descriptor)).toBe(0)
  expect(closeDescriptor(descriptor)).toBe(0)
  expect(fsync(descriptor)).toBe(-ERRNO.EBADF)
  expect(fdatasync(descriptor)).toBe(-ERRNO.EBADF)
  unmapMemory(memory)
})

test('positions beyond 32 bits are positions', () => {
  const path = join(temporaryDirectory(), 'sparse')
  const descriptor = openFile(path, OPEN.readWrite | OPEN.create, 0o600)
  const position = 5 * 2 ** 32 + 7
  expect(pwrite(descriptor, Buffer.from('far'), 3, position)).toBe(3)
  expect(statSync(path).size).toBe(position + 3)
  const read = Buffer.alloc(3)
  expect(pread(descriptor, read, 3, position)).toBe(3)
  expect(read.toString()).toBe('far')
  expect(closeDescriptor(descriptor)).toBe(0)
})

test('fallocate punches, zeroes and allocates', () => {
  const path = join(temporaryDirectory(), 'image')
  writeFileSync(path, Buffer.alloc(64 * KIB, 1))
  const descriptor = openFile(path, OPEN.readWrite)
  const before = statSync(path).blocks
  expect(fallocate(descriptor, FALLOCATE.punchHole | FALLOCATE.keepSize, 16 * KIB, 16 * KIB)).toBe(0)
  expect(statSync(path).blocks).toBeLessThan(before)
  expect(fallocate(descriptor, FALLOCATE.zeroRange | FALLOCATE.keepSize, 32 * KIB, 4 * KIB)).toBe(0)
  const content = readFileSync(path)
  expect(content.length).toBe(64 * KIB)
  expect(content.subarray(16 * KIB, 36 * KIB).every((byte) => byte === 0)).toBe(true)
  expect(content.subarray(36 * KIB).every((byte) => byte === 1)).toBe(true)
  expect(fallocate(descriptor, 0, 0, 128 * KIB)).toBe(0)
  expect(statSync(path).size).toBe(128 * KIB)
  expect(fallocate(descriptor, FALLOCATE.punchHole, 0, KIB)).toBe(-ERRNO.EOPNOTSUPP)
  expect(closeDescriptor(descriptor)).toBe(0)
})

test('link names a file once and never replaces', () => {
  const directory = temporaryDirectory()
  const [first, second, third] = [join(directory, '1'), join(directory, '2'), join(directory, '3')]
  writeFileSync(first, 'one')
  writeFileSync(third, 'three')
  expect(link(first, second)).toBe(0)
  expect(statSync(second).ino).toBe(statSync(first).ino)
  expect(link(first, third)).toBe(-ERRNO.EEXIST)
  expect(readFileSync(third, 'utf8')).toBe('three')
  expect(link(join(directory, 'missing'), join(directory, '4'))).toBe(-ERRNO.ENOENT)
  expect(link(first, `${second}\0x`)).toBe(-ERRNO.EINVAL)
  linkSync(first, join(directory, '5'))
  expect(statSync(first).nlink).toBe(3)
})

test('names for errors and file systems, numbers for those without', () => {
  expect(errnoName(2)).toBe('ENOENT')
  expect(errnoName(-28)).toBe('ENOSPC')
  expect(errnoName(999)).toBe('errno 999')
  expect(fileSystemName(0xef53)).toBe('ext4')
  expect(fileSystemName(0x01021994n)).toBe('tmpfs')
  expect(fileSystemName(-0xac97be)).toBe('0xff536842')
})
