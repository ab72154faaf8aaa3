/**
 * The verbs of a daemon, from another process. Each method is one request; what it resolves to is what the daemon said.
 * Failures are `ControlProblem` (refused, with the reason) and `ControlUnreachable`.
 */

import type { ExportDefinition, ExportStatus, OwnershipReport, StackReport } from '../exports/verbs.ts'
import type { AdoptOptions, CloseOptions, CloseOutcome, OpenOptions } from '../exports/verbs.ts'
import type { EvacuationOptions, EvacuationReport } from '../exports/verbs.ts'
import { isEndpoint, parseEndpoint } from '../foundation/endpoint.ts'
import type { Endpoint } from '../foundation/endpoint.ts'
import type { Receipt } from '../interlock/receipt.ts'
import type { RequestInspection } from '../plane-link/reports.ts'
import { followEvents } from './event-stream.ts'
import type { EventOptions, StreamEvent } from './event-stream.ts'
import { exchangeJson } from './http-exchange.ts'
import type { JsonAnswer } from './http-exchange.ts'
import { ControlProblem } from './problem.ts'

export interface CallOptions {
  /** Ends the waiting; what was begun goes on in the daemon. */
  readonly signal?: AbortSignal
}

export interface ChangeOptions extends CallOptions {
  /** The same request with the same key gets the same answer, so it can be sent again when the answer got lost. */
  readonly idempotencyKey?: string
}

/** `name` and `path` (absolute) are needed; everything else has the daemon's defaults. */
export type NewExport = Pick<ExportDefinition, 'name' | 'path'> &
  Partial<ExportDefinition> & {
    /** Accept the image as it is found. */
    readonly adopt?: boolean
  }
export type ClearOptions = Pick<OpenOptions, 'receipt' | 'takeover'>

/** Which image and which record a daemon sees, and the daemon's own version. */
export type OwnershipAnswer = OwnershipReport & { readonly version: string }

export interface RequestList {
  readonly requests: readonly RequestInspection[]
  readonly truncated: boolean
}

/** `url` is `unix:/path.sock` or `tcp:HOST:PORT`. Throws a TypeError where it is neither; connects with the first call. */
export function connect(url: string): ControlClient {
  const endpoint = parseEndpoint(url)
  if (!isEndpoint(endpoint)) throw new TypeError(endpoint.problem)
  return new ControlClient(endpoint)
}

export class ControlClient {
  readonly endpoint: Endpoint

  constructor(endpoint: Endpoint) {
    this.endpoint = endpoint
  }

  async list(options: CallOptions = {}): Promise<readonly ExportStatus[]> {
    const { body } = await this.#get('/v1/exports', options)
    return (body as { exports: readonly ExportStatus[] }).exports
  }

  async status(name: string, options: CallOptions = {}): Promise<ExportStatus> {
    const { body } = await this.#get(pathOf(name), options)
    return body as ExportStatus
  }

  async requests(name: string, options: CallOptions & { readonly limit?: number } = {}): Promise<RequestList> {
    const query = options.limit === undefined ? '' : `?limit=${options.limit}`
    const { body } = await this.#get(`${pathOf(name)}/requests${query}`, options)
    return body as RequestList
  }

  /** What is under the image of an export. */
  async stack(name: string, options: CallOptions = {}): Promise<StackReport> {
    const { body } = await this.#get(`${pathOf(name)}/stack`, options)
    return body as StackReport
  }

  /** What is under any image, seen from the daemon. `path` is absolute. */
  async check(path: string, options: CallOptions & { readonly timeoutMs?: number } = {}): Promise<StackReport> {
    const { timeoutMs, signal } = options
    const asked = { path, ...(timeoutMs !== undefined && { timeoutMs }) }
    const { body } = await this.#post('/v1/check', asked, signal === undefined ? {} : { signal })
    return body as StackReport
  }

  /** Which image and which record the daemon sees, now. */
  async ownership(name: string, options: CallOptions = {}): Promise<OwnershipAnswer> {
    const { body } = await this.#get(`${pathOf(name)}/ownership`, options)
    return body as OwnershipAnswer
  }

  /** The same, after the record was written anew where the export holds it: whoever shares its home sees that. */
  async renew(name: string, options: CallOptions = {}): Promise<OwnershipAnswer> {
    const { body } = await this.#post(`${pathOf(name)}/renew`, {}, options)
    return body as OwnershipAnswer
  }

  async add(definition: NewExport, options: ChangeOptions = {}): Promise<ExportStatus> {
    const { body } = await this.#postOnce('/v1/exports', definition, options)
    return body as ExportStatus
  }

