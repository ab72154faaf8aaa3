/**
 * Server-sent events: every reader of `GET /v1/events`, fed from one subscription. A reader that leaves too much unread
 * is cut, so that it costs bounded memory and delays nobody; it comes back with Last-Event-ID and gets what the ring
 * still holds. Comments as heartbeats let both ends find out about a dead connection.
 */

import type { ServerResponse } from 'node:http'
import type { ExportEvent, ExportVerbs } from '../exports/verbs.ts'
import { LIMITS } from '../config/limits.ts'
import { Refusal } from '../foundation/refusal.ts'
import { EventRing } from './event-ring.ts'
import type { NumberedEvent } from './event-ring.ts'

export interface EventReader {
  /** Undefined: all exports. */
  readonly exportName: string | undefined
  readonly lastEventId: string | undefined
}

export interface EventBounds {
  readonly kept: number
  readonly keptBytes: number
  readonly streams: number
  readonly backlogBytes: number
  readonly heartbeatMs: number
}

const BOUNDS: EventBounds = {
  kept: LIMITS.eventsKeptMax,
  keptBytes: LIMITS.eventsKeptBytesMax,
  streams: LIMITS.eventStreamsMax,
  backlogBytes: LIMITS.eventBacklogBytesMax,
  heartbeatMs: LIMITS.eventHeartbeatMs,
}

export class EventStreams {
  readonly #ring: EventRing
  readonly #bounds: EventBounds
  readonly #streams = new Map<ServerResponse, EventReader>()
  readonly #unsubscribe: () => void
  readonly #heartbeat: NodeJS.Timeout

  constructor(verbs: Pick<ExportVerbs, 'subscribe'>, run: string, bounds: EventBounds = BOUNDS) {
    this.#bounds = bounds
    this.#ring = new EventRing(run, bounds.kept, bounds.keptBytes)
    this.#unsubscribe = verbs.subscribe((event) => {
      this.#publish(event)
    })
    this.#heartbeat = setInterval(() => {
      for (const response of this.#streams.keys()) this.#write(response, ': heartbeat\n\n')
    }, bounds.heartbeatMs)
    this.#heartbeat.unref()
  }

  get count(): number {
    return this.#streams.size
  }

  /** Throws a Refusal when there are too many; then nothing was written to the response. */
  checkRoom(): void {
    if (this.#streams.size < this.#bounds.streams) return
    throw new Refusal('busy', `There are ${this.#streams.size} event streams already.`)
  }

  /** The response is this stream's from here on. */
  attach(response: ServerResponse, reader: EventReader): void {
    response.writeHead(200, {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-store',
      'x-accel-buffering': 'no',
    })
    this.#streams.set(response, reader)
    response.once('close', () => this.#streams.delete(response))
    response.on('error', () => this.#streams.delete(response))
    this.#write(response, this.#greeting(reader))
  }

  close(): void {
    clearInterval(this.#heartbeat)
    this.#unsubscribe()
    for (const response of this.#streams.keys()) response.end()
    this.#streams.clear()
  }

  /** A first id, so that even a reader that saw no event can come back; then what it missed. */
  #greeting(reader: EventReader): string {
    if (reader.lastEventId === undefined) return `retry: 1000\nid: ${this.#ring.lastId}\nevent: ready\ndata: {}\n\n`
    const replay = this.#ring.since(reader.lastEventId)
    const texts = replay.events.filter((numbered) => concerns(reader, numbered)).map(({ text }) => text)
    const missed = replay.missed ? `event: missed\ndata: {}\n\n` : ''
    return `retry: 1000\n\n${missed}${texts.join('')}id: ${this.#ring.lastId}\nevent: ready\ndata: {}\n\n`
  }

  #publish(event: ExportEvent): void {
    const numbered = this.#ring.add(event)
    for (const [response, reader] of this.#streams) {
      if (concerns(reader, numbered)) this.#write(response, numbered.text)
    }
  }

  #write(response: ServerResponse, text: string): void {
    response.write(text)
    if (response.writableLength <= this.#bounds.backlogBytes) return
    this.#streams.delete(response)
    response.destroy()
  }
}

function concerns(reader: EventReader, { event }: NumberedEvent): boolean {
  return reader.exportName === undefined || reader.exportName === event.export
}
