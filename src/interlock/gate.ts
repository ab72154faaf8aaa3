/**
 * Where a parsed request is let in, parked or refused: one setting for what reads and one for what writes. Pure: it
 * counts nothing and keeps nothing but the two settings.
 *
 * Reads are READ, CACHE and BLOCK_STATUS; writes are WRITE, TRIM and WRITE_ZEROES. A FLUSH follows the stricter of the
 * two settings. It says "whatever has been answered is durable", and where writes are parked nobody here can say that:
 * in a standby the previous holder may still have answered writes in a cache of its own, and behind a closing gate the
 * writes sent before the FLUSH are themselves unanswered. So a FLUSH waits with the writes, and is refused when either
 * of them is: it never overtakes a parked write, and never vouches for another host. In a standby that serves reads a
 * FLUSH therefore waits for the opening, even when this client has written nothing.
 */

import { AssertionFailure } from '../foundation/assert.ts'
import { RequestKind, requestKind } from './request-kind.ts'

/** admit: it goes on. park: it is kept, unanswered, and decided anew when the gate changes. refuse: NBD_ESHUTDOWN. */
export type GateSetting = 'admit' | 'park' | 'refuse'

export interface GateSettings {
  readonly reads: GateSetting
  readonly writes: GateSetting
}

export class Gate implements GateSettings {
  #reads: GateSetting
  #writes: GateSetting

  constructor(settings: GateSettings) {
    this.#reads = settings.reads
    this.#writes = settings.writes
  }

  get reads(): GateSetting {
    return this.#reads
  }

  get writes(): GateSetting {
    return this.#writes
  }

  /** True when nothing at all is admitted. */
  get isShut(): boolean {
    return this.#reads !== 'admit' && this.#writes !== 'admit'
  }

  set(reads: GateSetting, writes: GateSetting): void {
    this.#reads = reads
    this.#writes = writes
  }

  decide(command: number): GateSetting {
    switch (requestKind(command)) {
      case RequestKind.READ:
        return this.#reads
      case RequestKind.WRITE:
        return this.#writes
      case RequestKind.FLUSH:
        return stricter(this.#reads, this.#writes)
      case RequestKind.NONE:
        throw new AssertionFailure(`command ${command} does not come to the gate`)
    }
  }
}

function stricter(a: GateSetting, b: GateSetting): GateSetting {
  if (a === 'refuse' || b === 'refuse') return 'refuse'
  return a === 'park' || b === 'park' ? 'park' : 'admit'
}
