/**
 * One HTTP request over a Unix or TCP socket, and its answer. A connection of its own for each: the socket is local, and
 * a kept one could die just when it is used again. Knows nothing of exports.
 */

import { request as httpRequest } from 'node:http'
import type { IncomingMessage, RequestOptions } from 'node:http'
import { formatEndpoint } from '../foundation/endpoint.ts'
import type { Endpoint } from '../foundation/endpoint.ts'
import { ControlProblem, ControlUnreachable } from './problem.ts'

export interface Exchange {
  readonly method: 'GET' | 'POST' | 'DELETE'
  readonly path: string
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
  const payload = exchange.body === undefined ? undefined : JSON.stringify(exchange.body)
  const options: RequestOptions = {
    ...(endpoint.scheme === 'unix' ? { socketPath: endpoint.path } : { host: endpoint.host, port: endpoint.port }),
    agent: false,
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
  return new Promise((resolve, reject) => {
    const outgoing = httpRequest(options, resolve)
    // A daemon that died without a word is found out while we wait for a long close.
    outgoing.setSocketKeepAlive(true, 15_000)
    outgoing.once('error', (error) => {
      reject(failureOf(endpoint, error, exchange.signal))
    })
    outgoing.end(payload)
  })
}

async function readAll(endpoint: Endpoint, response: IncomingMessage, signal?: AbortSignal): Promise<string> {
  const pieces: Buffer[] = []
  let length = 0
  try {
    for await (const piece of response) {
      if (!Buffer.isBuffer(piece)) continue
      length += piece.length
      if (length > ANSWER_LENGTH_MAX) throw new RangeError('the answer is too long')
      pieces.push(piece)
    }
  } catch (error) {
    throw failureOf(endpoint, error, signal)
  }
  return Buffer.concat(pieces).toString('utf8')
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
