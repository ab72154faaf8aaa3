/**
 * One accepted connection until it enters transmission or is gone: a socket of Node's, the negotiation that decides what
 * is said on it, and a deadline. When it is agreed, the descriptor with all unread bytes is handed on.
 *
 *   negotiating ──▶ flushing ──▶ releasing ──▶ over, handed on
 *        │             │
 *        └──▶ leaving ─┴──────────────────────▶ over
 *
 * 1. A session ends exactly once, and says so exactly once, after its socket is closed.
 * 2. Nothing is read while replies wait to be written, so a peer that does not read holds a bounded amount of memory,
 *    and not longer than the deadline.
 * 3. A descriptor exists only from `releasing` on, and is either handed on or closed.
 */

import type { Socket } from 'node:net'
import { assert } from '../foundation/assert.ts'
import type { ExportCatalogue, TransmissionTerms } from '../nbd/export-catalogue.ts'
import { Negotiation } from '../nbd/negotiation.ts'
import type { Decision, NegotiationCloseReason, NegotiationLimits } from '../nbd/negotiation.ts'
import { closeDescriptor } from '../posix/descriptor.ts'
import { errnoName } from '../posix/errno.ts'
import type { IntakeLog } from './intake-log.ts'
import type { Peer } from './peer.ts'
import { releaseSocket } from './socket-handover.ts'

/** A connection in transmission phase. Whoever receives it owns the descriptor. */
export interface NegotiatedConnection {
  readonly exportName: string
  readonly terms: TransmissionTerms
  readonly descriptor: number
  /** What the peer had sent beyond the negotiation; memory of its own. */
  readonly unread: Uint8Array
  readonly peer: string
  readonly peerIdentity: string
}

export interface SessionOptions {
  readonly catalogue: ExportCatalogue
  readonly limits: NegotiationLimits
  /** Milliseconds from accept to transmission. */
  readonly handshakeTimeoutMs: number
  readonly log: IntakeLog
  readonly onConnection: (connection: NegotiatedConnection) => void
  /** Called once, after the socket was closed, and after `onConnection` if that is called at all. */
  readonly onOver: (session: NegotiationSession) => void
}

/** How long a peer may take to read its last reply and to hang up. */
const LINGER_MS = 1000

type State =
  | { readonly at: 'negotiating' }
  | { readonly at: 'flushing'; readonly terms: TransmissionTerms; readonly unread: Uint8Array }
  | {
      readonly at: 'releasing'
      readonly terms: TransmissionTerms
      readonly unread: Uint8Array
      readonly descriptor: number
    }
  | { readonly at: 'leaving' }
  | { readonly at: 'over' }

