/**
 * File descriptors and who owns them. A number is not an owner: it can be closed twice, and the second time it may be
 * somebody else's. `OwnedDescriptor` closes once and asserts on every use afterwards.
 */

import { assert } from '../foundation/assert.ts'
import { libc, outcome } from './libc.ts'

const F_GETFD = 1
const F_GETFL = 3
const F_DUPFD_CLOEXEC = 1030
const FD_CLOEXEC = 1

/** A second descriptor of the same open file, closed on exec; or -errno. */
export function duplicateDescriptor(descriptor: number): number {
  return outcome(libc.fcntl(descriptor, F_DUPFD_CLOEXEC, 0))
}

/** 0 or -errno. Whatever it answers, the descriptor is gone afterwards and must not be closed again. */
export function closeDescriptor(descriptor: number): number {
  return outcome(libc.close(descriptor))
}

/** The flags of the open file (O_DIRECT, O_DSYNC, the access mode), or -errno. */
export function descriptorFlags(descriptor: number): number {
  return outcome(libc.fcntl(descriptor, F_GETFL, 0))
}

/** Whether a child process would not inherit it. False also where there is no such descriptor. */
export function closesOnExec(descriptor: number): boolean {
  const flags = libc.fcntl(descriptor, F_GETFD, 0)
  return flags !== -1 && (flags & FD_CLOEXEC) !== 0
}

export class OwnedDescriptor {
  #number: number

  constructor(descriptor: number) {
    assert(Number.isInteger(descriptor) && descriptor >= 0, `${descriptor} is not a descriptor`)
    this.#number = descriptor
  }

  get number(): number {
    assert(this.#number >= 0, 'the descriptor was closed or given away')
    return this.#number
  }

  get open(): boolean {
    return this.#number >= 0
  }

  /** 0 or -errno; the descriptor is gone either way. */
  close(): number {
    return closeDescriptor(this.release())
  }

  /** Gives the number away: from here on somebody else closes it. */
  release(): number {
    const descriptor = this.number
    this.#number = -1
    return descriptor
  }
}
