/**
 * The machine as the walk sees it: one question at a time to a thread that may hang, and at any moment what is waited
 * for. Texts of /sys and /proc come back trimmed; what cannot be read is null.
 */

import type { ProbeCall, ProbeResults } from '../../blocking/stack-probes.ts'
import type { Waiting } from './facts.ts'
import type { Questions } from './questions.ts'

export class Machine {
  readonly #questions: Questions
  readonly #now: () => number
  #waiting: Waiting | null = null

  constructor(questions: Questions, now: () => number) {
    this.#questions = questions
    this.#now = now
  }

  get waiting(): Waiting | null {
    return this.#waiting
  }

  /** `what` is said to an operator when it takes long. */
  async ask<C extends ProbeCall>(what: string, call: C): Promise<ProbeResults[C['kind']]> {
    this.#waiting = { what, sinceMs: this.#now() }
    try {
      return await this.#questions.ask(call)
    } finally {
      this.#waiting = null
    }
  }

  /** The texts of several files below one directory, by their names. */
  async texts<K extends string>(directory: string, names: readonly K[]): Promise<Record<K, string | null>> {
    const paths = names.map((name) => `${directory}/${name}`)
    const answers = await this.ask(`a look into ${directory}`, { kind: 'readTexts', paths })
    return Object.fromEntries(
      names.map((name, index) => {
        const answer = answers[index]
        return [name, typeof answer === 'string' ? answer.trim() : null]
      }),
    ) as Record<K, string | null>
  }

  async text(path: string): Promise<string | null> {
    const [answer] = await this.ask(`a look into ${path}`, { kind: 'readTexts', paths: [path] })
    return typeof answer === 'string' ? answer : null
  }

  /** Empty where there is no such directory. */
  async names(path: string): Promise<readonly string[]> {
    const answer = await this.ask(`the list of ${path}`, { kind: 'listNames', path, countMax: NAMES_MAX })
    return typeof answer === 'number' ? [] : answer
  }

  async link(path: string): Promise<string | null> {
    const answer = await this.ask(`a look at ${path}`, { kind: 'readLink', path })
    return typeof answer === 'string' ? answer : null
  }
}

const NAMES_MAX = 256
