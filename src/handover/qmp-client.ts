/**
 * One connection to a QEMU's monitor: commands with their answers, and events as they come. What goes wrong is a value,
 * because whoever drives a migration decides by it: QEMU refused (and nothing happened), or it did not answer (and nobody
 * knows). A monitor talks to one client at a time; the next one waits without a word, which is why the greeting has a
 * time limit.
 *
 * 1. Each command has exactly one answer, also when the connection is lost while it waits.
 * 2. An event is seen by every subscription that existed when it arrived, in order.
 */

import { createConnection } from 'node:net'
import type { Socket } from 'node:net'
import { formatEndpoint } from '../foundation/endpoint.ts'
import type { Endpoint } from '../foundation/endpoint.ts'
import { QmpParser, formatQmpCommand } from './qmp-message.ts'
import type { QmpEvent, QmpMessage } from './qmp-message.ts'

export type QmpProblem =
  /** QEMU answered that it will not; nothing has changed. */
  | { readonly kind: 'refused'; readonly class: string; readonly detail: string }
  /**
   * There is no connection any more, or there never was: whether the command was carried out is unknown. That nobody
   * listens is said of a connection that was refused: no QEMU has this monitor.
   */
  | { readonly kind: 'lost'; readonly detail: string; readonly nobodyListens: boolean }
  /** No answer within the time; it may still be carried out. */
  | { readonly kind: 'silent'; readonly detail: string }

export type QmpOutcome<Value> =
  { readonly ok: true; readonly value: Value } | { readonly ok: false; readonly problem: QmpProblem }

export interface ReceivedEvent extends QmpEvent {
  /** performance.now() when it arrived here. */
  readonly arrivedMs: number
}

const ANSWER_TIMEOUT_MS = 30_000
const GREETING_TIMEOUT_MS = 10_000
/** A subscription that is so far behind has nobody who reads it. */
const EVENTS_WAITING_MAX = 10_000

/** Connects, reads the greeting and leaves the negotiation mode. */
export async function connectQmp(endpoint: Endpoint, timeoutMs = GREETING_TIMEOUT_MS): Promise<QmpOutcome<QmpClient>> {
  const client = new QmpClient(endpoint)
  const greeting = await client.greeted(timeoutMs)
  const ready = greeting.ok ? await client.execute('qmp_capabilities', {}, timeoutMs) : greeting
  if (ready.ok) return { ok: true, value: client }
  client.close()
  return ready
}

type Answer = QmpOutcome<unknown>

export class QmpClient {
  readonly endpoint: Endpoint
  readonly #socket: Socket
  readonly #parser = new QmpParser()
  readonly #waiting = new Map<number, (answer: Answer) => void>()
  readonly #subscriptions = new Set<EventQueue>()
  #lastId = 0
  #version = ''
  #greet: (answer: Answer) => void = () => undefined
  readonly #greeting: Promise<Answer>
  #lost: QmpProblem | null = null

