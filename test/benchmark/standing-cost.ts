/**
 * What a server costs that has nothing to do, and what it keeps for clients that take nothing: sixteen connections that
 * are idle, and sixteen that ask for 64 MiB each and never read an answer. What is done for the start is no idleness: V8
 * collects garbage once more, for a quarter of a second, when its program has had little to do for some seconds.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { connectFrontend } from '../support/nbd-frontend.ts'
import type { NbdFrontend, ServerAddress } from '../support/nbd-frontend.ts'
import type { Scratch } from '../support/scratch.ts'
import { EXPORT_NAME } from './contender.ts'
import type { Contender } from './contender.ts'
import { scheduledMicrosecondsOf, usageOf } from './process-usage.ts'

export interface StandingCost {
  readonly contender: string
  /** Processor time of the idle server, per second of idleness. */
  readonly idleMicrosecondsPerSecond: number
  readonly idleResidentBytes: number
  /** With all requests sent, none of their answers read, and the memory no longer growing. */
  readonly unreadResidentBytes: number
  readonly unreadResidentPeakBytes: number
}

export const STANDING_CONNECTIONS = 16
export const UNREAD_REQUESTS = 64
const REQUEST_BYTES = 1024 * 1024
const SETTLING_MS = 500
/** Of the time of idleness that is measured: so long is waited before. */
const REST_SHARE = 1.5
const SETTLING_ROUNDS_MAX = 20

export async function measureStandingCost(
  scratch: Scratch,
  contender: Contender,
  image: string,
  idleSeconds: number,
): Promise<StandingCost> {
  const terms = { mode: 'direct', transport: 'unix', connections: STANDING_CONNECTIONS } as const
  const { target, pid } = await contender.start(scratch, image, terms, contender.variants[0] ?? '')
  if (pid === null || !('uri' in target)) throw new Error('only a server has a standing cost')
  const address = addressOf(target.uri)
  const frontends: NbdFrontend[] = []
  for (let index = 0; index < STANDING_CONNECTIONS; index += 1) {
    const frontend = await connectFrontend(scratch, address, EXPORT_NAME)
    await frontend.read(index * REQUEST_BYTES, 4096)
    frontends.push(frontend)
  }
  await sleep(REST_SHARE * idleSeconds * 1000)
  const before = scheduledMicrosecondsOf(pid)
  await sleep(idleSeconds * 1000)
  const idleMicroseconds = scheduledMicrosecondsOf(pid) - before
  const idle = usageOf(pid)
  for (const frontend of frontends) {
    frontend.stopReading()
    for (let index = 0; index < UNREAD_REQUESTS; index += 1) {
      frontend.send('READ', { offset: index * REQUEST_BYTES, length: REQUEST_BYTES })
    }
  }
  const loaded = await settled(pid)
  return {
    contender: contender.name,
    idleMicrosecondsPerSecond: idleMicroseconds / idleSeconds,
    idleResidentBytes: idle.residentBytes,
    unreadResidentBytes: loaded.residentBytes,
    unreadResidentPeakBytes: loaded.residentPeakBytes,
  }
}

/** The memory once it has stopped growing. */
async function settled(pid: number): Promise<{ residentBytes: number; residentPeakBytes: number }> {
  let usage = usageOf(pid)
  for (let round = 0; round < SETTLING_ROUNDS_MAX; round += 1) {
    await sleep(SETTLING_MS)
    const later = usageOf(pid)
    const grew = later.residentBytes > usage.residentBytes + REQUEST_BYTES
    usage = later
    if (!grew) break
  }
  return usage
}

function addressOf(uri: string): ServerAddress {
  const path = /socket=(.*)$/u.exec(uri)?.[1]
  if (path === undefined) throw new Error(`${uri} names no socket`)
  return { path }
}
