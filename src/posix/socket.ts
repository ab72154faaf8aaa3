/**
 * What node:net does not say about a socket, or does only to sockets of its own: shutting a bare descriptor down, who is
 * at the other end, whether anybody still is, and how long a silent peer is believed in.
 */

import { ERRNO } from './errno.ts'
import { libc, outcome } from './libc.ts'

const AF_UNIX = 1
const SOCK_STREAM = 1
const SOCK_CLOEXEC = 0o2000000
const SHUT_RDWR = 2

const SOL_SOCKET = 1
const SO_KEEPALIVE = 9
const SO_PEERCRED = 17
const IPPROTO_TCP = 6
const TCP_NODELAY = 1
const TCP_KEEPIDLE = 4
const TCP_KEEPINTVL = 5
const TCP_KEEPCNT = 6
const TCP_USER_TIMEOUT = 18

const POLLERR = 0x08
const POLLHUP = 0x10
const POLLNVAL = 0x20
const POLLRDHUP = 0x2000

const CREDENTIALS_BYTES = 12
/** The kernel's answer for a socket that has no peer process, such as TCP. */
const NOBODY = 0xffff_ffff

const credentials = new Uint8Array(CREDENTIALS_BYTES)
const credentialsView = new DataView(credentials.buffer)
const optionLength = new Int32Array(1)
const optionValue = new Int32Array(1)
const pair = new Int32Array(2)
/** struct pollfd: the descriptor, then events and revents of 16 bits each. */
const polled = new Int32Array(2)

export interface PeerCredentials {
  /** 0 when the peer lives in a process namespace that this one cannot see. */
  readonly pid: number
  readonly uid: number
  readonly gid: number
}

/** Both directions. 0 or -errno; -ENOTCONN when there is nothing left to shut down. */
export function shutdownSocket(descriptor: number): number {
  return outcome(libc.shutdown(descriptor, SHUT_RDWR))
}

/** Who connected a Unix socket, at the time it did. -ENODATA for other families. */
export function peerCredentials(descriptor: number): PeerCredentials | number {
  optionLength[0] = CREDENTIALS_BYTES
  const result = outcome(libc.getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, credentials, optionLength))
  if (result < 0) return result
  const uid = credentialsView.getUint32(4, true)
  if (uid === NOBODY) return -ERRNO.ENODATA
  return { pid: credentialsView.getInt32(0, true), uid, gid: credentialsView.getUint32(8, true) }
}

/**
 * True once the peer has closed or reset the connection, even while bytes of it are still unread here. A peer that only
 * ended its own sending half counts as gone: an NBD client does not do that and go on.
 */
export function peerGone(descriptor: number): boolean {
  polled[0] = descriptor
  polled[1] = POLLRDHUP
  if (libc.poll(polled, 1, 0) !== 1) return false
  const returned = (polled[1] >>> 16) & 0xffff
  return (returned & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)) !== 0
}

/** How long sent bytes may stay unacknowledged before the kernel gives the connection up. 0 or -errno. */
export function setTcpUserTimeout(descriptor: number, timeoutMs: number): number {
  return setOption(descriptor, IPPROTO_TCP, TCP_USER_TIMEOUT, timeoutMs)
}

export interface Keepalive {
  readonly idleSeconds: number
  readonly intervalSeconds: number
  readonly probesMax: number
}

/** Probes an idle TCP peer. 0 or -errno. */
export function setKeepalive(descriptor: number, keepalive: Keepalive): number {
  const steps: readonly (readonly [number, number, number])[] = [
    [SOL_SOCKET, SO_KEEPALIVE, 1],
    [IPPROTO_TCP, TCP_KEEPIDLE, keepalive.idleSeconds],
    [IPPROTO_TCP, TCP_KEEPINTVL, keepalive.intervalSeconds],
    [IPPROTO_TCP, TCP_KEEPCNT, keepalive.probesMax],
  ]
  for (const [level, option, value] of steps) {
    const result = setOption(descriptor, level, option, value)
    if (result < 0) return result
  }
  return 0
}

/** Sends small replies at once. 0 or -errno. */
export function setNoDelay(descriptor: number): number {
  return setOption(descriptor, IPPROTO_TCP, TCP_NODELAY, 1)
}

/** Two connected Unix stream sockets, closed on exec, blocking; or -errno. */
export function socketPair(): readonly [number, number] | number {
  const result = outcome(libc.socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
  return result < 0 ? result : [pair[0] ?? -1, pair[1] ?? -1]
}

function setOption(descriptor: number, level: number, option: number, value: number): number {
  optionValue[0] = value
  return outcome(libc.setsockopt(descriptor, level, option, optionValue, optionValue.byteLength))
}
