/**
 * The two ways in which a call can fail: the daemon refused it and says why (`ControlProblem`), or no answer of a daemon
 * came back (`ControlUnreachable`). After the second nobody knows whether the request was carried out; sending it again
 * with the same idempotency key is the way to find out.
 */

import type { RefusalCode } from '../foundation/refusal.ts'
import type { ExportState, Verb } from '../interlock/lifecycle.ts'
import type { EvacuationReport } from '../exports/verbs.ts'
import type { FenceReport, Holder } from '../interlock/receipt.ts'
import type { PhaseCounts } from '../plane-link/reports.ts'

/** What some codes add to the standard members. Absent where the daemon had nothing to say. */
interface AddedMembers {
  readonly 'bad-request': { readonly errors?: readonly { readonly pointer?: string; readonly detail?: string }[] }
  readonly 'wrong-state': { readonly export?: string; readonly state?: ExportState; readonly verb?: Verb }
  readonly 'still-draining': {
    readonly outstanding?: PhaseCounts
    readonly orphans?: number
    readonly state?: ExportState
    readonly step?: string
    readonly elapsedMs?: number
    /** Of `evacuate`. */
    readonly report?: EvacuationReport
  }
  readonly 'held-by-other': Held
  readonly 'image-in-use': Held
  readonly 'evacuation-incomplete': { readonly report?: EvacuationReport }
  readonly 'takeover-failed': { readonly fence?: FenceReport }
}

/** Who stands in the way. */
interface Held {
  readonly holder?: Holder & { readonly name: string }
  readonly generation?: number
  readonly recordState?: string
}

/** A problem document (RFC 9457) of the control API: `code` decides which further members it may have. */
export type Problem = {
  [Code in RefusalCode]: {
    readonly type: string
    readonly title: string
    readonly status: number
    readonly detail: string
    readonly instance: string
    readonly code: Code
  } & (Code extends keyof AddedMembers ? AddedMembers[Code] : unknown)
}[RefusalCode]

/** A problem document of the control API, thrown. */
export class ControlProblem extends Error {
  override readonly name = 'ControlProblem'
  readonly code: RefusalCode
  readonly status: number
  readonly title: string
  readonly detail: string
  readonly instance: string
  /** The whole document, with what this code adds to the standard members. */
  readonly document: Problem

  constructor(document: Readonly<Record<string, unknown>>, status: number) {
    const title = textOf(document['title'], `the daemon answered ${status}`)
    const detail = textOf(document['detail'], '')
    super(detail === '' ? title : detail)
    this.code = textOf(document['code'], 'internal') as RefusalCode
    this.status = status
    this.title = title
    this.detail = detail
    this.instance = textOf(document['instance'], '')
    this.document = document as unknown as Problem
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
