/**
 * The stream of events as an async iterable that survives lost connections: it comes back with the id of the last event
 * that it saw. The very first connection is not retried, so that a wrong address is an error and not a silence.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import type { IncomingMessage } from 'node:http'
import type { ExportEvent } from '../exports/verbs.ts'
import type { Endpoint } from '../foundation/endpoint.ts'
import { EventStreamParser } from './event-stream-parser.ts'
import { exchangeStream, failureOf } from './http-exchange.ts'
import { ControlProblem, ControlUnreachable } from './problem.ts'

export type StreamEvent =
  | ExportEvent
  /** What was missed has been told; from here on events are live. Comes again after each reconnect. */
  | { readonly kind: 'ready' }
  /** Events between the last one and the next are gone for good. */
  | { readonly kind: 'missed' }

export interface EventOptions {
  /** Only the events of this export. */
  readonly export?: string
  /** Ends the iteration, without an error. */
  readonly signal?: AbortSignal
  /** Default true. False: the end of the connection is an error. */
  readonly reconnect?: boolean
}

const DELAY_MS_FIRST = 100
const DELAY_MS_MAX = 5000
/** The daemon sends a heartbeat every 15 seconds; three missing ones are a dead connection. */
const SILENCE_MS_MAX = 45_000

export async function* followEvents(
  endpoint: Endpoint,
  options: EventOptions,
): AsyncGenerator<StreamEvent, void, undefined> {
  const { signal, reconnect = true } = options
  let lastId = ''
  let connectedOnce = false
  let delayMs = DELAY_MS_FIRST
  while (signal?.aborted !== true) {
    try {
      const response = await open(endpoint, options, lastId)
      connectedOnce = true
      delayMs = DELAY_MS_FIRST
      for await (const sent of sentEvents(response)) {
        lastId = sent.id
        yield eventOf(sent.type, sent.data)
      }
      throw new Error('the connection ended')
    } catch (error) {
      if (isAborted(signal)) return
      if (!connectedOnce || !reconnect) throw asFailure(endpoint, error, signal)
    }
    await sleep(delayMs, undefined, { ...(signal && { signal }) }).catch(() => undefined)
    delayMs = Math.min(delayMs * 2, DELAY_MS_MAX)
  }
}

async function open(endpoint: Endpoint, options: EventOptions, lastId: string): Promise<IncomingMessage> {
  const query = options.export === undefined ? '' : `?export=${encodeURIComponent(options.export)}`
  const headers = { accept: 'text/event-stream', ...(lastId !== '' && { 'last-event-id': lastId }) }
  const { signal } = options
  return exchangeStream(endpoint, { method: 'GET', path: `/v1/events${query}`, connection: 'own', headers, signal })
}

async function* sentEvents(response: IncomingMessage) {
  const parser = new EventStreamParser()
  response.setEncoding('utf8')
  response.socket.setTimeout(SILENCE_MS_MAX, () => response.destroy(new Error('the daemon went silent')))
  for await (const text of response) yield* parser.push(String(text))
}

function eventOf(type: string, data: string): StreamEvent {
  if (type === 'ready' || type === 'missed') return { kind: type }
  return JSON.parse(data) as ExportEvent
}

/** A function, because the compiler believes that what was false before an await still is. */
function isAborted(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true
}

/** What the HTTP library says in the middle of a stream is, for our caller, a daemon that is gone. */
function asFailure(endpoint: Endpoint, error: unknown, signal: AbortSignal | undefined): unknown {
  const known = error instanceof ControlProblem || error instanceof ControlUnreachable
  return known ? error : failureOf(endpoint, error, signal)
}
