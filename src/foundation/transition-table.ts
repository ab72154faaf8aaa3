/**
 * Which states may follow which, and why: a table, so that what a machine can do is read in one place, asserted in one
 * place and drawn from one place. It holds no state itself; whoever owns a state asks before assigning it.
 *
 * Invariant: every state that is the end of an edge is itself a row of the table, and a state never follows itself.
 */

import { AssertionFailure, assert } from './assert.ts'

export interface Edge<State extends string> {
  readonly from: State
  readonly to: State
  /** What makes it happen, in a few words. */
  readonly why: string
}

/** For each state the states that may follow it, each with what makes it happen. */
export type TransitionRows<State extends string> = Readonly<Record<State, Readonly<Partial<Record<State, string>>>>>

export class TransitionTable<State extends string> {
  readonly noun: string
  /** In the order of the rows. */
  readonly states: readonly State[]
  readonly #rows: TransitionRows<State>

  /** `noun` names the machine in assertion messages. */
  constructor(noun: string, rows: TransitionRows<State>) {
    this.noun = noun
    this.states = statesOf(rows)
    this.#rows = rows
    for (const { from, to, why } of this.edges()) {
      assert(this.states.includes(to), `${noun}: ${from} leads to ${to}, which is not a state`)
      assert(from !== to, `${noun}: ${from} leads to itself`)
      assert(why !== '', `${noun}: ${from} leads to ${to} for no reason`)
    }
  }

  allows(from: State, to: State): boolean {
    return this.#rows[from][to] !== undefined
  }

  /** Throws where the machine would do what its table does not know: a bug, never bad input. */
  assertAllowed(from: State, to: State): void {
    if (!this.allows(from, to)) throw new AssertionFailure(`${this.noun} cannot go from ${from} to ${to}`)
  }

  edges(): Edge<State>[] {
    return this.states.flatMap((from) =>
      statesOf(this.#rows[from]).map((to) => ({ from, to, why: this.#rows[from][to] ?? '' })),
    )
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

  /** The table as a Mermaid state diagram. */
  mermaid(): string {
    const lines = this.edges().map(({ from, to, why }) => `  ${from} --> ${to}: ${why}`)
    return ['stateDiagram-v2', ...lines].join('\n')
  }
}

/** Object.keys widens to string; the keys of a record of states are its states. */
function statesOf<State extends string>(record: Readonly<Partial<Record<State, unknown>>>): State[] {
  return Object.keys(record) as State[]
}
