/** Waiting with a bound. What is waited for goes on all the same; null stands for the time being over. */

import { setTimeout as sleep } from 'node:timers/promises'

/** `timeoutMs` null waits for as long as it takes. Rejects as what is waited for does. */
export async function within<T>(waitedFor: Promise<T>, timeoutMs: number | null): Promise<T | null> {
  if (timeoutMs === null) return waitedFor
  const bound = new AbortController()
  try {
    return await Promise.race([waitedFor, sleep(timeoutMs, null, { signal: bound.signal }).catch(() => null)])
  } finally {
    bound.abort()
  }
}
