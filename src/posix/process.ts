/**
 * What the process says to its supervisor, the limits that its supervisor set, and its end where nothing else ends it.
 */

import { assert } from '../foundation/assert.ts'
import { closeDescriptor } from './descriptor.ts'
import { ERRNO } from './errno.ts'
import { libc, outcome } from './libc.ts'

const AF_UNIX = 1
const SOCK_DGRAM = 2
const SOCK_CLOEXEC = 0o2000000
const MSG_DONTWAIT = 0x40
const MSG_NOSIGNAL = 0x4000
const SOCKET_PATH_BYTES_MAX = 107
/** 128 and the number of SIGKILL. */
const KILLED_STATUS = 137

const RESOURCES = { descriptors: 7, lockedMemoryBytes: 8 } as const
export type Resource = keyof typeof RESOURCES

export interface ResourceLimit {
  /** Infinity where there is none. */
  readonly soft: number
  readonly hard: number
}

const RLIM_INFINITY = 2n ** 64n - 1n
const limits = new BigUint64Array(2)
const limitsBytes = new Uint8Array(limits.buffer)

/**
 * Sends `READY=1` and its like to the service manager named by NOTIFY_SOCKET (a path, or `@` and an abstract name).
 * Never waits. The bytes sent; 0 where there is no such manager; or -errno.
 */
export function notifySystemd(text: string, socketName: string | undefined = process.env['NOTIFY_SOCKET']): number {
  if (socketName === undefined || socketName === '') return 0
  const abstract = socketName.startsWith('@')
  if (!abstract && !socketName.startsWith('/')) return -ERRNO.EINVAL
  const name = Buffer.from(socketName)
  if (name.length > SOCKET_PATH_BYTES_MAX) return -ERRNO.ENAMETOOLONG
  if (abstract) name[0] = 0
  // A path is sent with the zero byte that ends it, an abstract name without.
  const address = new Uint8Array(2 + name.length + (abstract ? 0 : 1))
  new DataView(address.buffer).setUint16(0, AF_UNIX, true)
  address.set(name, 2)
  const socket = outcome(libc.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0))
  if (socket < 0) return socket
  const message = Buffer.from(text)
  const sent = outcome(
    libc.sendto(socket, message, message.length, MSG_DONTWAIT | MSG_NOSIGNAL, address, address.length),
  )
  closeDescriptor(socket)
  return sent
}

/**
 * Ends this process now, whatever its threads are doing, as SIGKILL would. The first process of a container is deaf to a
 * SIGKILL of its own (pid_namespaces(7)), and so leaves by exit_group, with the status that a shell gives that signal.
 */
export function endAtOnce(): void {
  process.kill(process.pid, 'SIGKILL')
  libc._exit(KILLED_STATUS)
}

export function resourceLimit(resource: Resource): ResourceLimit {
  const result = outcome(libc.getrlimit(RESOURCES[resource], limitsBytes))
  assert(result === 0, 'getrlimit knows the resource')
  return { soft: toNumber(limits[0]), hard: toNumber(limits[1]) }
}

/** Raises the soft limit as far as the hard one lets. 0 or -errno. */
export function raiseResourceLimit(resource: Resource): number {
  const result = outcome(libc.getrlimit(RESOURCES[resource], limitsBytes))
  if (result < 0) return result
  limits[0] = limits[1] ?? 0n
  return outcome(libc.setrlimit(RESOURCES[resource], limitsBytes))
}

function toNumber(limit: bigint | undefined): number {
  return limit === undefined || limit === RLIM_INFINITY ? Infinity : Number(limit)
}
