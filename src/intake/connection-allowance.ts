/**
 * How many connections the daemon keeps at once, over all its listeners: those that still negotiate, counted here, and
 * those in transmission, which somebody else counts. A connection is counted in at least one of the two at any time.
 */

import { assert } from '../foundation/assert.ts'

export class ConnectionAllowance {
  readonly connectionsMax: number
  readonly #transmittingCount: () => number
  #negotiating = 0

  constructor(connectionsMax: number, transmittingCount: () => number) {
    assert(connectionsMax > 0, 'at least one connection is allowed')
    this.connectionsMax = connectionsMax
    this.#transmittingCount = transmittingCount
  }

  get negotiating(): number {
    return this.#negotiating
  }

  /** False when there is no room; then nothing was counted. */
  enter(): boolean {
    if (this.#negotiating + this.#transmittingCount() >= this.connectionsMax) return false
    this.#negotiating += 1
    return true
  }

  leave(): void {
    assert(this.#negotiating > 0, 'nobody leaves who has not entered')
    this.#negotiating -= 1
  }
}
