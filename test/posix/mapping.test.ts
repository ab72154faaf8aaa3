import { expect, test } from 'vitest'
import { SystemCallFailure } from '../../src/posix/errno.ts'
import { mapMemory, unmapMemory, viewMemory } from '../../src/posix/mapping.ts'

const PAGE_BYTES = 4096

test('mapped memory is zeroed, aligned, writable, and the same through every view', () => {
  const memory = mapMemory(3 * PAGE_BYTES)
  expect(memory.address % BigInt(PAGE_BYTES)).toBe(0n)
  expect(memory.bytes.length).toBe(3 * PAGE_BYTES)
  expect(memory.bytes.every((byte) => byte === 0)).toBe(true)
  const view = viewMemory(memory.address + BigInt(PAGE_BYTES), 16)
  view[3] = 0xab
  expect(memory.bytes[PAGE_BYTES + 3]).toBe(0xab)
  expect(unmapMemory(memory)).toBe(0)
})

test.each([{ shared: true }, { populate: true }, { shared: true, populate: true }])('maps with %j', (options) => {
  const memory = mapMemory(PAGE_BYTES, options)
  memory.bytes.fill(7)
  expect(memory.bytes[PAGE_BYTES - 1]).toBe(7)
  expect(unmapMemory(memory)).toBe(0)
})

test('more memory than there are addresses is a failure that names the call', () => {
  expect(() => mapMemory(2 ** 52)).toThrow(SystemCallFailure)
  expect(() => mapMemory(2 ** 52)).toThrow('mmap failed: ENOMEM')
})

test('a length that is none is a bug', () => {
  expect(() => mapMemory(0)).toThrow('cannot map 0 bytes')
})
