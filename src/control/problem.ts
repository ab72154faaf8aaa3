/**
 * Every error of the API as a problem document (RFC 9457): type, title, status, detail, instance, our code, and what the
 * refusal adds. A `Refusal` is told as it is; what the HTTP library refuses is mapped to one; anything else is a bug,
 * whose details go to the log and not to the caller.
 */

import { STATUS_CODES } from 'node:http'
import type { FastifyError } from 'fastify'
import { Refusal, REFUSALS } from '../foundation/refusal.ts'
import type { RefusalCode } from '../foundation/refusal.ts'

export const PROBLEM_MEDIA_TYPE = 'application/problem+json; charset=utf-8'

export interface Problem {
  readonly type: string
  readonly title: string
  readonly status: number
  readonly detail: string
  readonly instance: string
  readonly code: RefusalCode
  readonly [member: string]: unknown
}

export function problemOf(refusal: Refusal, instance: string): Problem {
  const { status, title } = REFUSALS[refusal.code]
  const standard = { type: `urn:interlockd:problem:${refusal.code}`, title, status, detail: refusal.message, instance }
  // The members come first so that none of them can replace what the standard defines.
  return { ...refusal.members, ...standard, code: refusal.code }
}

/** What to answer, and whether it has to be logged as a bug of ours. */
export function refusalOf(error: unknown): { readonly refusal: Refusal; readonly bug: boolean } {
  if (error instanceof Refusal) return { refusal: error, bug: false }
  if (isFastifyError(error)) {
    const refusal = ofFastify(error)
    if (refusal !== undefined) return { refusal, bug: false }
  }
  return { refusal: new Refusal('internal', 'The cause is in the log of the daemon.'), bug: true }
}

function ofFastify(error: FastifyError): Refusal | undefined {
  if (error.validation !== undefined) return ofValidation(error)
  switch (error.statusCode) {
    case 400:
      return new Refusal('bad-request', error.message)
    case 413:
      return new Refusal('body-too-large', error.message)
    case 414:
      return new Refusal('not-found', error.message)
    case 415:
      return new Refusal('media-type', 'A body is sent with content-type: application/json.')
    default:
      return undefined
  }
}

/** Each error with the JSON pointer of what is wrong; unknown members are named. */
function ofValidation(error: FastifyError): Refusal {
  const part = error.validationContext ?? 'request'
  const errors = (error.validation ?? []).map(({ instancePath, message, params }) => {
    const names = Object.values(params).flat().map(String).join(', ')
    const problem = message ?? 'is not valid'
    return { pointer: instancePath, detail: names === '' ? problem : `${problem}: ${names}` }
  })
  const first = errors[0]
  const detail = first === undefined ? error.message : `${part}${first.pointer} ${first.detail}`
  return new Refusal('bad-request', detail, { in: part, errors })
}

/** An answer for bytes that are not HTTP at all, where no request and no reply exist. */
export function rawBadRequest(): string {
  const refusal = new Refusal('bad-request', 'What was sent is not an HTTP request.')
  const body = JSON.stringify(problemOf(refusal, ''))
  return [
    `HTTP/1.1 400 ${STATUS_CODES[400] ?? ''}`,
    `content-type: ${PROBLEM_MEDIA_TYPE}`,
    `content-length: ${Buffer.byteLength(body)}`,
    'connection: close',
    '',
    body,
  ].join('\r\n')
}

function isFastifyError(error: unknown): error is FastifyError {
  return error instanceof Error && 'statusCode' in error && 'code' in error
}
