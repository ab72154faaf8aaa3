import { once } from 'node:events'
import { readSync, writeSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import type { AddressInfo, Server, Socket } from 'node:net'
import { onTestFinished, expect, test } from 'vitest'
import { closeDescriptor, closesOnExec } from '../../src/posix/descriptor.ts'
import { ERRNO } from '../../src/posix/errno.ts'
import {
  peerCredentials,
  peerGone,
  setKeepalive,
  setNoDelay,
  setTcpUserTimeout,
  shutdownSocket,
  socketPair,
} from '../../src/posix/socket.ts'
import { eventually } from '../support/eventually.ts'

function pair(): readonly [number, number] {
  const descriptors = socketPair()
  if (typeof descriptors === 'number') throw new Error(`socketpair failed: ${descriptors}`)
  return descriptors
}

function descriptorOf(socket: Socket): number {
  const { _handle } = socket as unknown as { readonly _handle: { readonly fd: number } }
  return _handle.fd
}

async function tcpConnection(): Promise<{
  readonly client: Socket
  readonly accepted: Socket
  readonly server: Server
}> {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const client = connect((server.address() as AddressInfo).port, '127.0.0.1')
  const [accepted] = (await once(server, 'connection')) as [Socket]
  if (client.connecting) await once(client, 'connect')
  onTestFinished(() => {
    client.destroy()
    accepted.destroy()
    server.close()
  })
  return { client, accepted, server }
}

test('a pair carries bytes and is closed on exec', () => {
  const [one, other] = pair()
  expect(closesOnExec(one) && closesOnExec(other)).toBe(true)
  writeSync(one, 'hello')
  const received = Buffer.alloc(5)
  expect(readSync(other, received)).toBe(5)
  expect(received.toString()).toBe('hello')
  closeDescriptor(one)
  closeDescriptor(other)
})

test('the other end of a Unix socket is this process and user', () => {
  const [one, other] = pair()
  expect(peerCredentials(one)).toEqual({ pid: process.pid, uid: process.getuid?.(), gid: process.getgid?.() })
  closeDescriptor(one)
  closeDescriptor(other)
})

test('a peer is gone after its close, also while bytes of it are unread', () => {
  const [one, other] = pair()
  expect(peerGone(one)).toBe(false)
  writeSync(other, 'unread')
  expect(peerGone(one)).toBe(false)
  closeDescriptor(other)
  expect(peerGone(one)).toBe(true)
  closeDescriptor(one)
  expect(peerGone(one)).toBe(true)
})

test('shutdown ends both directions and keeps the descriptor', () => {
  const [one, other] = pair()
  expect(shutdownSocket(one)).toBe(0)
  expect(peerGone(other)).toBe(true)
  expect(readSync(other, Buffer.alloc(1))).toBe(0)
  expect(closeDescriptor(one)).toBe(0)
  expect(shutdownSocket(one)).toBe(-ERRNO.EBADF)
  closeDescriptor(other)
})

test('a TCP peer is gone after FIN, and after RST', async () => {
  for (const end of ['end', 'resetAndDestroy'] as const) {
    const { client, accepted } = await tcpConnection()
    const descriptor = descriptorOf(accepted)
    expect(peerGone(descriptor)).toBe(false)
    client[end]()
    await eventually(`the peer to be gone after ${end}`, () => peerGone(descriptor))
  }
})

test('a TCP socket takes its timeouts, and has no credentials', async () => {
  const { accepted } = await tcpConnection()
  const descriptor = descriptorOf(accepted)
  expect(setTcpUserTimeout(descriptor, 12_345)).toBe(0)
  expect(setKeepalive(descriptor, { idleSeconds: 10, intervalSeconds: 5, probesMax: 3 })).toBe(0)
  expect(setNoDelay(descriptor)).toBe(0)
  expect(peerCredentials(descriptor)).toBe(-ERRNO.ENODATA)
})

test('what is no TCP socket refuses TCP options', () => {
  const [one, other] = pair()
  expect(setTcpUserTimeout(one, 1000)).toBe(-ERRNO.EOPNOTSUPP)
  closeDescriptor(one)
  closeDescriptor(other)
  expect(setKeepalive(one, { idleSeconds: 10, intervalSeconds: 5, probesMax: 3 })).toBe(-ERRNO.EBADF)
})