  constructor(endpoint: Endpoint) {
    this.endpoint = endpoint
    this.#greeting = new Promise((resolve) => {
      this.#greet = resolve
    })
    this.#socket = createConnection(
      endpoint.scheme === 'unix' ? { path: endpoint.path } : { host: endpoint.host, port: endpoint.port },
    )
    this.#socket.setKeepAlive(true, 5_000)
    this.#socket.on('data', (bytes) => {
      for (const message of this.#parser.push(Buffer.from(bytes))) this.#take(message)
    })
    this.#socket.on('error', (error: NodeJS.ErrnoException) => {
      this.#lose(error.message, error.code === 'ECONNREFUSED' || error.code === 'ENOENT')
    })
    this.#socket.on('close', () => {
      this.#lose('QEMU closed the connection')
    })
  }

  /** Such as `7.2.22`. */
  get version(): string {
    return this.#version
  }

  /** Why nothing can be asked any more, or null. */
  get lost(): QmpProblem | null {
    return this.#lost
  }

  greeted(timeoutMs: number): Promise<Answer> {
    const hint = 'no greeting: another client may have this monitor'
    return this.#within(this.#greeting, timeoutMs, hint)
  }

  /** The value is what the command returns; its shape is for the caller to know. */
  async execute(
    name: string,
    commandArguments: Readonly<Record<string, unknown>> = {},
    timeoutMs = ANSWER_TIMEOUT_MS,
  ): Promise<Answer> {
    if (this.#lost !== null) return { ok: false, problem: this.#lost }
    this.#lastId += 1
    const id = this.#lastId
    const answered = new Promise<Answer>((resolve) => {
      this.#waiting.set(id, resolve)
    })
    this.#socket.write(formatQmpCommand(name, id, commandArguments))
    const answer = await this.#within(answered, timeoutMs, `no answer to ${name}`)
    this.#waiting.delete(id)
    return answer
  }

  /** What arrives from this call on; it ends with the connection, or when the reader leaves. */
  events(): AsyncGenerator<ReceivedEvent, void, undefined> {
    const queue = new EventQueue()
    if (this.#lost === null) this.#subscriptions.add(queue)
    else queue.end()
    return this.#follow(queue)
  }

  close(): void {
    this.#lose('this side closed the connection')
    this.#socket.destroy()
  }

  async *#follow(queue: EventQueue): AsyncGenerator<ReceivedEvent, void, undefined> {
    try {
      for (let event = await queue.next(); event !== null; event = await queue.next()) yield event
    } finally {
      this.#subscriptions.delete(queue)
    }
  }

  #take(message: QmpMessage): void {
    switch (message.kind) {
      case 'greeting':
        this.#version = message.version
        this.#greet({ ok: true, value: null })
        return
      case 'value':
        this.#answer(message.id, { ok: true, value: message.value })
        return
      case 'refusal': {
        const { class: kind, description } = message.refusal
        this.#answer(message.id, { ok: false, problem: { kind: 'refused', class: kind, detail: description } })
        return
      }
      case 'event': {
        const { name, data } = message
        const event = { name, data, arrivedMs: performance.now() }
        for (const queue of this.#subscriptions) {
          if (!queue.push(event)) this.#subscriptions.delete(queue)
        }
        return
      }
      case 'malformed':
        this.#lose(`what answers is no monitor: ${message.detail}`)
        this.#socket.destroy()
    }
  }

  #answer(id: number | null, answer: Answer): void {
    // Late answers find nobody; those without an id answer a line that was not ours.
    if (id !== null) this.#waiting.get(id)?.(answer)
  }

  #lose(why: string, nobodyListens = false): void {
    if (this.#lost !== null) return
    const problem = { kind: 'lost', detail: `${formatEndpoint(this.endpoint)}: ${why}`, nobodyListens } as const
    this.#lost = problem
    this.#greet({ ok: false, problem })
    for (const resolve of this.#waiting.values()) resolve({ ok: false, problem })
    for (const queue of this.#subscriptions) queue.end()
  }

  async #within(answer: Promise<Answer>, timeoutMs: number, what: string): Promise<Answer> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<Answer>((resolve) => {
      timer = setTimeout(() => {
        const detail = `${formatEndpoint(this.endpoint)}: ${what} within ${timeoutMs} ms`
        resolve({ ok: false, problem: { kind: 'silent', detail } })
      }, timeoutMs)
    })
    const first = await Promise.race([answer, late])
    clearTimeout(timer)
    return first
  }
}

/** Events between the socket and one reader. */
class EventQueue {
  readonly #events: ReceivedEvent[] = []
  #ended = false
  #wake: () => void = () => undefined

  /** False when it takes no more: its reader has fallen too far behind. */
  push(event: ReceivedEvent): boolean {
    if (this.#events.length >= EVENTS_WAITING_MAX) this.#ended = true
    else this.#events.push(event)
    this.#wake()
    return !this.#ended
  }

  end(): void {
    this.#ended = true
    this.#wake()
  }

  /** Null at the end. */
  async next(): Promise<ReceivedEvent | null> {
    for (;;) {
      const event = this.#events.shift()
      if (event !== undefined) return event
      if (this.#ended) return null
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }
}
