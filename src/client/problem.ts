/**
 * The two ways in which a call can fail: the daemon refused it and says why (`ControlProblem`), or no answer of a daemon
 * came back (`ControlUnreachable`). After the second nobody knows whether the request was carried out; sending it again
 * with the same idempotency key is the way to find out.
 */

import type { RefusalCode } from '../foundation/refusal.ts'

/** A problem document of the control API. */
export class ControlProblem extends Error {
  override readonly name = 'ControlProblem'
  readonly code: RefusalCode
  readonly status: number
  readonly title: string
  readonly detail: string
  readonly instance: string
  /** The whole document, with what this code adds to the standard members. */
  readonly document: Readonly<Record<string, unknown>>

  constructor(document: Readonly<Record<string, unknown>>, status: number) {
    const title = textOf(document['title'], `the daemon answered ${status}`)
    const detail = textOf(document['detail'], '')
    super(detail === '' ? title : detail)
    this.code = textOf(document['code'], 'internal') as RefusalCode
    this.status = status
    this.title = title
    this.detail = detail
    this.instance = textOf(document['instance'], '')
    this.document = document
  }
}

export class ControlUnreachable extends Error {
  override readonly name = 'ControlUnreachable'
  /** As of the system, such as ENOENT or ECONNREFUSED; undefined where something answered, but no daemon. */
  readonly code: string | undefined

  constructor(url: string, cause: unknown) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    super(`no daemon answers at ${url}: ${reason}`, { cause })
    this.code = cause instanceof Error && 'code' in cause ? String(cause.code) : undefined
  }
}

function textOf(value: unknown, otherwise: string): string {
  return typeof value === 'string' ? value : otherwise
}
