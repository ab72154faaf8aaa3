/**
 * The questions of one look at an image. Each way to the thread and back costs more than most answers, so what the last
 * look asked of a place goes along with this look's first question there, on one way. Only the questions are remembered:
 * every answer is of this very look, and is given once.
 *
 * Asked ahead is only what lies where the walk asks just then. A path that it does not come to any more is left alone,
 * whatever it leads to by now, and one that hangs would have hung the same thread. The texts, links and lists of /proc
 * and /sys are one place, for the kernel has them in memory. They do not go along with the image, so that the mount table
 * is known when the image does not answer.
 */

import type { BlockingRunner } from '../../blocking/calls.ts'
import type { ProbeCall, ProbeResults } from '../../blocking/stack-probes.ts'

/** Some fifty devices. What is beyond is asked one by one. */
const REMEMBERED_MAX = 256

/**
 * What the last look at an image asked, in its order. The next one takes it and leaves its own, so that after one that
 * hangs nothing is asked ahead.
 */
export class Foresight {
  #questions: readonly ProbeCall[] = []

  take(): readonly ProbeCall[] {
    const questions = this.#questions
    this.#questions = []
    return questions
  }

  /** After a look that came to its end. */
  learn(asked: readonly ProbeCall[]): void {
    this.#questions = asked.slice(0, REMEMBERED_MAX)
  }
}

/** An answer that nobody has asked for yet. */
interface Ahead {
  readonly key: string
  readonly answers: Promise<readonly unknown[]>
  readonly index: number
}

export class Questions {
  readonly #runner: BlockingRunner
  readonly #asked: ProbeCall[] = []
  #foreseen: readonly ProbeCall[]
  #ahead: Ahead[] = []

  constructor(runner: BlockingRunner, foreseen: readonly ProbeCall[] = []) {
    this.#runner = runner
    this.#foreseen = foreseen
  }

  /** In their order. */
  get asked(): readonly ProbeCall[] {
    return this.#asked
  }

  async ask<C extends ProbeCall>(call: C): Promise<ProbeResults[C['kind']]> {
    this.#asked.push(call)
    // The answers forget which kind belongs to which call; the thread's switch and the key give the right one.
    return (await (this.#takeAhead(call) ?? this.#askWithForeseen(call))) as ProbeResults[C['kind']]
  }

  #takeAhead(call: ProbeCall): Promise<unknown> | null {
    const key = keyOf(call)
    const found = this.#ahead.findIndex((ahead) => ahead.key === key)
    const [ahead] = found < 0 ? [] : this.#ahead.splice(found, 1)
    return ahead === undefined ? null : ahead.answers.then((answers) => answers[ahead.index])
  }

  async #askWithForeseen(call: ProbeCall): Promise<unknown> {
    const others = this.#takeForeseen(call)
    if (others.length === 0) return this.#runner.run(call)
    const answers = this.#runner.run({ kind: 'each', calls: [call, ...others] })
    others.forEach((other, index) => this.#ahead.push({ key: keyOf(other), answers, index: index + 1 }))
    return (await answers)[0]
  }

  /** What else was asked last time where this call leads. It is foreseen no more. */
  #takeForeseen(call: ProbeCall): readonly ProbeCall[] {
    const place = placeOf(call)
    const there = this.#foreseen.filter((question) => placeOf(question) === place)
    this.#foreseen = this.#foreseen.filter((question) => !there.includes(question))
    const itself = there.findIndex((question) => keyOf(question) === keyOf(call))
    return there.filter((_question, index) => index !== itself)
  }
}

/** A path, but for what the kernel knows by itself. What would be anybody's place has one of its own. */
function placeOf(call: ProbeCall): string {
  switch (call.kind) {
    case 'readTexts':
      return call.paths.every(isOfKernel) ? KERNEL : keyOf(call)
    case 'readLink':
    case 'listNames':
      return isOfKernel(call.path) ? KERNEL : call.path
    case 'probeMapper':
    case 'listUsers':
      return keyOf(call)
    default:
      return call.path
  }
}

/** No path. */
const KERNEL = ''

function isOfKernel(path: string): boolean {
  return path.startsWith('/sys/') || path.startsWith('/proc/')
}

function keyOf(call: ProbeCall): string {
  return JSON.stringify(call)
}
