/**
 * Connected pairs of real sockets, and the client's end of one, without an event loop: an engine may own the thread. The
 * client's end never blocks; what cannot be done now is not done.
 */

import { closeSync, readSync, writeSync } from 'node:fs'
import koffi from 'koffi'
import type { Client } from './rig.ts'

const AF_UNIX = 1
const AF_INET = 2
const SOCK_STREAM = 1
const SOCK_CLOEXEC = 0o2000000
const SHUT_WR = 1
const F_SETFL = 4
const O_NONBLOCK = 0o4000
const IPPROTO_TCP = 6
const TCP_NODELAY = 1
const ADDRESS_BYTES = 16

const library = koffi.load(null)
const socketpair = library.func('int socketpair(int domain, int type, int protocol, void *pair)')
const socket = library.func('int socket(int domain, int type, int protocol)')
const bind = library.func('int bind(int descriptor, void *address, uint length)')
const listen = library.func('int listen(int descriptor, int backlog)')
const getsockname = library.func('int getsockname(int descriptor, void *address, void *length)')
const connect = library.func('int connect(int descriptor, void *address, uint length)')
const accept4 = library.func('int accept4(int descriptor, intptr_t address, intptr_t length, int flags)')
const setsockopt = library.func('int setsockopt(int descriptor, int level, int option, void *value, uint length)')
const shutdown = library.func('int shutdown(int descriptor, int how)')
const fcntl = library.func('int fcntl(int descriptor, int command, long argument)')

export type Transport = 'unix' | 'tcp'

/** Two connected descriptors: the engine's, and the client's. */
export function connectedPair(transport: Transport): readonly [engine: number, client: number] {
  if (transport === 'unix') {
    const pair = new Int32Array(2)
    check('socketpair', socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
    return [pair[0] ?? -1, pair[1] ?? -1]
  }
  const listener = check('socket', socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0))
  const address = new Uint8Array(ADDRESS_BYTES)
  new DataView(address.buffer).setUint16(0, AF_INET, true)
  address.set([127, 0, 0, 1], 4)
  check('bind', bind(listener, address, ADDRESS_BYTES))
  check('listen', listen(listener, 1))
  check('getsockname', getsockname(listener, address, Int32Array.of(ADDRESS_BYTES)))
  const client = check('socket', socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0))
  check('connect', connect(client, address, ADDRESS_BYTES))
  const accepted = check('accept4', accept4(listener, 0, 0, SOCK_CLOEXEC))
  closeSync(listener)
  check('setsockopt', setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, Int32Array.of(1), 4))
  return [accepted, client]
}

export class SocketClient implements Client {
  readonly #descriptor: number
  readonly #buffer = Buffer.allocUnsafe(256 * 1024)
  #closed = false
  #ended = false

  constructor(descriptor: number) {
    check('fcntl', fcntl(descriptor, F_SETFL, O_NONBLOCK))
    this.#descriptor = descriptor
  }

  get ended(): boolean {
    return this.#ended
  }

  send(bytes: Uint8Array): number {
    try {
      return writeSync(this.#descriptor, bytes)
    } catch (error) {
      return failed(error, 'EAGAIN', 'EPIPE', 'ECONNRESET')
    }
  }

  received(): Uint8Array {
    const chunks: Buffer[] = []
    while (!this.#ended) {
      const count = this.#read()
      if (count === undefined) break
      if (count === 0) this.#ended = true
      else chunks.push(Buffer.from(this.#buffer.subarray(0, count)))
    }
    return Buffer.concat(chunks)
  }

  finish(): void {
    check('shutdown', shutdown(this.#descriptor, SHUT_WR))
  }

  close(): void {
    if (!this.#closed) closeSync(this.#descriptor)
    this.#closed = true
  }

  #read(): number | undefined {
    try {
      return readSync(this.#descriptor, this.#buffer)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return undefined
      return failed(error, 'ECONNRESET')
    }
  }
}

function failed(error: unknown, ...expected: readonly string[]): number {
  if (expected.includes((error as NodeJS.ErrnoException).code ?? '')) return 0
  throw error
}

function check(call: string, result: unknown): number {
  if (typeof result !== 'number' || result < 0) throw new Error(`${call} failed with errno ${koffi.errno()}`)
  return result
}
