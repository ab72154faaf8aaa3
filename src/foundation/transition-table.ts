/**
 * Which states may follow which: a table, so that what a machine can do is read in one place, asserted in one place
 * and drawn from one place. It holds no state itself; whoever owns a state asks before assigning it.
 *
 * Invariant: every state that is the end of an edge is itself a row of the table, and a state never follows itself.
 */

import { AssertionFailure, assert } from './assert.ts'

export interface Edge<State extends string> {
  readonly from: State
  readonly to: State
}

export class TransitionTable<State extends string> {
  readonly noun: string
  readonly states: readonly State[]
  readonly #rows: Readonly<Record<State, readonly State[]>>

  /** `noun` names the machine in assertion messages. The order of the rows is the order of `states`. */
  constructor(noun: string, rows: Readonly<Record<State, readonly State[]>>) {
    this.noun = noun
    // Object.keys widens to string; the record's keys are exactly its states.
    this.states = Object.keys(rows) as State[]
    this.#rows = rows
    for (const from of this.states) {
      for (const to of rows[from]) {
        assert(this.states.includes(to), `${noun}: ${from} leads to ${to}, which is not a state`)
        assert(from !== to, `${noun}: ${from} leads to itself`)
      }
    }
  }

  allows(from: State, to: State): boolean {
    return this.#rows[from].includes(to)
  }

  /** Throws where the machine would do what its table does not know: a bug, never bad input. */
  assertAllowed(from: State, to: State): void {
    if (!this.allows(from, to)) throw new AssertionFailure(`${this.noun} cannot go from ${from} to ${to}`)
  }

  next(from: State): readonly State[] {
    return this.#rows[from]
  }

  edges(): Edge<State>[] {
    return this.states.flatMap((from) => this.#rows[from].map((to) => ({ from, to })))
  }

  /**
   * The table for machines whose state is a small integer in a typed array: one byte at `from * count + to`, 1 where
   * allowed, with the states numbered in the order of the rows.
   */
  matrix(): Uint8Array {
    const count = this.states.length
    const matrix = new Uint8Array(count * count)
    for (const { from, to } of this.edges()) matrix[this.states.indexOf(from) * count + this.states.indexOf(to)] = 1
    return matrix
  }
}
