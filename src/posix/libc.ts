/**
 * The one table of C functions that this program calls. Each has one fixed prototype and is called synchronously: the
 * memory it is given must live only as long as the call. Memory that the kernel keeps for longer is mapped (see
 * mapping.ts) and named by its address.
 *
 * The C library is the one node itself is linked with. fcntl, ioctl, open and syscall are variadic in C; on both
 * supported machines (x86-64 and arm64, where int and long arguments travel in the same registers either way) they are
 * called with the fixed shape given here. Layouts of structures assume these machines too, hence the assertion.
 */

import koffi from 'koffi'
import { assert } from '../foundation/assert.ts'
import { ERRNO } from './errno.ts'

assert(process.platform === 'linux', 'the system calls are those of Linux')
assert(process.arch === 'x64' || process.arch === 'arm64', `no table of system calls for ${process.arch}`)

/** A buffer read or written during the call only, or the address of mapped memory. */
export type Memory = Uint8Array | Int32Array | bigint

const library = koffi.load(null)

function bind<F extends (...parameters: never[]) => number | bigint>(
  name: string,
  result: string,
  parameters: string[],
): F {
  return library.func(name, result, parameters) as unknown as F
}

/** A function that an older C library may lack: absent, it fails with ENOSYS. */
function bindOptional<F extends (...parameters: never[]) => number>(
  name: string,
  result: string,
  parameters: string[],
): F {
  try {
    return bind<F>(name, result, parameters)
  } catch {
    const missing = (): number => {
      koffi.errno(ERRNO.ENOSYS)
      return -1
    }
    return missing as F
  }
}

type Descriptor = number

export const libc = {
  close: bind<(fd: Descriptor) => number>('close', 'int', ['int']),
  eventfd: bind<(value: number, flags: number) => number>('eventfd', 'int', ['uint', 'int']),
  fallocate: bind<(fd: Descriptor, mode: number, offset: number, length: number) => number>('fallocate', 'int', [
    'int',
    'int',
    'int64_t',
    'int64_t',
  ]),
  fcntl: bind<(fd: Descriptor, command: number, argument: number) => number>('fcntl', 'int', ['int', 'int', 'long']),
  fcntlMemory: bind<(fd: Descriptor, command: number, argument: Memory) => number>('fcntl', 'int', [
    'int',
    'int',
    'void *',
  ]),
  fdatasync: bind<(fd: Descriptor) => number>('fdatasync', 'int', ['int']),
  fsync: bind<(fd: Descriptor) => number>('fsync', 'int', ['int']),
  getrlimit: bind<(resource: number, limits: Memory) => number>('getrlimit', 'int', ['int', 'void *']),
  getsockopt: bind<(fd: Descriptor, level: number, option: number, value: Memory, length: Memory) => number>(
    'getsockopt',
    'int',
    ['int', 'int', 'int', 'void *', 'void *'],
  ),
  ioctl: bind<(fd: Descriptor, request: number, argument: Memory) => number>('ioctl', 'int', [
    'int',
    'ulong',
    'void *',
  ]),
  link: bind<(existing: string, created: string) => number>('link', 'int', ['str', 'str']),
  mmap: bind<
    (
      address: number,
      length: number,
      protection: number,
      flags: number,
      fd: Descriptor,
      offset: number,
    ) => number | bigint
  >('mmap', 'intptr_t', ['intptr_t', 'size_t', 'int', 'int', 'int', 'int64_t']),
  munmap: bind<(address: bigint, length: number) => number>('munmap', 'int', ['intptr_t', 'size_t']),
  open: bind<(path: string, flags: number, mode: number) => number>('open', 'int', ['str', 'int', 'int']),
  poll: bind<(descriptors: Memory, count: number, timeoutMs: number) => number>('poll', 'int', [
    'void *',
    'ulong',
    'int',
  ]),
  pread: bind<(fd: Descriptor, memory: Memory, length: number, position: number) => number>('pread', 'intptr_t', [
    'int',
    'void *',
    'size_t',
    'int64_t',
  ]),
  pwrite: bind<(fd: Descriptor, memory: Memory, length: number, position: number) => number>('pwrite', 'intptr_t', [
    'int',
    'void *',
    'size_t',
    'int64_t',
  ]),
  read: bind<(fd: Descriptor, memory: Memory, length: number) => number>('read', 'intptr_t', [
    'int',
    'void *',
    'size_t',
  ]),
  sendto: bind<
    (fd: Descriptor, memory: Memory, length: number, flags: number, address: Memory, addressLength: number) => number
  >('sendto', 'intptr_t', ['int', 'void *', 'size_t', 'int', 'void *', 'uint']),
  setrlimit: bind<(resource: number, limits: Memory) => number>('setrlimit', 'int', ['int', 'void *']),
  setsockopt: bind<(fd: Descriptor, level: number, option: number, value: Memory, length: number) => number>(
    'setsockopt',
    'int',
    ['int', 'int', 'int', 'void *', 'uint'],
  ),
  shutdown: bind<(fd: Descriptor, how: number) => number>('shutdown', 'int', ['int', 'int']),
  socket: bind<(domain: number, type: number, protocol: number) => number>('socket', 'int', ['int', 'int', 'int']),
  socketpair: bind<(domain: number, type: number, protocol: number, pair: Memory) => number>('socketpair', 'int', [
    'int',
    'int',
    'int',
    'void *',
  ]),
  statx: bindOptional<(fd: Descriptor, path: string, flags: number, mask: number, into: Memory) => number>(
    'statx',
    'int',
    ['int', 'str', 'int', 'uint', 'void *'],
  ),
  write: bind<(fd: Descriptor, memory: Memory, length: number) => number>('write', 'intptr_t', [
    'int',
    'void *',
    'size_t',
  ]),
} as const

/** What the call answered, or the negative errno where it answered -1. Call it directly on the result. */
export function outcome(result: number): number {
  return result === -1 ? -koffi.errno() : result
}

/** The bytes at an address, as this thread sees them. The memory must stay mapped for as long as the view is used. */
export function bytesAt(address: bigint, lengthBytes: number): Uint8Array {
  return new Uint8Array(koffi.view(address, lengthBytes))
}
