/**
 * What all routes share: the answer to a request that changes something, which an Idempotency-Key makes repeatable, and
 * the answers that a route names in the description of the API.
 */

import { createHash } from 'node:crypto'
import type { IncomingHttpHeaders } from 'node:http'
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyBaseLogger, FastifyInstance, RawServerDefault } from 'fastify'
import type { RawReplyDefaultExpression, RawRequestDefaultExpression } from 'fastify'
import { Refusal, REFUSALS } from '../foundation/refusal.ts'
import type { RefusalCode } from '../foundation/refusal.ts'
import { LIMITS } from '../config/limits.ts'
import type { Answer, IdempotencyMemory } from './idempotency.ts'
import { PROBLEM_MEDIA_TYPE, problemOf, refusalOf } from './problem.ts'
import { ProblemDocument } from './schemas.ts'

export type ControlApp = FastifyInstance<
  RawServerDefault,
  RawRequestDefaultExpression,
  RawReplyDefaultExpression,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>

/** What `repeatable` needs of a request and its reply, whatever their schemas. */
interface ChangingRequest {
  readonly method: string
  readonly url: string
  readonly headers: IncomingHttpHeaders
  readonly body: unknown
}

interface Reply {
  code(status: number): unknown
  headers(values: Record<string, string>): unknown
  send(payload?: string): unknown
}

export const JSON_MEDIA_TYPE = 'application/json; charset=utf-8'

/** Runs what changes something, or gives the answer that the same request with the same key got before. */
export class Repeatable {
  readonly #memory: IdempotencyMemory

  constructor(memory: IdempotencyMemory) {
    this.#memory = memory
  }

  async answer<R extends Reply>(request: ChangingRequest, reply: R, run: () => Promise<Answer>): Promise<R> {
    const key = idempotencyKeyOf(request.headers)
    const answer =
      key === undefined
        ? await run()
        : await this.#memory.answer(key, fingerprintOf(request), () => answerOrRefusal(request.url, run))
    reply.code(answer.status)
    reply.headers(answer.headers)
    reply.send(answer.body === '' ? undefined : answer.body)
    return reply
  }
}

export function jsonAnswer(status: number, body: unknown, headers: Readonly<Record<string, string>> = {}): Answer {
  return { status, headers: { 'content-type': JSON_MEDIA_TYPE, ...headers }, body: JSON.stringify(body) }
}

export const noAnswer: Answer = { status: 204, headers: {}, body: '' }

/** A refusal is an outcome like any other, to be repeated to whoever asks again. A bug is not. */
async function answerOrRefusal(instance: string, run: () => Promise<Answer>): Promise<Answer> {
  try {
    return await run()
  } catch (error) {
    const { refusal, bug } = refusalOf(error)
    if (bug) throw error
    const problem = problemOf(refusal, instance)
    return { status: problem.status, headers: { 'content-type': PROBLEM_MEDIA_TYPE }, body: JSON.stringify(problem) }
  }
}

function idempotencyKeyOf(headers: IncomingHttpHeaders): string | undefined {
  const key = headers['idempotency-key']
  if (key === undefined) return undefined
  if (typeof key === 'string' && key !== '' && key.length <= LIMITS.idempotencyKeyBytesMax) return key
  throw new Refusal('bad-request', `An Idempotency-Key has 1 to ${LIMITS.idempotencyKeyBytesMax} characters.`)
}

function fingerprintOf(request: ChangingRequest): string {
  return createHash('sha256')
    .update(JSON.stringify([request.method, request.url, request.body]))
    .digest('base64')
}

/**
 * The `response` part of a route's schema: what it answers when all is well, and the refusals that belong to it. Every
 * route can also refuse as `bad-request` and `internal`. Untyped on purpose: answers are typed by the verbs.
 */
export function responses(success: Readonly<Record<number, object>>, ...codes: RefusalCode[]): unknown {
  const byStatus = new Map<number, RefusalCode[]>()
  for (const code of [...codes, 'bad-request', 'internal'] as const) {
    const { status } = REFUSALS[code]
    byStatus.set(status, [...(byStatus.get(status) ?? []), code])
  }
  const problems = [...byStatus].map(([status, statusCodes]) => [status, problemResponse(statusCodes)] as const)
  return { ...success, ...Object.fromEntries(problems) }
}

function problemResponse(codes: readonly RefusalCode[]): object {
  return {
    description: codes.map((code) => `\`${code}\`: ${REFUSALS[code].title}.`).join(' '),
    content: { 'application/problem+json': { schema: ProblemDocument } },
  }
}
