/**
 * Makes a ring with the best flags that the kernel takes, and finds out whether it can do what the engine needs. Where
 * it cannot, the failure says what is most likely in the way and what to do about it, because the kernel's own answer is
 * one number for a seccomp filter, a sysctl and an old kernel.
 */

import { readFileSync } from 'node:fs'
import { release } from 'node:os'
import { closeDescriptor } from '../../posix/descriptor.ts'
import { ERRNO, errnoName } from '../../posix/errno.ts'
import { resourceLimit } from '../../posix/process.ts'
import { IO_URING_OP_SUPPORTED, IORING_FEAT, IORING_OP, IORING_REGISTER, IORING_SETUP, PARAMS, PROBE } from './abi.ts'
import { ioUringRegister, ioUringSetup } from './system-calls.ts'

/** There is no io_uring here, or not enough of it. The message is for the operator. */
export class IoUringUnavailable extends Error {
  override readonly name = 'IoUringUnavailable'
}

export interface RingDescription {
  readonly descriptor: number
  readonly params: DataView
  /** The names of the optional flags that the kernel took. */
  readonly flagNames: readonly string[]
}

const { SUBMIT_ALL, COOP_TASKRUN, SINGLE_ISSUER, DEFER_TASKRUN } = IORING_SETUP

/** From the best to the plainest; Linux 6.1, 6.0, 5.19, 5.18, and before. */
const FLAG_SETS = [
  SUBMIT_ALL | COOP_TASKRUN | SINGLE_ISSUER | DEFER_TASKRUN,
  SUBMIT_ALL | COOP_TASKRUN | SINGLE_ISSUER,
  SUBMIT_ALL | COOP_TASKRUN,
  SUBMIT_ALL,
  0,
]

const OPTIONAL_FLAGS = { SUBMIT_ALL, COOP_TASKRUN, SINGLE_ISSUER, DEFER_TASKRUN } as const

/** A ring of the calling thread; `plain` is without optional flags. Throws `IoUringUnavailable`. */
export function setUpRing(submissionEntries: number, completionEntries: number, plain = false): RingDescription {
  const bytes = new Uint8Array(PARAMS.BYTES)
  const params = new DataView(bytes.buffer)
  let descriptor = -ERRNO.EINVAL
  let flags = 0
  for (const candidate of plain ? [0] : FLAG_SETS) {
    flags = candidate
    bytes.fill(0)
    params.setUint32(PARAMS.flags, flags | IORING_SETUP.CQSIZE | IORING_SETUP.CLAMP, true)
    params.setUint32(PARAMS.cq_entries, completionEntries, true)
    descriptor = ioUringSetup(submissionEntries, bytes)
    if (descriptor !== -ERRNO.EINVAL) break
  }
  if (descriptor < 0) throw new IoUringUnavailable(explainSetup(-descriptor))
  try {
    requireFeatures(params.getUint32(PARAMS.features, true))
    requireOperations(descriptor)
  } catch (error) {
    closeDescriptor(descriptor)
    throw error
  }
  const flagNames = Object.entries(OPTIONAL_FLAGS).flatMap(([name, flag]) => ((flags & flag) === 0 ? [] : [name]))
  return { descriptor, params, flagNames }
}

function requireFeatures(features: number): void {
  const { SINGLE_MMAP, NODROP, SUBMIT_STABLE, FAST_POLL } = IORING_FEAT
  const missing = Object.entries({ SINGLE_MMAP, NODROP, SUBMIT_STABLE, FAST_POLL }).filter(
    ([, feature]) => (features & feature) === 0,
  )
  if (missing.length === 0) return
  const names = missing.map(([name]) => `IORING_FEAT_${name}`).join(', ')
  throw new IoUringUnavailable(`the kernel (${release()}) is too old for io_uring here: it lacks ${names}`)
}

function requireOperations(descriptor: number): void {
  const probe = new Uint8Array(PROBE.HEADER_BYTES + PROBE.OP_BYTES * PROBE.OPS_MAX)
  const result = ioUringRegister(descriptor, IORING_REGISTER.PROBE, probe, PROBE.OPS_MAX)
  if (result < 0) {
    throw new IoUringUnavailable(
      `the kernel (${release()}) does not say which io_uring operations it has (${errnoName(result)}); ` +
        'a seccomp filter may forbid io_uring_register',
    )
  }
  const missing = Object.entries(IORING_OP).filter(([, operation]) => {
    const flags = probe[PROBE.HEADER_BYTES + operation * PROBE.OP_BYTES + PROBE.op_flags] ?? 0
    return (flags & IO_URING_OP_SUPPORTED) === 0
  })
  if (missing.length === 0) return
  const names = missing.map(([name]) => `IORING_OP_${name}`).join(', ')
  throw new IoUringUnavailable(`the kernel (${release()}) is too old for io_uring here: it lacks ${names}`)
}

function explainSetup(errno: number): string {
  const what = `io_uring_setup failed with ${errnoName(errno)}`
  if (errno === ERRNO.EPERM) return `${what}: ${explainForbidden()}`
  if (errno === ERRNO.ENOSYS) {
    const filtered = `a seccomp filter hides it; the kernel (${release()}) would have it`
    const missing = `the kernel (${release()}) has no io_uring: it is too old, or was built without`
    return `${what}: ${seccompFilters() ? filtered : missing}`
  }
  if (errno === ERRNO.ENOMEM) {
    const { soft } = resourceLimit('lockedMemoryBytes')
    return `${what}: locked memory is limited to ${soft} bytes; raise RLIMIT_MEMLOCK (LimitMEMLOCK= in systemd)`
  }
  if (errno === ERRNO.EMFILE || errno === ERRNO.ENFILE) return `${what}: too many open files`
  if (errno === ERRNO.EINVAL) return `${what}: the kernel (${release()}) is too old`
  return what
}

function explainForbidden(): string {
  const disabled = line('/proc/sys/kernel/io_uring_disabled')
  if (disabled === '2') return 'the sysctl kernel.io_uring_disabled is 2, which forbids it to everybody'
  if (disabled === '1') {
    return 'the sysctl kernel.io_uring_disabled is 1, which allows it only with CAP_SYS_ADMIN or in kernel.io_uring_group'
  }
  if (seccompFilters()) {
    return (
      'a seccomp filter forbids it, as container runtimes do by default; ' +
      'allow io_uring_setup, io_uring_enter and io_uring_register in the profile'
    )
  }
  return 'a security policy forbids it'
}

/** Whether system calls of this process pass a seccomp filter. */
function seccompFilters(): boolean {
  const status = line('/proc/self/status')
  return /^Seccomp:\s*2$/mu.test(status)
}

function line(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim()
  } catch {
    return ''
  }
}
