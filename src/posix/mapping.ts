/**
 * Memory that outlives a call: mapped, so that it neither moves nor is collected while the kernel works on it. Between
 * threads travels only the address; each thread makes its own view of it. Whoever mapped it unmaps it, after the last
 * view is out of use: a view of unmapped memory is a crash, not an exception.
 */

import { assert } from '../foundation/assert.ts'
import { SystemCallFailure } from './errno.ts'
import { bytesAt, libc, outcome } from './libc.ts'

const PROT_READ = 1
const PROT_WRITE = 2
const MAP_SHARED = 0x01
const MAP_PRIVATE = 0x02
const MAP_ANONYMOUS = 0x20
const MAP_POPULATE = 0x8000

export interface MappedMemory {
  readonly address: bigint
  readonly lengthBytes: number
  /** This thread's view. It does not travel: send the address and the length. */
  readonly bytes: Uint8Array
}

export interface MappingOptions {
  /** Shared with child processes instead of copied on write. Threads see either. */
  readonly shared?: boolean
  /** Takes the pages now instead of at first touch. */
  readonly populate?: boolean
}

/** Zeroed anonymous memory, aligned to a page. Throws `SystemCallFailure` where there is none. */
export function mapMemory(lengthBytes: number, options: MappingOptions = {}): MappedMemory {
  const flags =
    MAP_ANONYMOUS |
    (options.shared === true ? MAP_SHARED : MAP_PRIVATE) |
    (options.populate === true ? MAP_POPULATE : 0)
  return map(lengthBytes, flags, -1, 0)
}

/** A part of what a descriptor offers for mapping, such as the rings of io_uring. Shared and writable. */
export function mapDescriptor(descriptor: number, lengthBytes: number, offset: number): MappedMemory {
  return map(lengthBytes, MAP_SHARED | MAP_POPULATE, descriptor, offset)
}

/** Another thread's mapping, seen from this one. */
export function viewMemory(address: bigint, lengthBytes: number): Uint8Array {
  assert(address > 0n && lengthBytes > 0, 'a view needs mapped memory')
  return bytesAt(address, lengthBytes)
}

/** 0 or -errno. */
export function unmapMemory(memory: { readonly address: bigint; readonly lengthBytes: number }): number {
  return outcome(libc.munmap(memory.address, memory.lengthBytes))
}

function map(lengthBytes: number, flags: number, descriptor: number, offset: number): MappedMemory {
  assert(Number.isSafeInteger(lengthBytes) && lengthBytes > 0, `cannot map ${lengthBytes} bytes`)
  const result = libc.mmap(0, lengthBytes, PROT_READ | PROT_WRITE, flags, descriptor, offset)
  if (Number(result) === -1) throw new SystemCallFailure('mmap', outcome(-1))
  const address = BigInt(result)
  return { address, lengthBytes, bytes: bytesAt(address, lengthBytes) }
}
