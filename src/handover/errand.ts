/**
 * One question to a daemon, asked so that it ends: with the answer, with its refusal, when nobody wants it any more, or
 * when the daemon has not answered for too long. A daemon that is being started again, or cannot reach its records just
 * now, is asked again for a while; every verb that is asked this way is harmless to repeat.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { ControlUnreachable } from '../client/index.ts'
import type { ControlClient, RefusalCode } from '../client/index.ts'
import { formatEndpoint } from '../foundation/endpoint.ts'
import { StepFailed, hasCode } from './ending.ts'

/** Refusals that say nothing about the disk: they may be over in a moment, without anybody's doing. */
const PASSING: readonly RefusalCode[] = ['busy', 'record-io', 'record-unreachable']

const CALL_MS = 10_000
const AGAIN_MS = 200

export interface ErrandOptions {
  readonly step: string
  /** Ends the waiting, as a failure of code `cancelled`. */
  readonly signal?: AbortSignal | undefined
  /** How long one answer may take; what the daemon itself is told to wait for comes on top. */
  readonly callMs?: number
  /** How long a daemon is asked again that does not answer, or not now. 0: not at all. */
  readonly patienceMs: number
}

/** Rejects with the daemon's `ControlProblem`, with `ControlUnreachable`, or with a `StepFailed` of code `cancelled`. */
export async function ask<T>(
  client: ControlClient,
  question: (client: ControlClient, signal: AbortSignal) => Promise<T>,
  options: ErrandOptions,
): Promise<T> {
  const deadlineMs = performance.now() + options.patienceMs
  for (;;) {
    refuseCancelled(options)
    try {
      return await once(client, question, options)
    } catch (error) {
      if (!maybeOver(error) || performance.now() + AGAIN_MS >= deadlineMs) throw error
    }
    await pause(AGAIN_MS, options)
  }
}

/** Waits, and rejects at once with `cancelled` where that is wanted. */
export async function pause(durationMs: number, options: Pick<ErrandOptions, 'step' | 'signal'>): Promise<void> {
  const { signal } = options
  await sleep(durationMs, undefined, { ...(signal && { signal }) }).catch(() => undefined)
  refuseCancelled(options)
}

function maybeOver(error: unknown): boolean {
  return error instanceof ControlUnreachable || hasCode(error, ...PASSING)
}

async function once<T>(
  client: ControlClient,
  question: (client: ControlClient, signal: AbortSignal) => Promise<T>,
  options: ErrandOptions,
): Promise<T> {
  const callMs = options.callMs ?? CALL_MS
  const late = AbortSignal.timeout(callMs)
  const signal = options.signal === undefined ? late : AbortSignal.any([late, options.signal])
  try {
    return await question(client, signal)
  } catch (error) {
    refuseCancelled(options)
    if (!late.aborted) throw error
    throw new ControlUnreachable(formatEndpoint(client.endpoint), `no answer within ${callMs} ms`)
  }
}

function refuseCancelled({ step, signal }: Pick<ErrandOptions, 'step' | 'signal'>): void {
  if (signal?.aborted !== true) return
  throw new StepFailed({ step, code: 'cancelled', message: 'the handover was cancelled', problem: null })
}
