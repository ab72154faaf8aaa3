/**
 * Waits for something that will be true soon, by asking again and again until a deadline. It is for what cannot tell
 * us itself; where there is an event or a promise, wait for that. It never waits a fixed time and hopes.
 */

import { setTimeout as sleep } from 'node:timers/promises'

export interface Patience {
  readonly timeoutMs?: number
  readonly intervalMs?: number
}

type Answer<T> = T | undefined | null | false

/**
 * The first answer of `probe` that is not undefined, null or false. Past the deadline it rejects, naming `what` and the
 * last thing that the probe threw, if any: a probe may throw for "not yet".
 */
export async function eventually<T>(
  what: string,
  probe: () => Answer<T> | Promise<Answer<T>>,
  { timeoutMs = 10_000, intervalMs = 10 }: Patience = {},
): Promise<T> {
  const deadline = performance.now() + timeoutMs
  for (;;) {
    let cause: unknown
    try {
      const answer = await probe()
      if (answer !== undefined && answer !== null && answer !== false) return answer
    } catch (error) {
      cause = error
    }
    if (performance.now() >= deadline) throw new Error(`not within ${timeoutMs} ms: ${what}`, { cause })
    await sleep(intervalMs)
  }
}