  async remove(name: string, options: ChangeOptions = {}): Promise<void> {
    const once = { connection: 'own', ...exchangeOptions(options) } as const
    await exchangeJson(this.endpoint, { method: 'DELETE', path: pathOf(name), ...once })
  }

  /** `done` with the receipt; or not, when `wait` was false. Running out of time is a problem, `still-draining`. */
  async close(name: string, close: Partial<CloseOptions> = {}, options: ChangeOptions = {}): Promise<CloseOutcome> {
    const { status, body } = await this.#post(`${pathOf(name)}/close`, close, options)
    return status === 202 ? { done: false, status: body as ExportStatus } : { done: true, receipt: body as Receipt }
  }

  /**
   * Closes every export of the daemon. Resolves only where all have gone; else the problem, `still-draining` or
   * `evacuation-incomplete`, has the report: see `evacuationReportOf`.
   */
  async evacuate(options: Partial<EvacuationOptions> = {}, change: ChangeOptions = {}): Promise<EvacuationReport> {
    const { body } = await this.#post('/v1/evacuate', options, change)
    return body as EvacuationReport
  }

  async open(name: string, open: Partial<OpenOptions> = {}, options: ChangeOptions = {}): Promise<ExportStatus> {
    // A takeover fences a host.
    return open.takeover === true
      ? this.#verbOnce(name, 'open', open, options)
      : this.#verb(name, 'open', open, options)
  }

  async standby(name: string, options: ChangeOptions = {}): Promise<ExportStatus> {
    return this.#verb(name, 'standby', {}, options)
  }

  async clear(name: string, clear: Partial<ClearOptions> = {}, options: ChangeOptions = {}): Promise<ExportStatus> {
    return this.#verbOnce(name, 'clear', clear, options)
  }

  async adopt(name: string, adopt: Partial<AdoptOptions> = {}, options: ChangeOptions = {}): Promise<ExportStatus> {
    return this.#verb(name, 'adopt', adopt, options)
  }

  async fence(name: string, options: ChangeOptions = {}): Promise<ExportStatus> {
    return this.#verbOnce(name, 'fence', {}, options)
  }

  /** Resolves while the daemon serves; a problem of code `not-ready` says what it waits for. */
  async ready(options: CallOptions = {}): Promise<void> {
    await this.#get('/readyz', options)
  }

  /**
   * Events as they happen, across lost connections. The first thing that comes is `ready`: what happens from then on is
   * seen. `missed` says that events were lost, so that whoever keeps a state reads it again.
   */
  events(options: EventOptions = {}): AsyncGenerator<StreamEvent, void, undefined> {
    return followEvents(this.endpoint, options)
  }

  async #verb(name: string, verb: string, body: object, options: ChangeOptions): Promise<ExportStatus> {
    const answer = await this.#post(`${pathOf(name)}/${verb}`, body, options)
    return answer.body as ExportStatus
  }

  async #verbOnce(name: string, verb: string, body: object, options: ChangeOptions): Promise<ExportStatus> {
    const answer = await this.#postOnce(`${pathOf(name)}/${verb}`, body, options)
    return answer.body as ExportStatus
  }

  async #get(path: string, { signal }: CallOptions): Promise<JsonAnswer> {
    return exchangeJson(this.endpoint, { method: 'GET', path, connection: 'kept', signal })
  }

  /** For what answers the second time as it did the first, when both come at once. */
  async #post(path: string, body: object, options: ChangeOptions): Promise<JsonAnswer> {
    return exchangeJson(this.endpoint, { method: 'POST', path, body, connection: 'kept', ...exchangeOptions(options) })
  }

  /**
   * For what is refused the second time, or does harm. A key does not help: a daemon that was started again, which is when
   * a connection is lost, knows none.
   */
  async #postOnce(path: string, body: object, options: ChangeOptions): Promise<JsonAnswer> {
    return exchangeJson(this.endpoint, { method: 'POST', path, body, connection: 'own', ...exchangeOptions(options) })
  }
}

/** What an evacuation that is not complete has come to; null where the error is about something else. */
export function evacuationReportOf(error: unknown): EvacuationReport | null {
  if (!(error instanceof ControlProblem)) return null
  const { document } = error
  return 'report' in document ? (document.report ?? null) : null
}

function exchangeOptions({ idempotencyKey, signal }: ChangeOptions) {
  return { signal, headers: idempotencyKey === undefined ? {} : { 'idempotency-key': idempotencyKey } }
}

function pathOf(name: string): string {
  return `/v1/exports/${encodeURIComponent(name)}`
}
