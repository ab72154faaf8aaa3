/**
 * A frontend that a test controls to the byte: it negotiates (fixed newstyle, NBD_OPT_GO), sends each request by hand,
 * gives each reply as a promise of its own, stops reading, drops its connection at any moment, and keeps a shadow ring
 * of what was not answered, so that it can reissue it elsewhere. It is written from the protocol's specification and
 * shares no code with the server it is used against.
 *
 * A connection that ends leaves its unanswered requests pending for ever: whoever waits for them sets a deadline.
 */

import { connect } from 'node:net'
import type { Socket } from 'node:net'
import type { Scratch } from './scratch.ts'
import {
  OPTION_GO,
  OPTION_MAGIC,
  OPTION_REPLY_MAGIC,
  REPLY_ACK,
  REPLY_INFO,
  REQUEST_MAGIC,
  SIMPLE_REPLY_MAGIC,
} from './nbd-numbers.ts'

export const COMMANDS = { READ: 0, WRITE: 1, DISC: 2, FLUSH: 3, TRIM: 4, CACHE: 5, WRITE_ZEROES: 6 } as const
export type Command = keyof typeof COMMANDS

export const FLAG_FUA = 1
export const FLAG_NO_HOLE = 2
export const FLAG_FAST_ZERO = 16

/** Errors of NBD replies, by the names of the specification. */
export const NBD_ERRORS = {
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const

export type ServerAddress = { readonly path: string } | { readonly port: number; readonly host?: string }

export interface RequestFields {
  readonly offset?: number
  /** Bytes; by default as many as there are data. */
  readonly length?: number
  readonly data?: Uint8Array
  readonly flags?: number
}

export interface Reply {
  readonly error: number
  readonly data: Buffer
  /** Date.now(), rounded up: what the server did before its answer is never taken to have come after it. */
  readonly arrivedMs: number
}

/** A request that was sent: it stays in the shadow ring until its reply has come. */
export interface SentRequest {
  readonly cookie: bigint
  readonly command: Command
  readonly fields: RequestFields
  readonly sentMs: number
  readonly reply: Promise<Reply>
}

interface Outstanding {
  readonly sent: SentRequest
  readonly resolve: (reply: Reply) => void
}

const INFO_EXPORT = 0

/** The server said no to NBD_OPT_GO. `type` is the type of its reply, `message` what it said. */
export class NegotiationRefused extends Error {
  override readonly name = 'NegotiationRefused'
  readonly type: number

  constructor(type: number, message: string) {
    super(message)
    this.type = type
  }
}

export class NbdFrontend {
  readonly #socket: Socket
  readonly #outstanding = new Map<bigint, Outstanding>()
  #heard: Buffer = Buffer.alloc(0)
  #arrived: () => void = () => undefined
  #transmitting = false
  #cookies = 0n
  #ended = false
  /** Resolves when the connection has ended, whoever ended it. */
  readonly ended: Promise<void>
  sizeBytes = 0
  transmissionFlags = 0

  constructor(socket: Socket) {
    this.#socket = socket
    socket.on('data', (bytes) => {
      this.#heard = Buffer.concat([this.#heard, bytes])
      if (this.#transmitting) this.#takeReplies()
      this.#arrived()
    })
    socket.on('error', () => undefined)
    this.ended = new Promise((resolve) => {
      socket.on('close', () => {
        this.#ended = true
        this.#arrived()
        resolve()
      })
    })
  }

  get isOpen(): boolean {
    return !this.#ended
  }

  /** What was sent and not answered, oldest first. */
  get shadowRing(): SentRequest[] {
    return [...this.#outstanding.values()].map(({ sent }) => sent)
  }

  /** Goes through the negotiation up to transmission. Used by `connectFrontend`. */
  async negotiate(exportName: string): Promise<void> {
    const greeting = await this.#take(18)
    if (greeting.toString('latin1', 0, 16) !== 'NBDMAGICIHAVEOPT')
      throw new Error('the server does not speak newstyle NBD')
    const clientFlags = Buffer.alloc(4)
    clientFlags.writeUInt32BE(greeting.readUInt16BE(16) & 3)
    const name = Buffer.from(exportName)
    const option = Buffer.alloc(16 + 4 + name.length + 2)
    option.writeBigUInt64BE(OPTION_MAGIC, 0)
    option.writeUInt32BE(OPTION_GO, 8)
    option.writeUInt32BE(4 + name.length + 2, 12)
    option.writeUInt32BE(name.length, 16)
    name.copy(option, 20)
    this.#socket.write(Buffer.concat([clientFlags, option]))
    for (;;) {
      const header = await this.#take(20)
      if (header.readBigUInt64BE(0) !== OPTION_REPLY_MAGIC)
        throw new Error('the server sent a reply without its magic number')
      const type = header.readUInt32BE(12)
      const payload = await this.#take(header.readUInt32BE(16))
      if (type === REPLY_ACK) break
      if (type !== REPLY_INFO) throw new NegotiationRefused(type, payload.toString('utf8'))
      if (payload.readUInt16BE(0) !== INFO_EXPORT) continue
      this.sizeBytes = Number(payload.readBigUInt64BE(2))
      this.transmissionFlags = payload.readUInt16BE(10)
    }
    this.#transmitting = true
    this.#takeReplies()
  }

  send(command: Command, fields: RequestFields = {}): SentRequest {
    const sent = this.expect(command, fields)
    this.#socket.write(encodeRequest(command, sent.cookie, fields))
    return sent
  }

  /** Makes a cookie and waits for its reply, without sending anything: for requests whose bytes the test makes itself. */
  expect(command: Command, fields: RequestFields = {}): SentRequest {
    this.#cookies += 1n
    let resolve: (reply: Reply) => void = () => undefined
    const reply = new Promise<Reply>((done) => {
      resolve = done
    })
    const sent = { cookie: this.#cookies, command, fields, sentMs: Date.now(), reply }
    if (command !== 'DISC') this.#outstanding.set(sent.cookie, { sent, resolve })
    return sent
  }

  /** Sends bytes as they are: half a request, or nonsense. */
  sendBytes(bytes: Uint8Array): void {
    this.#socket.write(bytes)
  }

  /** Sends the request and waits for its reply, which must come before the deadline and without an error. */
  async request(command: Command, fields: RequestFields = {}, timeoutMs = 10_000): Promise<Reply> {
    const reply = await answerWithin(this.send(command, fields), timeoutMs)
    if (reply.error !== 0) throw new Error(`${command} at ${fields.offset ?? 0} was answered with error ${reply.error}`)
    return reply
  }

  write(offset: number, data: Uint8Array): SentRequest {
    return this.send('WRITE', { offset, data })
  }

  async read(offset: number, length: number, timeoutMs = 10_000): Promise<Buffer> {
    return (await this.request('READ', { offset, length }, timeoutMs)).data
  }

  /** Sends again, on this connection, what another one never had answered; in the order in which it was sent there. */
  reissue(from: NbdFrontend): SentRequest[] {
    return from.shadowRing.map(({ command, fields }) => this.send(command, fields))
  }

  /** From now on nothing is taken from the connection: the server's answers pile up. */
  stopReading(): void {
    this.#socket.pause()
  }

  resumeReading(): void {
    this.#socket.resume()
  }

  /** Ends the connection at once, by a reset where the transport has one. */
  drop(): void {
    if (this.#socket.remoteFamily === undefined) this.#socket.destroy()
    else this.#socket.resetAndDestroy()
  }

  /** Ends the connection as the protocol wants it, and waits for the server to close. */
  async disconnect(): Promise<void> {
    this.send('DISC')
    this.#socket.end()
    await this.ended
  }

  #takeReplies(): void {
    while (this.#heard.length >= 16) {
      if (this.#heard.readUInt32BE(0) !== SIMPLE_REPLY_MAGIC) {
        this.#socket.destroy(new Error('the server sent a reply without its magic number'))
        return
      }
      const error = this.#heard.readUInt32BE(4)
      const cookie = this.#heard.readBigUInt64BE(8)
      const waiting = this.#outstanding.get(cookie)
      if (waiting === undefined) throw new Error(`the server answered cookie ${cookie}, which nobody sent`)
      const { command, fields } = waiting.sent
      const dataLength = command === 'READ' && error === 0 ? (fields.length ?? 0) : 0
      if (this.#heard.length < 16 + dataLength) return
      const data = Buffer.from(this.#heard.subarray(16, 16 + dataLength))
      this.#heard = this.#heard.subarray(16 + dataLength)
      this.#outstanding.delete(cookie)
      waiting.resolve({ error, data, arrivedMs: Date.now() + 1 })
    }
  }

  async #take(length: number): Promise<Buffer> {
    while (this.#heard.length < length) {
      if (this.#ended) throw new Error('the server ended the connection during the negotiation')
      await new Promise<void>((resolve) => {
        this.#arrived = resolve
      })
    }
    const bytes = this.#heard.subarray(0, length)
    this.#heard = this.#heard.subarray(length)
    return bytes
  }
}

export function encodeRequest(command: Command, cookie: bigint, fields: RequestFields): Buffer {
  const data = fields.data ?? new Uint8Array(0)
  const header = Buffer.alloc(28)
  header.writeUInt32BE(REQUEST_MAGIC, 0)
  header.writeUInt16BE(fields.flags ?? 0, 4)
  header.writeUInt16BE(COMMANDS[command], 6)
  header.writeBigUInt64BE(cookie, 8)
  header.writeBigUInt64BE(BigInt(fields.offset ?? 0), 16)
  header.writeUInt32BE(fields.length ?? data.length, 24)
  return Buffer.concat([header, data])
}

/** A frontend in transmission. Its connection ends with the scratch. */
export async function connectFrontend(
  scratch: Scratch,
  address: ServerAddress,
  exportName: string,
): Promise<NbdFrontend> {
  const socket = connect('path' in address ? address : { host: '127.0.0.1', ...address })
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve)
    socket.once('error', reject)
  })
  socket.setNoDelay(true)
  const frontend = new NbdFrontend(socket)
  scratch.defer('connection of a frontend', () => {
    socket.destroy()
  })
  await frontend.negotiate(exportName)
  return frontend
}

/** The reply, or a failure that names the request. */
export async function answerWithin(sent: SentRequest, timeoutMs: number): Promise<Reply> {
  const reply = await answerOrNone(sent, timeoutMs)
  if (reply === undefined)
    throw new Error(`${sent.command} at ${sent.fields.offset ?? 0} was not answered within ${timeoutMs} ms`)
  return reply
}

/** The reply, or undefined when none has come in that time. */
export async function answerOrNone(sent: SentRequest, timeoutMs: number): Promise<Reply | undefined> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => {
      resolve(undefined)
    }, timeoutMs)
  })
  try {
    return await Promise.race([sent.reply, late])
  } finally {
    clearTimeout(timer)
  }
}

/** A block whose every eight bytes say the same number: what is torn or mixed shows. */
export function numberedBlock(number: number, length = 4_096): Buffer {
  const block = Buffer.alloc(length)
  for (let position = 0; position + 8 <= length; position += 8) block.writeBigUInt64LE(BigInt(number), position)
  return block
}

/** The number of a block, or undefined when it is not one number throughout. */
export function blockNumber(block: Buffer): number | undefined {
  const number = block.readBigUInt64LE(0)
  for (let position = 8; position + 8 <= block.length; position += 8) {
    if (block.readBigUInt64LE(position) !== number) return undefined
  }
  return Number(number)
}
