/**
 * One client in transmission phase, as the worker sees it: its inbox, the request it is in the middle of sending, and
 * the answers it has not been given. A plain record with the little arithmetic that belongs to it; what happens to it is
 * decided in `request-reader.ts` (in), `answers.ts` (out) and `connections.ts` (life and death).
 *
 * Life: open -> leaving (nothing more is read; what is outstanding is answered) -> ending (the engine lets go of the
 * stream) -> gone. Any state may jump to ending. Its index is used again only after its last request is finished.
 */

import type { ClientGone } from '../plane-link/reports.ts'
import { Ring } from './ring.ts'
import type { WaitingLine } from './waiting-line.ts'

export type ConnectionState = 'open' | 'leaving' | 'ending' | 'gone'
export type GoneReason = ClientGone['reason']

/** Where the request that is being received stands on its way to admission. */
export const Stage = {
  /** No request: the next bytes are a header. */
  header: 0,
  gate: 1,
  memory: 2,
  payload: 3,
  admission: 4,
} as const
export type Stage = (typeof Stage)[keyof typeof Stage]

const NOTHING = new Uint8Array(0)

export interface Adoption {
  readonly index: number
  readonly clientId: number
  readonly exportIndex: number
  readonly exportId: number
  readonly descriptor: number
  readonly peer: string
  readonly peerIdentity: string
  readonly adoptedMs: number
  readonly inboxAt: number
  readonly headersAt: number
}

export class Connection {
  readonly index: number
  readonly clientId: number
  readonly exportIndex: number
  readonly exportId: number
  /** Only to ask the kernel whether the peer is still there; the engine owns it. */
  readonly descriptor: number
  readonly peer: string
  readonly peerIdentity: string
  readonly adoptedMs: number
  stream = -1
  state: ConnectionState = 'open'
  goneReason: GoneReason = 'lost'
  goneDetail = ''
  /** When a leaving connection is cut although it has not taken its answers; 0 is never. */
  cutAtMs = 0
  writer = false

  readonly inboxAt: number
  /** Received and not parsed: the arena bytes from `head` up to `tail`. */
  head: number
  tail: number
  /** What was read ahead of the adoption and has not found room in the inbox yet. */
  backlog: Uint8Array = NOTHING
  receiving = false
  /** The receive that is outstanding goes into the request's buffer, not into the inbox. */
  receivingDirect = false
  /** The peer's FIN was seen. */
  atEnd = false

  stage: Stage = Stage.header
  slot = -1
  /** Payload bytes still to come, of the present request or of one that was refused. */
  payloadLeft = 0
  skipLeft = 0
  /** The answer that is due once the payload of a refused request was consumed. */
  skipSlot = -1

  readonly headersAt: number
  /** Slots with an answer that is not wholly sent, in the order of their completion. */
  readonly replies: Ring
  sending = false
  /** Bytes of the first reply that are sent already. */
  sentOfFirst = 0
  repliesMade = 0

  heldBytes = 0
  /** When bytes last came in, or began to be missed; and when the kernel last took some, or was given some. */
  receivedMs: number
  sentMs: number
  active = false
  inSendList = false
  /** Where it waits, if it does: for a request slot, or for memory. */
  line: WaitingLine | undefined
  /** The succession knows it. */
  arrived = false

  constructor(adoption: Adoption, requestsMax: number) {
    this.index = adoption.index
    this.clientId = adoption.clientId
    this.exportIndex = adoption.exportIndex
    this.exportId = adoption.exportId
    this.descriptor = adoption.descriptor
    this.peer = adoption.peer
    this.peerIdentity = adoption.peerIdentity
    this.adoptedMs = adoption.adoptedMs
    this.receivedMs = adoption.adoptedMs
    this.sentMs = adoption.adoptedMs
    this.inboxAt = adoption.inboxAt
    this.head = adoption.inboxAt
    this.tail = adoption.inboxAt
    this.headersAt = adoption.headersAt
    this.replies = new Ring(requestsMax)
  }

  get unparsedBytes(): number {
    return this.tail - this.head
  }

  /**
   * Since when its peer has been keeping us waiting: it does not take its answers, or does not send the payload that it
   * announced. Infinity when it is not the peer that we wait for.
   */
  get stalledSinceMs(): number {
    const owes = this.state === 'open' && (this.stage === Stage.payload || this.skipLeft > 0)
    return Math.min(this.sending ? this.sentMs : Infinity, owes ? this.receivedMs : Infinity)
  }

  /** The request that is being received has been given its memory. */
  get hasBuffer(): boolean {
    return this.stage === Stage.payload || this.stage === Stage.admission
  }

  /** Parked at the gate: a request is kept, unanswered, and nothing behind it is read. */
  get parked(): boolean {
    return this.stage === Stage.gate || this.stage === Stage.admission
  }
}
