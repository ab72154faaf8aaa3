import { constants, fstatSync } from 'node:fs'
import { expect, test } from 'vitest'
import {
  closeDescriptor,
  closesOnExec,
  descriptorFlags,
  duplicateDescriptor,
  OwnedDescriptor,
} from '../../src/posix/descriptor.ts'
import { ERRNO } from '../../src/posix/errno.ts'
import { OPEN, openFile } from '../../src/posix/file.ts'

test('a duplicate is another number for the same open file, closed on exec', () => {
  const original = openFile('/etc/passwd', OPEN.readOnly)
  const duplicate = duplicateDescriptor(original)
  expect(duplicate).toBeGreaterThanOrEqual(0)
  expect(duplicate).not.toBe(original)
  expect(closesOnExec(duplicate)).toBe(true)
  expect(closeDescriptor(original)).toBe(0)
  expect(fstatSync(duplicate).isFile()).toBe(true)
  expect(closeDescriptor(duplicate)).toBe(0)
  expect(closeDescriptor(duplicate)).toBe(-ERRNO.EBADF)
})

test('the flags of the open file are those it was opened with', () => {
  const descriptor = openFile('/etc/passwd', OPEN.readOnly | OPEN.direct)
  expect(descriptorFlags(descriptor) & constants.O_DIRECT).toBe(constants.O_DIRECT)
  expect(closeDescriptor(descriptor)).toBe(0)
  expect(descriptorFlags(descriptor)).toBe(-ERRNO.EBADF)
  expect(duplicateDescriptor(descriptor)).toBe(-ERRNO.EBADF)
  expect(closesOnExec(descriptor)).toBe(false)
})

test('an owned descriptor closes once, and every later use is a bug', () => {
  const owned = new OwnedDescriptor(openFile('/etc/passwd', OPEN.readOnly))
  const number = owned.number
  expect(owned.open).toBe(true)
  expect(owned.close()).toBe(0)
  expect(owned.open).toBe(false)
  expect(() => owned.number).toThrow('closed or given away')
  expect(() => owned.close()).toThrow('closed or given away')
  expect(descriptorFlags(number)).toBe(-ERRNO.EBADF)
})

test('a released descriptor stays open for whoever took it', () => {
  const owned = new OwnedDescriptor(openFile('/etc/passwd', OPEN.readOnly))
  const number = owned.release()
  expect(() => owned.number).toThrow('closed or given away')
  expect(closeDescriptor(number)).toBe(0)
})

test('a negative number is never owned', () => {
  expect(() => new OwnedDescriptor(-1)).toThrow('-1 is not a descriptor')
})
