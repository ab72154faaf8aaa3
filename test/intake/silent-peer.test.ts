/**
 * A peer that vanished without a word is noticed by the kernel alone, so what counts is what the kernel was told: the
 * options of the socket that a real daemon serves a client on, read from a copy of that very socket.
 */

import koffi from 'koffi'
import { readFileSync } from 'node:fs'
import { expect, onTestFinished, test } from 'vitest'
import { closeDescriptor } from '../../src/posix/descriptor.ts'
import { copyDescriptor } from '../support/copied-descriptor.ts'
import { ENGINES, startDaemon } from '../support/daemon.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { connectFrontend } from '../support/nbd-frontend.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'

const SOL_SOCKET = 1
const SO_KEEPALIVE = 9
const IPPROTO_TCP = 6
/** Of the kernel's tcp.h. */
const TCP = { keepaliveIdle: 4, keepaliveInterval: 5, keepaliveCount: 6, userTimeout: 18 } as const
const ESTABLISHED = '01'

const getOption = koffi.load(null).func('getsockopt', 'int', ['int', 'int', 'int', 'void *', 'void *'])

/** The inode of the accepted socket at this port. */
function acceptedAt(port: number): string {
  const rows = readFileSync('/proc/net/tcp', 'utf8').split('\n')
  const fields = rows.map((row) => row.trim().split(/ +/u))
  const ours = fields.filter(
    ([, local = '', , state]) => state === ESTABLISHED && Number(`0x${local.split(':')[1] ?? ''}`) === port,
  )
  expect(ours).toHaveLength(1)
  return ours[0]?.[9] ?? ''
}

/** A copy of that socket, for the running test. */
function copyOf(pid: number, inode: string): number {
  const copy = copyDescriptor(pid, `socket:[${inode}]`)
  onTestFinished(() => {
    closeDescriptor(copy)
  })
  return copy
}

function optionOf(descriptor: number, level: number, option: number): number {
  const value = new Int32Array(1)
  expect(getOption(descriptor, level, option, value, new Int32Array([value.byteLength]))).toBe(0)
  return value[0] ?? -1
}

test.each(ENGINES)('a TCP peer that is silent is given up after a minute and a half (%s)', async (engine) => {
  const scratch = scratchOfTest()
  const exports = [{ name: 'vda', path: makeImage(scratch, MEBIBYTE) }]
  const daemon = await startDaemon(scratch, { engine, exports })
  const frontend = await connectFrontend(scratch, { port: daemon.nbdPort }, 'vda')
  await frontend.read(0, 4096)
  const socket = copyOf(daemon.pid, acceptedAt(daemon.nbdPort))
  expect(optionOf(socket, SOL_SOCKET, SO_KEEPALIVE)).toBe(1)
  const idle = optionOf(socket, IPPROTO_TCP, TCP.keepaliveIdle)
  const interval = optionOf(socket, IPPROTO_TCP, TCP.keepaliveInterval)
  const count = optionOf(socket, IPPROTO_TCP, TCP.keepaliveCount)
  expect([idle, interval, count]).toEqual([30, 10, 6])
  // Whether or not something is on its way to it.
  expect(idle + interval * count).toBe(90)
  expect(optionOf(socket, IPPROTO_TCP, TCP.userTimeout)).toBe(90_000)
})
