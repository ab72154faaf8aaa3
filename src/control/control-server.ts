/**
 * The control server: one application, any number of listening sockets. Unix sockets are made so that only their owner
 * and group reach them; TCP is for loopback. `close` stops accepting, lets answers under way go out for a bounded time,
 * and cuts the rest; it does not touch the exports.
 */

import { createServer } from 'node:http'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { FastifyBaseLogger } from 'fastify'
import { LIMITS } from '../config/limits.ts'
import type { ExportVerbs } from '../exports/verbs.ts'
import { assert } from '../foundation/assert.ts'
import { formatEndpoint } from '../foundation/endpoint.ts'
import type { Endpoint } from '../foundation/endpoint.ts'
import { Refusal } from '../foundation/refusal.ts'
import { buildControlApp } from './control-app.ts'
import { listenOnSocket } from './control-socket.ts'
import type { RemoveSocket } from './control-socket.ts'
import type { DaemonFacts } from './daemon-facts.ts'
import { EventStreams } from './event-streams.ts'
import { Metrics } from './metrics.ts'
import { rawBadRequest } from './problem.ts'
import type { ControlApp } from './route-kit.ts'

export interface ControlServerParts {
  readonly verbs: ExportVerbs
  readonly facts: DaemonFacts
  readonly log: FastifyBaseLogger
}

interface Listener {
  readonly server: Server
  readonly removeSocket: RemoveSocket
}

export class ControlServer {
  readonly #app: Promise<ControlApp>
  readonly #events: EventStreams
  readonly #metrics: Metrics
  readonly #log: FastifyBaseLogger
  readonly #listeners: Listener[] = []
  #connectionsCount = 0
  #closed = false

  constructor({ verbs, facts, log }: ControlServerParts) {
    this.#log = log
    this.#events = new EventStreams(verbs, facts.instance)
    this.#metrics = new Metrics(verbs, facts)
    this.#app = buildControlApp({ verbs, facts, log, events: this.#events, metrics: this.#metrics })
    // Whoever listens gets the failure; without a listener there is nobody to tell.
    this.#app.catch(() => undefined)
  }

  /** Resolves once it accepts, with the endpoint as bound (a port of 0 is replaced). Rejects with a Refusal where it cannot. */
  async listen(endpoint: Endpoint): Promise<Endpoint> {
    assert(!this.#closed, 'a closed control server does not listen')
    const app = await this.#app
    const server = this.#serverOf(app)
    try {
      const listener = await bindTo(server, endpoint)
      this.#listeners.push(listener)
      const bound = boundEndpoint(server, endpoint)
      this.#log.info({ url: formatEndpoint(bound) }, 'the control API listens')
      return bound
    } catch (error) {
      server.close()
      if (error instanceof Refusal) throw error
      const reason = error instanceof Error ? error.message : String(error)
      throw new Refusal('listen-failed', `the control API cannot listen on ${formatEndpoint(endpoint)}: ${reason}`)
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#events.close()
    await Promise.all(this.#listeners.map(closeListener))
    this.#metrics.close()
    const app = await this.#app
    await app.close()
  }

  #serverOf(app: ControlApp): Server {
    const bounds = { requestTimeout: LIMITS.controlRequestTimeoutMs, keepAliveTimeout: LIMITS.controlIdleMsMax }
    const server = createServer(bounds, (request, response) => {
      this.#route(app, request, response)
    })
    server.maxConnections = LIMITS.controlConnectionsMax
    server.on('connection', (socket) => {
      this.#connectionsCount += 1
      socket.once('close', () => (this.#connectionsCount -= 1))
    })
    server.on('clientError', (_error, socket) => {
      if (socket.writable) socket.end(rawBadRequest())
      else socket.destroy()
    })
    return server
  }

  #route(app: ControlApp, request: IncomingMessage, response: ServerResponse): void {
    // An answer that goes out while we close is the last one of its connection, and where there are many connections.
    if (this.#closed || this.#connectionsCount > LIMITS.controlConnectionsKeptMax) response.shouldKeepAlive = false
    app.routing(request, response)
  }
}

async function bindTo(server: Server, endpoint: Endpoint): Promise<Listener> {
  if (endpoint.scheme === 'unix') return { server, removeSocket: await listenOnSocket(server, endpoint.path) }
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen({ host: endpoint.host, port: endpoint.port }, () => {
      server.removeListener('error', reject)
      resolve()
    })
  })
  return { server, removeSocket: () => undefined }
}

function boundEndpoint(server: Server, endpoint: Endpoint): Endpoint {
  const address = server.address()
  if (endpoint.scheme === 'unix' || address === null || typeof address === 'string') return endpoint
  return { ...endpoint, port: address.port }
}

async function closeListener({ server, removeSocket }: Listener): Promise<void> {
  removeSocket()
  await new Promise<void>((resolve) => {
    const cut = setTimeout(() => {
      server.closeAllConnections()
    }, LIMITS.controlCloseTimeoutMs)
    server.close(() => {
      clearTimeout(cut)
      resolve()
    })
    server.closeIdleConnections()
  })
}
