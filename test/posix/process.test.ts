import { join } from 'node:path'
import { expect, test } from 'vitest'
import { ERRNO } from '../../src/posix/errno.ts'
import { notifySystemd, raiseResourceLimit, resourceLimit } from '../../src/posix/process.ts'
import { spawnProgram, waitForLine } from '../support/child-process.ts'
import { eventually } from '../support/eventually.ts'
import { temporaryDirectory } from '../support/temporary-directory.ts'

/** Receives one datagram and prints it; node has no Unix datagram sockets. */
const RECEIVER = `
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(chr(0) + sys.argv[1][1:] if sys.argv[1].startswith('@') else sys.argv[1])
print('bound', flush=True)
print(f'got {s.recv(4096)} whole', flush=True)
`

test.each(['path', 'abstract'])('a service manager at a %s address is told', async (kind) => {
  const path = join(temporaryDirectory(), 'notify')
  const address = kind === 'path' ? path : `@${path}`
  const receiver = spawnProgram('/usr/bin/python3', ['-c', RECEIVER, address])
  await waitForLine(receiver, /^bound$/)
  expect(notifySystemd('READY=1\nSTATUS=serving', address)).toBe(22)
  expect(await waitForLine(receiver, /^got .* whole$/)).toBe("got b'READY=1\\nSTATUS=serving' whole")
  await eventually('the receiver to end', () => !receiver.running)
})

test('no manager, a bad address and a missing one are answers', () => {
  expect(notifySystemd('READY=1', undefined)).toBe(0)
  expect(notifySystemd('READY=1', '')).toBe(0)
  expect(notifySystemd('READY=1', 'relative')).toBe(-ERRNO.EINVAL)
  expect(notifySystemd('READY=1', `/${'x'.repeat(107)}`)).toBe(-ERRNO.ENAMETOOLONG)
  expect(notifySystemd('READY=1', '/nonexistent/notify')).toBe(-ERRNO.ENOENT)
})

test('the soft limit of descriptors rises to the hard one', () => {
  const before = resourceLimit('descriptors')
  expect(before.soft).toBeGreaterThan(0)
  expect(before.hard).toBeGreaterThanOrEqual(before.soft)
  expect(raiseResourceLimit('descriptors')).toBe(0)
  expect(resourceLimit('descriptors')).toEqual({ soft: before.hard, hard: before.hard })
  expect(resourceLimit('lockedMemoryBytes').hard).toBeGreaterThan(0)
})
