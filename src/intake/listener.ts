/**
 * One address on which NBD clients are accepted. Each connection gets a negotiation session; what comes out of it in
 * transmission phase is handed to `onConnection`, and the listener knows nothing of it any more.
 *
 * Closing ends the listening and cuts the sessions in negotiation; connections handed on are not its business. Once
 * `close` has resolved, `onConnection` is not called again.
 */

import { createServer } from 'node:net'
import type { Server, Socket } from 'node:net'
import { LIMITS } from '../config/limits.ts'
import { assert, present } from '../foundation/assert.ts'
import { formatEndpoint, isEndpoint, parseEndpoint } from '../foundation/endpoint.ts'
import type { Endpoint } from '../foundation/endpoint.ts'
import { Refusal } from '../foundation/refusal.ts'
import type { ExportCatalogue } from '../nbd/export-catalogue.ts'
import { DEFAULT_NEGOTIATION_LIMITS } from '../nbd/negotiation.ts'
import type { NegotiationLimits } from '../nbd/negotiation.ts'
import { errnoName } from '../posix/errno.ts'
import { setKeepalive, setNoDelay, setTcpUserTimeout } from '../posix/socket.ts'
import type { ConnectionAllowance } from './connection-allowance.ts'
import type { IntakeLog } from './intake-log.ts'
import { NegotiationSession } from './negotiation-session.ts'
import type { NegotiatedConnection } from './negotiation-session.ts'
import { identifyPeer } from './peer.ts'
import { descriptorOf } from './socket-handover.ts'
import { SocketPath } from './socket-path.ts'

export interface ListenerOptions {
  readonly catalogue: ExportCatalogue
  /** Takes over the descriptor. Must not throw. */
  readonly onConnection: (connection: NegotiatedConnection) => void
  readonly log: IntakeLog
  /** Shared by all listeners of a daemon. */
  readonly allowance: ConnectionAllowance
  readonly handshakeTimeoutMs?: number
  /** Of a Unix socket; 0660 unless said otherwise. */
  readonly socketMode?: number
}

const SOCKET_MODE = 0o660
/** Silent TCP peers are given up after a minute and a half, whether or not something is on its way to them. */
const KEEPALIVE = { idleSeconds: 30, intervalSeconds: 10, probesMax: 6 }
const TCP_USER_TIMEOUT_MS = 90_000
/** A flood of connections beyond the allowance is one log line in this time. */
const REFUSAL_LOG_INTERVAL_MS = 10_000

const NEGOTIATION_LIMITS: NegotiationLimits = {
  ...DEFAULT_NEGOTIATION_LIMITS,
  optionBytesMax: LIMITS.optionBytesMax,
  optionSkipBytesMax: LIMITS.optionSkipBytesMax,
  payloadBytesMax: LIMITS.payloadBytesMax,
}

export class Listener {
  readonly #options: ListenerOptions
  readonly #sessions = new Set<NegotiationSession>()
  readonly #server: Server
  #endpoint: Endpoint | undefined
  #socketPath: SocketPath | undefined
  #closing: Promise<void> | undefined
  /** Called whenever no session is left. */
  #onIdle: () => void = () => {}
  #refusedSinceLog = 0
  #refusalLoggedAtMs = -Infinity

