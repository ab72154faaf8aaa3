/**
 * The other end of a simulated connection: encodes requests, keeps what it has not sent yet, takes replies apart and
 * checks that each belongs to a request of its own that was not answered before. It knows NBD from the specification
 * and shares no code with the server.
 */

import { assert, present } from '../../src/foundation/assert.ts'
import type { ClientEnd } from './simulated-stream.ts'
import { REQUEST_MAGIC, SIMPLE_REPLY_MAGIC } from './nbd-numbers.ts'

export const COMMAND = { READ: 0, WRITE: 1, DISC: 2, FLUSH: 3, TRIM: 4, CACHE: 5, WRITE_ZEROES: 6 } as const
export const FLAG = { FUA: 1, NO_HOLE: 2, FAST_ZERO: 16 } as const
export const ERROR = { EPERM: 1, EIO: 5, EINVAL: 22, ENOSPC: 28, ENOTSUP: 95, ESHUTDOWN: 108 } as const

const REQUEST_BYTES = 28
const REPLY_BYTES = 16

export interface FrontendReply {
  readonly error: number
  readonly data: Uint8Array
}

export interface FrontendRequest {
  readonly cookie: number
  readonly command: number
  readonly flags: number
  readonly offset: number
  readonly length: number
  readonly payload: Uint8Array
  reply: FrontendReply | undefined
}

export interface RequestFields {
  readonly command: number
  readonly offset?: number
  /** By default that of the payload. */
  readonly length?: number
  readonly payload?: Uint8Array
  readonly flags?: number
}

export class SimulatedFrontend {
  readonly clientId: number
  /** By cookie, in the order in which they were made. */
  readonly requests = new Map<number, FrontendRequest>()
  onReply: (request: FrontendRequest) => void = () => undefined
  hasFinished = false
  isReading = true
  readonly #end: ClientEnd
  #outgoing = new Uint8Array(0)
  #incoming = new Uint8Array(0)

  constructor(end: ClientEnd, clientId: number) {
    this.#end = end
    this.clientId = clientId
  }

  get ended(): boolean {
    return this.#end.ended
  }

  /** Bytes that were made and not handed to the socket. */
  get unsentBytes(): number {
    return this.#outgoing.length
  }

  get unanswered(): FrontendRequest[] {
    return [...this.requests.values()].filter((request) => request.reply === undefined)
  }

  /** Makes a request; its bytes wait for `deliver`. */
  queue(fields: RequestFields): FrontendRequest {
    const payload = fields.payload ?? new Uint8Array(0)
    const request: FrontendRequest = {
      cookie: this.clientId * 0x10000 + this.requests.size + 1,
      command: fields.command,
      flags: fields.flags ?? 0,
      offset: fields.offset ?? 0,
      length: fields.length ?? payload.length,
      payload,
      reply: undefined,
    }
    if (fields.command !== COMMAND.DISC) this.requests.set(request.cookie, request)
    this.queueBytes(encodeRequest(request))
    this.queueBytes(payload)
    return request
  }

  queueBytes(bytes: Uint8Array): void {
    this.#outgoing = joined(this.#outgoing, bytes)
  }

  /** Takes bytes out of what would be delivered next: what the negotiation had read too far. */
  takeUnsent(count = this.#outgoing.length): Uint8Array {
    const taken = this.#outgoing.slice(0, count)
    this.#outgoing = this.#outgoing.slice(count)
    return taken
  }

  /** Hands bytes to the socket; all of them by default. */
  deliver(count = this.#outgoing.length): void {
    const bytes = this.takeUnsent(count)
    if (!this.hasFinished) this.#end.send(bytes)
  }

  /** Makes a request and delivers all there is. */
  send(fields: RequestFields): FrontendRequest {
    const request = this.queue(fields)
    this.deliver()
    return request
  }

  write(offset: number, payload: Uint8Array, flags = 0): FrontendRequest {
    return this.send({ command: COMMAND.WRITE, offset, payload, flags })
  }

  read(offset: number, length: number): FrontendRequest {
    return this.send({ command: COMMAND.READ, offset, length })
  }

  setReading(reading: boolean): void {
    this.isReading = reading
    this.#end.setReading(reading)
  }

  /** Sends no more, and still reads. */
  finish(): void {
    this.hasFinished = true
    this.#end.finish()
  }

  close(): void {
    this.hasFinished = true
    this.#end.close()
  }

  reset(): void {
    this.hasFinished = true
    this.#end.reset()
  }

  /** Takes what has arrived. Each reply must be to a request that was not answered yet. */
  poll(): void {
    this.#incoming = joined(this.#incoming, this.#end.received())
    for (let reply = this.#nextReply(); reply !== undefined; reply = this.#nextReply()) this.onReply(reply)
  }

  #nextReply(): FrontendRequest | undefined {
    const bytes = this.#incoming
    if (bytes.length < REPLY_BYTES) return undefined
    const view = new DataView(bytes.buffer, bytes.byteOffset)
    assert(view.getUint32(0) === SIMPLE_REPLY_MAGIC, `client ${this.clientId}: a reply begins with its magic`)
    const error = view.getUint32(4)
    const cookie = Number(view.getBigUint64(8))
    const request = present(this.requests.get(cookie), `client ${this.clientId}: a request with cookie ${cookie}`)
    assert(request.reply === undefined, `client ${this.clientId}: cookie ${cookie} is answered once`)
    const dataBytes = request.command === COMMAND.READ && error === 0 ? request.length : 0
    if (bytes.length < REPLY_BYTES + dataBytes) return undefined
    request.reply = { error, data: bytes.slice(REPLY_BYTES, REPLY_BYTES + dataBytes) }
    this.#incoming = bytes.slice(REPLY_BYTES + dataBytes)
    return request
  }
}

export function encodeRequest(request: Omit<FrontendRequest, 'payload' | 'reply'>): Uint8Array {
  const bytes = new Uint8Array(REQUEST_BYTES)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, REQUEST_MAGIC)
  view.setUint16(4, request.flags)
  view.setUint16(6, request.command)
  view.setBigUint64(8, BigInt(request.cookie))
  view.setBigUint64(16, BigInt(request.offset))
  view.setUint32(24, request.length)
  return bytes
}

/** Bytes of one value, for payloads that can be told apart. */
export function filled(lengthBytes: number, value: number): Uint8Array {
  return new Uint8Array(lengthBytes).fill(value)
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array<ArrayBuffer> {
  const both = new Uint8Array(a.length + b.length)
  both.set(a)
  both.set(b, a.length)
  return both
}