export class NegotiationSession {
  readonly #socket: Socket
  readonly #peer: Peer
  readonly #options: SessionOptions
  readonly #negotiation: Negotiation
  #state: State = { at: 'negotiating' }
  #deadline: NodeJS.Timeout
  #writesPending = 0
  #cut = false
  readonly #onData = (bytes: Uint8Array): void => {
    this.#received(bytes)
  }

  constructor(socket: Socket, peer: Peer, options: SessionOptions) {
    this.#socket = socket
    this.#peer = peer
    this.#options = options
    this.#negotiation = new Negotiation(options.catalogue, options.limits)
    this.#deadline = setTimeout(() => {
      this.#expired()
    }, options.handshakeTimeoutMs)
    socket.on('data', this.#onData)
    socket.on('end', () => {
      this.#ended()
    })
    socket.on('error', (error) => {
      this.#options.log.debug({ peer: this.#peer.label, error: error.message }, 'connection failed in negotiation')
    })
    socket.on('close', () => {
      this.#closed()
    })
    this.#write(this.#negotiation.greeting())
  }

  /** Ends the session now, whatever it is doing; nothing is handed on any more. */
  cut(): void {
    this.#cut = true
    this.#socket.destroy()
  }

  #received(bytes: Uint8Array): void {
    // A peer that is on its way out is read so that its last reply is not lost to a reset, and not listened to.
    if (this.#state.at !== 'negotiating') return
    for (const decision of this.#negotiation.receive(bytes)) this.#perform(decision)
  }

  #perform(decision: Decision): void {
    switch (decision.kind) {
      case 'send':
        this.#write(decision.bytes)
        this.#socket.pause()
        return
      case 'transmission':
        this.#socket.off('data', this.#onData)
        this.#socket.pause()
        this.#state = { at: 'flushing', terms: decision.terms, unread: decision.unread }
        return
      case 'close':
        this.#leave(decision.reason, decision.detail)
        return
    }
  }

  #write(bytes: Uint8Array): void {
    this.#writesPending += 1
    this.#socket.write(bytes, (error) => {
      this.#writesPending -= 1
      if (error === undefined || error === null) this.#written()
    })
  }

  /** Everything said so far is in the kernel's hands. */
  #written(): void {
    if (this.#writesPending > 0) return
    if (this.#state.at === 'negotiating') this.#socket.resume()
    if (this.#state.at === 'flushing') this.#release(this.#state.terms, this.#state.unread)
  }

  #release(terms: TransmissionTerms, unread: Uint8Array): void {
    const released = releaseSocket(this.#socket)
    if (typeof released === 'number') {
      this.#state = { at: 'leaving' }
      if (released < 0) {
        this.#options.log.warn(
          { peer: this.#peer.label, error: errnoName(-released) },
          'no descriptor left for a connection',
        )
      }
      return
    }
    this.#state = {
      at: 'releasing',
      terms,
      unread: concatenate([unread, ...released.pieces]),
      descriptor: released.descriptor,
    }
  }

  /** Says goodbye: what was sent goes out, what comes in is dropped, and then the peer has a moment to hang up. */
  #leave(reason: NegotiationCloseReason, detail: string): void {
    const fields = { peer: this.#peer.label, reason }
    if (reason === 'abort') this.#options.log.debug(fields, detail)
    else this.#options.log.warn(fields, `negotiation ended: ${detail}`)
    this.#state = { at: 'leaving' }
    this.#socket.end()
    this.#socket.resume()
    clearTimeout(this.#deadline)
    this.#deadline = setTimeout(() => this.#socket.destroy(), LINGER_MS)
  }

  /** The peer has sent all it ever will. */
  #ended(): void {
    switch (this.#state.at) {
      case 'negotiating':
        this.#options.log.debug({ peer: this.#peer.label }, 'the peer left in the middle of the negotiation')
        this.#socket.destroy()
        return
      case 'leaving':
        // Not destroyed at once: the last reply may still be on its way out.
        this.#socket.destroySoon()
        return
      case 'flushing':
      case 'releasing':
      case 'over':
        return
    }
  }

  #expired(): void {
    this.#options.log.warn(
      { peer: this.#peer.label, timeoutMs: this.#options.handshakeTimeoutMs, state: this.#negotiation.state },
      'the negotiation took too long',
    )
    this.#socket.destroy()
  }

  #closed(): void {
    assert(this.#state.at !== 'over', 'a socket closes once')
    clearTimeout(this.#deadline)
    const state = this.#state
    this.#state = { at: 'over' }
    if (state.at === 'releasing') {
      if (this.#cut) closeDescriptor(state.descriptor)
      else this.#handOn(state.terms, state.descriptor, state.unread)
    }
    this.#options.onOver(this)
  }

  #handOn(terms: TransmissionTerms, descriptor: number, unread: Uint8Array): void {
    const { label, identity } = this.#peer
    this.#options.log.debug({ peer: label, export: terms.exportName, unreadBytes: unread.length }, 'negotiated')
    this.#options.onConnection({
      exportName: terms.exportName,
      terms,
      descriptor,
      unread,
      peer: label,
      peerIdentity: identity,
    })
  }
}

/** Memory of its own: a view of Node's pool would drag the whole pool along to another thread. */
function concatenate(pieces: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0))
  let at = 0
  for (const piece of pieces) {
    whole.set(piece, at)
    at += piece.length
  }
  return whole
}
