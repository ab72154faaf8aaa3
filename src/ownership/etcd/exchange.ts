/**
 * One POST to an endpoint, and its answer as text or as a stream of lines. A failure says whether the request can have
 * been received: until the connection stands nothing was sent, afterwards nothing is known. Every wait has its bound.
 */

import { request as httpRequest } from 'node:http'
import type { Agent, ClientRequest, IncomingMessage, OutgoingHttpHeaders } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { createInterface } from 'node:readline'
import { failureOfAnswer, EtcdFailure } from './failure.ts'
import { readProblem } from './gateway.ts'

export interface Exchange {
  readonly url: URL
  readonly agent: Agent
  readonly headers: OutgoingHttpHeaders
  readonly body: string
  /** For the answer, or for the beginning of a stream. */
  readonly timeoutMs: number
}

const ANSWER_BYTES_MAX = 32 * 1024 * 1024
const KEEP_ALIVE_MS = 10_000

/** The body of a success. Rejects with an EtcdFailure otherwise. */
export async function exchangeText(exchange: Exchange): Promise<string> {
  const sent = new Sent(exchange)
  try {
    const response = await sent.response
    const text = await readAll(response)
    if (response.statusCode === 200) return text
    const { code, message } = readProblem(text)
    throw failureOfAnswer(code, `${exchange.url.origin} answers: ${message}`)
  } catch (error) {
    throw sent.failureOf(error)
  } finally {
    sent.forget()
  }
}

/** Lines for as long as it goes on; it ends with the connection, or with the signal. */
export async function* exchangeLines(exchange: Exchange, signal: AbortSignal): AsyncGenerator<string, void, undefined> {
  const sent = new Sent(exchange)
  const end = (): void => {
    sent.end('it is not wanted any more')
  }
  signal.addEventListener('abort', end, { once: true })
  try {
    signal.throwIfAborted()
    const response = await sent.response
    if (response.statusCode !== 200) {
      const { code, message } = readProblem(await readAll(response))
      throw failureOfAnswer(code, `${exchange.url.origin} answers: ${message}`)
    }
    sent.forget()
    const lines = createInterface({ input: response, crlfDelay: Infinity })
    // Whoever stops reading ends the request, and nobody is left to be told that it was aborted.
    lines.on('error', () => undefined)
    for await (const line of lines) yield line
  } catch (error) {
    throw sent.failureOf(error)
  } finally {
    signal.removeEventListener('abort', end)
    sent.forget()
    sent.end('it is over')
  }
}

/** A request on its way. */
class Sent {
  readonly response: Promise<IncomingMessage>
  readonly #request: ClientRequest
  readonly #origin: string
  readonly #timer: NodeJS.Timeout
  #connected = false

  constructor({ url, agent, headers, body, timeoutMs }: Exchange) {
    const secure = url.protocol === 'https:'
    const options = {
      agent,
      method: 'POST',
      headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body), ...headers },
    }
    this.#origin = url.origin
    this.#request = secure ? httpsRequest(url, options) : httpRequest(url, options)
    this.response = new Promise((resolve, reject) => {
      this.#request.once('response', resolve)
      this.#request.on('error', reject)
    })
    this.response.catch(() => undefined)
    this.#request.once('socket', (socket) => {
      socket.setKeepAlive(true, KEEP_ALIVE_MS)
      const connected = (): void => {
        this.#connected = true
      }
      if (socket.connecting) socket.once(secure ? 'secureConnect' : 'connect', connected)
      else connected()
    })
    this.#timer = setTimeout(() => {
      this.end(`no answer within ${timeoutMs} ms`)
    }, timeoutMs)
    this.#request.end(body)
  }

  /** It is not bounded any more. */
  forget(): void {
    clearTimeout(this.#timer)
  }

  end(reason: string): void {
    this.#request.destroy(new Error(reason))
  }

  failureOf(error: unknown): EtcdFailure {
    if (error instanceof EtcdFailure) return error
    const { message, code } = error as NodeJS.ErrnoException
    const detail = message === '' ? (code ?? 'no answer') : message
    const outcome = this.#connected ? 'unknown' : 'notDone'
    return new EtcdFailure(`${this.#origin}: ${detail}`, { outcome, passing: true })
  }
}

async function readAll(response: IncomingMessage): Promise<string> {
  const pieces: Buffer[] = []
  let lengthBytes = 0
  for await (const piece of response) {
    if (!Buffer.isBuffer(piece)) continue
    lengthBytes += piece.length
    if (lengthBytes > ANSWER_BYTES_MAX) throw new RangeError('the answer is too long')
    pieces.push(piece)
  }
  return Buffer.concat(pieces).toString('utf8')
}
