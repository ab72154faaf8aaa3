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

/** The functions as TypeScript sees them. A result of -1 is a failure: hand it to `outcome`. */
interface CLibrary {
  readonly _exit: (status: number) => number
  readonly close: (descriptor: number) => number
  readonly eventfd: (value: number, flags: number) => number
  readonly fallocate: (descriptor: number, mode: number, offset: number, length: number) => number
  readonly fcntl: (descriptor: number, command: number, argument: number) => number
  readonly fcntlMemory: (descriptor: number, command: number, argument: Memory) => number
  readonly fdatasync: (descriptor: number) => number
  readonly fsync: (descriptor: number) => number
  readonly getrlimit: (resource: number, limits: Memory) => number
  readonly getsockopt: (descriptor: number, level: number, option: number, value: Memory, length: Memory) => number
  readonly ioctl: (descriptor: number, request: number, argument: Memory) => number
  readonly link: (existing: string, created: string) => number
  readonly mmap: (
    address: number,
    length: number,
    protection: number,
    flags: number,
    descriptor: number,
    offset: number,
  ) => number | bigint
  readonly munmap: (address: bigint, length: number) => number
  readonly open: (path: string, flags: number, mode: number) => number
  readonly poll: (descriptors: Memory, count: number, timeoutMs: number) => number
  readonly pread: (descriptor: number, memory: Memory, length: number, position: number) => number
  readonly pwrite: (descriptor: number, memory: Memory, length: number, position: number) => number
  readonly read: (descriptor: number, memory: Memory, length: number) => number
  readonly sendto: (
    descriptor: number,
    memory: Memory,
    length: number,
    flags: number,
    address: Memory,
    addressLength: number,
  ) => number
  readonly setrlimit: (resource: number, limits: Memory) => number
  readonly setsockopt: (descriptor: number, level: number, option: number, value: Memory, length: number) => number
  readonly shutdown: (descriptor: number, how: number) => number
  readonly socket: (domain: number, type: number, protocol: number) => number
  readonly socketpair: (domain: number, type: number, protocol: number, pair: Memory) => number
  readonly statx: (descriptor: number, path: string, flags: number, mask: number, into: Memory) => number
  readonly write: (descriptor: number, memory: Memory, length: number) => number
}

interface Prototype {
  readonly result: 'int' | 'intptr_t'
  readonly parameters: readonly string[]
  /** Where it differs from the key. */
  readonly name?: string
  /** An older C library may lack it; it then fails with ENOSYS. */
  readonly optional?: true
}

const PROTOTYPES: Readonly<Record<keyof CLibrary, Prototype>> = {
  _exit: { result: 'int', parameters: ['int'] },
  close: { result: 'int', parameters: ['int'] },
  eventfd: { result: 'int', parameters: ['uint', 'int'] },
  fallocate: { result: 'int', parameters: ['int', 'int', 'int64_t', 'int64_t'] },
  fcntl: { result: 'int', parameters: ['int', 'int', 'long'] },
  fcntlMemory: { result: 'int', parameters: ['int', 'int', 'void *'], name: 'fcntl' },
  fdatasync: { result: 'int', parameters: ['int'] },
  fsync: { result: 'int', parameters: ['int'] },
  getrlimit: { result: 'int', parameters: ['int', 'void *'] },
  getsockopt: { result: 'int', parameters: ['int', 'int', 'int', 'void *', 'void *'] },
  ioctl: { result: 'int', parameters: ['int', 'ulong', 'void *'] },
  link: { result: 'int', parameters: ['str', 'str'] },
  mmap: { result: 'intptr_t', parameters: ['intptr_t', 'size_t', 'int', 'int', 'int', 'int64_t'] },
  munmap: { result: 'int', parameters: ['intptr_t', 'size_t'] },
  open: { result: 'int', parameters: ['str', 'int', 'int'] },
  poll: { result: 'int', parameters: ['void *', 'ulong', 'int'] },
  pread: { result: 'intptr_t', parameters: ['int', 'void *', 'size_t', 'int64_t'] },
  pwrite: { result: 'intptr_t', parameters: ['int', 'void *', 'size_t', 'int64_t'] },
  read: { result: 'intptr_t', parameters: ['int', 'void *', 'size_t'] },
  sendto: { result: 'intptr_t', parameters: ['int', 'void *', 'size_t', 'int', 'void *', 'uint'] },
  setrlimit: { result: 'int', parameters: ['int', 'void *'] },
  setsockopt: { result: 'int', parameters: ['int', 'int', 'int', 'void *', 'uint'] },
  shutdown: { result: 'int', parameters: ['int', 'int'] },
  socket: { result: 'int', parameters: ['int', 'int', 'int'] },
  socketpair: { result: 'int', parameters: ['int', 'int', 'int', 'void *'] },
  statx: { result: 'int', parameters: ['int', 'str', 'int', 'uint', 'void *'], optional: true },
  write: { result: 'intptr_t', parameters: ['int', 'void *', 'size_t'] },
}

const library = koffi.load(null)

export const libc = Object.fromEntries(
  Object.entries(PROTOTYPES).map(([key, prototype]) => [key, bind(prototype.name ?? key, prototype)]),
) as unknown as CLibrary

function bind(name: string, prototype: Prototype): unknown {
  try {
    return library.func(name, prototype.result, [...prototype.parameters])
  } catch (error) {
    if (prototype.optional !== true) throw error
    return () => {
      koffi.errno(ERRNO.ENOSYS)
      return -1
    }
  }
}

/** What the call answered, or the negative errno where it answered -1. Call it directly on the result. */
export function outcome(result: number): number {
  return result === -1 ? -koffi.errno() : result
}

/** The bytes at an address, as this thread sees them. The memory must stay mapped for as long as the view is used. */
export function bytesAt(address: bigint, lengthBytes: number): Uint8Array {
  return new Uint8Array(koffi.view(address, lengthBytes))
}
