/**
 * The three system calls of io_uring. The C library has no functions for them, so they go through `syscall`, each with
 * one fixed prototype. All answer -errno on failure.
 */

import koffi from 'koffi'
import { SYSTEM_CALL } from './abi.ts'

/** A buffer used during the call only, or the address of mapped memory. */
type Memory = Uint8Array | bigint

type Setup = (call: number, entries: number, params: Memory) => number
type Enter = (
  call: number,
  ring: number,
  submit: number,
  completeMin: number,
  flags: number,
  mask: number,
  maskBytes: number,
) => number
type Register = (call: number, ring: number, operation: number, argument: Memory, count: number) => number

const library = koffi.load(null)
const setup = library.func('syscall', 'long', ['long', 'uint', 'void *']) as unknown as Setup
const enter = library.func('syscall', 'long', [
  'long',
  'uint',
  'uint',
  'uint',
  'uint',
  'intptr_t',
  'size_t',
]) as unknown as Enter
const register = library.func('syscall', 'long', ['long', 'uint', 'uint', 'void *', 'uint']) as unknown as Register

/** A ring's descriptor, closed on exec. Fills the parameters with what the kernel made of them. */
export function ioUringSetup(entries: number, params: Uint8Array): number {
  const result = setup(SYSTEM_CALL.io_uring_setup, entries, params)
  return result === -1 ? -koffi.errno() : result
}

/** The number of entries that were taken. Sleeps until at least `completeMin` completions are there. */
export function ioUringEnter(ring: number, submit: number, completeMin: number, flags: number): number {
  const result = enter(SYSTEM_CALL.io_uring_enter, ring, submit, completeMin, flags, 0, 0)
  return result === -1 ? -koffi.errno() : result
}

export function ioUringRegister(ring: number, operation: number, argument: Memory, count: number): number {
  const result = register(SYSTEM_CALL.io_uring_register, ring, operation, argument, count)
  return result === -1 ? -koffi.errno() : result
}
