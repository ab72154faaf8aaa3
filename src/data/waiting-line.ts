/**
 * Connections that wait for something that has run out: buffers, or request slots. First come, first served: only the
 * first in the line is given any, and nobody passes the line. Whoever waits for a slot holds none, and whoever waits for
 * a buffer holds its slot but stands in another line, so that the two cannot lock each other out.
 */

import { assert } from '../foundation/assert.ts'
import { Ring } from './ring.ts'

export class WaitingLine {
  /** Since when the first has been waiting while nobody got anything. */
  sinceMs = 0
  readonly #rows: Ring

  constructor(capacity: number) {
    this.#rows = new Ring(capacity)
  }

  get count(): number {
    return this.#rows.count
  }

  /** The row of whoever is next; -1 when nobody waits. */
  get first(): number {
    return this.#rows.count === 0 ? -1 : this.#rows.at(0)
  }

  join(row: number, nowMs: number): void {
    if (this.#rows.count === 0) this.sinceMs = nowMs
    this.#rows.push(row)
  }

  /** The first got what it waited for. */
  leave(row: number, nowMs: number): void {
    assert(this.#rows.shift() === row, 'whoever waits is served in turn')
    this.sinceMs = nowMs
  }

  /** Its connection has gone, wherever it stands in the line. */
  forget(row: number): void {
    this.#rows.filter((other) => other !== row)
  }
}