  constructor(options: ListenerOptions) {
    this.#options = options
    // Half open: a peer that has said all it will say still gets its answers.
    this.#server = createServer({ allowHalfOpen: true }, (socket) => {
      this.#accept(socket)
    })
  }

  /** Where it listens, as a URL; a port that was 0 is the one the kernel chose. */
  get address(): string {
    return formatEndpoint(present(this.#endpoint, 'the address of a listener that listens'))
  }

  /** `unix:/path.sock` or `tcp:HOST:PORT`. Rejects with a `Refusal` that says what stands in the way. Once. */
  async listen(url: string): Promise<void> {
    assert(this.#endpoint === undefined && this.#closing === undefined, 'a listener listens once')
    const endpoint = parseEndpoint(url)
    if (!isEndpoint(endpoint)) throw new Refusal('listen-failed', endpoint.problem)
    this.#endpoint = endpoint
    if (endpoint.scheme === 'unix') await this.#listenOnPath(endpoint.path)
    else await this.#listenOnPort(endpoint.host, endpoint.port)
    this.#server.on('error', (error) => {
      this.#options.log.warn({ address: this.address, error: error.message }, 'a connection could not be accepted')
    })
    this.#options.log.info({ address: this.address }, 'listening for NBD clients')
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #listenOnPath(path: string): Promise<void> {
    const socketPath = await SocketPath.claim(path)
    try {
      await this.#listening({ path: socketPath.temporaryPath, backlog: LIMITS.listenBacklog })
      socketPath.publish(this.#options.socketMode ?? SOCKET_MODE)
    } catch (error) {
      if (this.#server.listening) this.#server.close()
      socketPath.release()
      throw refusalOf(`unix:${path}`, error)
    }
    this.#socketPath = socketPath
  }

  async #listenOnPort(host: string, port: number): Promise<void> {
    try {
      await this.#listening({ host, port, backlog: LIMITS.listenBacklog })
    } catch (error) {
      throw refusalOf(formatEndpoint({ scheme: 'tcp', host, port }), error)
    }
    const bound = this.#server.address()
    assert(bound !== null && typeof bound === 'object', 'a TCP server has an address')
    this.#endpoint = { scheme: 'tcp', host, port: bound.port }
  }

  #listening(
    where: { path: string; backlog: number } | { host: string; port: number; backlog: number },
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject)
      this.#server.listen(where, () => {
        this.#server.off('error', reject)
        resolve()
      })
    })
  }

  async #close(): Promise<void> {
    const ended = new Promise<void>((resolve) => {
      // The callback also comes, with an error, when the server never listened.
      this.#server.close(() => {
        resolve()
      })
    })
    // The server counts a socket as gone before the socket says so itself: both are waited for.
    const over = new Promise<void>((resolve) => {
      this.#onIdle = resolve
    })
    if (this.#sessions.size === 0) this.#onIdle()
    for (const session of this.#sessions) session.cut()
    await Promise.all([ended, over])
    this.#socketPath?.release()
  }

  #accept(socket: Socket): void {
    if (!this.#options.allowance.enter()) {
      socket.destroy()
      this.#logRefusal()
      return
    }
    const scheme = present(this.#endpoint, 'the endpoint of a listener that listens').scheme
    const peer = identifyPeer(socket, scheme)
    if (peer === undefined) {
      this.#options.allowance.leave()
      socket.destroy()
      return
    }
    if (scheme === 'tcp') this.#tune(socket, peer.label)
    const session = new NegotiationSession(socket, peer, {
      catalogue: this.#options.catalogue,
      limits: NEGOTIATION_LIMITS,
      handshakeTimeoutMs: this.#options.handshakeTimeoutMs ?? LIMITS.handshakeTimeoutMs,
      log: this.#options.log,
      onConnection: this.#options.onConnection,
      onOver: (over) => {
        this.#sessions.delete(over)
        this.#options.allowance.leave()
        if (this.#sessions.size === 0) this.#onIdle()
      },
    })
    this.#sessions.add(session)
  }

  #tune(socket: Socket, peer: string): void {
    const descriptor = descriptorOf(socket)
    if (descriptor === undefined) return
    const results = [
      setNoDelay(descriptor),
      setKeepalive(descriptor, KEEPALIVE),
      setTcpUserTimeout(descriptor, TCP_USER_TIMEOUT_MS),
    ]
    const failed = results.find((result) => result < 0)
    if (failed !== undefined) {
      this.#options.log.warn({ peer, error: errnoName(-failed) }, 'a connection keeps some of the system defaults')
    }
  }

  #logRefusal(): void {
    this.#refusedSinceLog += 1
    const nowMs = performance.now()
    if (nowMs - this.#refusalLoggedAtMs < REFUSAL_LOG_INTERVAL_MS) return
    this.#options.log.warn(
      { connectionsMax: this.#options.allowance.connectionsMax, refused: this.#refusedSinceLog },
      'connections refused: there are as many as are allowed',
    )
    this.#refusalLoggedAtMs = nowMs
    this.#refusedSinceLog = 0
  }
}

function refusalOf(address: string, error: unknown): Refusal {
  if (error instanceof Refusal) return error
  return new Refusal('listen-failed', `${address}: ${error instanceof Error ? error.message : String(error)}`)
}
