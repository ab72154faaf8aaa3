/**
 * One HTTP request over a Unix or TCP socket, and its answer. Knows nothing of exports.
 *
 * A connection is kept for the next request, which so comes to the verb half a millisecond sooner: a guest may be waiting. It
 * may have died unnoticed, with a daemon that was started again; then the request is sent once more, on a connection of
 * its own. Whatever must not be sent twice has such a connection from the beginning.
 */

import { Agent, request as httpRequest } from 'node:http'
import type { ClientRequest, IncomingMessage, RequestOptions } from 'node:http'
import { formatEndpoint } from '../foundation/endpoint.ts'
import type { Endpoint } from '../foundation/endpoint.ts'
import { ControlProblem, ControlUnreachable } from './problem.ts'

export interface Exchange {
  readonly method: 'GET' | 'POST' | 'DELETE'
  readonly path: string
  /** `kept` only where it is harmless that the daemon carries the request out twice. */
  readonly connection: 'kept' | 'own'
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: unknown
  readonly signal?: AbortSignal | undefined
}

export interface JsonAnswer {
  readonly status: number
  /** Undefined where the answer has no body. */
  readonly body: unknown
}

const ANSWER_LENGTH_MAX = 256 * 1024 * 1024

/** A daemon that died without a word is found out while we wait for a long close. */
const PROBE_MS = 15_000

/** Shorter than the daemon keeps its end; one that keeps it for less says so in its answers, which the agent heeds. */
export const IDLE_MS_MAX = 30_000
const IDLE_PER_DAEMON_MAX = 2

/** What was dead before it was used shows at once. One that is lost later was heard: that is the caller's to judge. */
const DEAD_BEFORE_MS_MAX = 1_000

/**
 * One for all clients, so that a program that connects anew for each call keeps no more than others. An idle connection
 * lets the program end.
 */
const keptConnections = new Agent({
  keepAlive: true,
  keepAliveMsecs: PROBE_MS,
  timeout: IDLE_MS_MAX,
  maxFreeSockets: IDLE_PER_DAEMON_MAX,
})

/** Rejects with ControlProblem or ControlUnreachable, or with the signal's reason. */
export async function exchangeJson(endpoint: Endpoint, exchange: Exchange): Promise<JsonAnswer> {
  const response = await exchangeStream(endpoint, exchange)
  const text = await readAll(endpoint, response, exchange.signal)
  if (text === '') return { status: response.statusCode ?? 0, body: undefined }
  return { status: response.statusCode ?? 0, body: parseJson(endpoint, text) }
}

/** The answer as a stream, once it is known to be no problem. The caller reads or destroys it. */
export async function exchangeStream(endpoint: Endpoint, exchange: Exchange): Promise<IncomingMessage> {
  const response = await send(endpoint, exchange)
  const status = response.statusCode ?? 0
  if (status >= 200 && status < 300) return response
  const document = parseJson(endpoint, await readAll(endpoint, response, exchange.signal))
  if (isProblem(document)) throw new ControlProblem(document, status)
  throw new ControlUnreachable(formatEndpoint(endpoint), `something else answered with status ${status}`)
}

async function send(endpoint: Endpoint, exchange: Exchange): Promise<IncomingMessage> {
  if (exchange.connection === 'own') return new Attempt(endpoint, exchange, false).response
  const attempt = new Attempt(endpoint, exchange, keptConnections)
  try {
    return await attempt.response
  } catch (error) {
    if (exchange.signal?.aborted === true || !attempt.foundItDead) throw error
    return new Attempt(endpoint, exchange, false).response
  }
}

/** The request, sent once. */
class Attempt {
  /** Rejects as the exchange does. */
  readonly response: Promise<IncomingMessage>
  readonly #outgoing: ClientRequest
  readonly #sentMs = performance.now()
  #failedMs = Infinity
  #bytesReadBefore = 0

  constructor(endpoint: Endpoint, exchange: Exchange, agent: Agent | false) {
    const payload = exchange.body === undefined ? undefined : JSON.stringify(exchange.body)
    const outgoing = httpRequest(optionsOf(endpoint, exchange, payload, agent))
    this.#outgoing = outgoing
    outgoing.once('socket', (socket) => {
      this.#bytesReadBefore = socket.bytesRead
    })
    outgoing.setSocketKeepAlive(true, PROBE_MS)
    this.response = new Promise((resolve, reject) => {
      outgoing.once('response', resolve)
      outgoing.once('error', (error) => {
        this.#failedMs = performance.now()
        reject(failureOf(endpoint, error, exchange.signal))
      })
    })
    outgoing.end(payload)
  }

  /** After a failure: the connection was an old one, and ended at once, without a byte of an answer. */
  get foundItDead(): boolean {
    const { reusedSocket, socket } = this.#outgoing
    const isUnanswered = socket === null || socket.bytesRead === this.#bytesReadBefore
    return reusedSocket && isUnanswered && this.#failedMs - this.#sentMs < DEAD_BEFORE_MS_MAX
  }
}

function optionsOf(
  endpoint: Endpoint,
  exchange: Exchange,
  payload: string | undefined,
  agent: Agent | false,
): RequestOptions {
  return {
    ...(endpoint.scheme === 'unix' ? { socketPath: endpoint.path } : { host: endpoint.host, port: endpoint.port }),
    agent,
    method: exchange.method,
    path: exchange.path,
    headers: {
      host: hostHeaderOf(endpoint),
      accept: 'application/json, application/problem+json',
      ...(payload !== undefined && {
        'content-type': 'application/json',
        'content-length': Buffer.byteLength(payload),
      }),
      ...exchange.headers,
    },
    ...(exchange.signal && { signal: exchange.signal }),
  }
}

/** By its events, because iterating takes longer, and a guest may be waiting for the answer. */
function readAll(endpoint: Endpoint, response: IncomingMessage, signal?: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    const pieces: Buffer[] = []
    let length = 0
    response.on('data', (piece: Buffer) => {
      length += piece.length
      if (length <= ANSWER_LENGTH_MAX) pieces.push(piece)
      else response.destroy(new RangeError('the answer is too long'))
    })
    response.once('end', () => {
      resolve(Buffer.concat(pieces).toString('utf8'))
    })
    response.once('error', (error) => {
      reject(failureOf(endpoint, error, signal))
    })
  })
}

export function failureOf(endpoint: Endpoint, error: unknown, signal: AbortSignal | undefined): Error {
  if (signal?.aborted !== true) return new ControlUnreachable(formatEndpoint(endpoint), error)
  return signal.reason instanceof Error ? signal.reason : new Error(String(signal.reason))
}

/** Loopback names only pass the daemon's check of the host; a Unix socket has none. */
function hostHeaderOf(endpoint: Endpoint): string {
  if (endpoint.scheme === 'unix') return 'localhost'
  return endpoint.host.includes(':') ? `[${endpoint.host}]:${endpoint.port}` : `${endpoint.host}:${endpoint.port}`
}

function parseJson(endpoint: Endpoint, text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw new ControlUnreachable(formatEndpoint(endpoint), 'what answered does not speak JSON')
  }
}

function isProblem(document: unknown): document is Readonly<Record<string, unknown>> {
  return typeof document === 'object' && document !== null && 'code' in document && 'title' in document
}
