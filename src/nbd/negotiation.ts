/**
 * The server's side of the handshake, fixed newstyle: bytes in, decisions out. No I/O and no clock; time limits belong
 * to whoever owns the connection.
 *
 *   client flags ──▶ option header ──▶ option data ──┬──▶ transmission   (EXPORT_NAME, GO)
 *                       ▲    │  ▲                    │
 *                       │    │  └────────────────────┤    (a reply)
 *                       │    └─▶ skipping ───────────┤    (data that is too big, or that nothing reads)
 *                       └────────────────────────────┴──▶ closed         (ABORT, or a fault of the peer)
 *
 * 1. Whatever comes in, nothing throws: a peer's fault is a `close` with its reason.
 * 2. What is held never exceeds `optionBytesMax`; what is said over a whole handshake never exceeds `replyBytesMax`
 *    by more than one reply; options are counted.
 * 3. Every option is consumed whole before it is answered, the unknown ones too, so the framing is never lost.
 * 4. Bytes behind the option that ends the haggling are handed over untouched with the transmission decision.
 * 5. After `transmission` or `close` there are no more decisions.
 */

import { assert } from '../foundation/assert.ts'
import { ByteWriter } from '../foundation/byte-writer.ts'
import { ByteReader } from '../foundation/byte-reader.ts'
import {
  IHAVEOPT,
  NBD_FLAG_C_FIXED_NEWSTYLE,
  NBD_FLAG_C_NO_ZEROES,
  NBD_OPT_ABORT,
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_GO,
  NBD_OPT_INFO,
  NBD_OPT_LIST,
  NBD_PAYLOAD_BYTES_MAX,
  NBD_REP_ACK,
  NBD_REP_ERR_INVALID,
  NBD_REP_ERR_SHUTDOWN,
  NBD_REP_ERR_TOO_BIG,
  NBD_REP_ERR_UNKNOWN,
  NBD_REP_ERR_UNSUP,
  NBD_STRING_BYTES_MAX,
  optionName,
} from './constants.ts'
import type { ExportCatalogue, ExportOffer, ExportRefusal, TransmissionTerms } from './export-catalogue.ts'
import {
  writeExportNameAnswer,
  writeGreeting,
  writeInfoBlockSize,
  writeInfoDescription,
  writeInfoExport,
  writeInfoName,
  writeOptionError,
  writeOptionReply,
  writeServer,
} from './option-reply.ts'
import { parseInfoRequest } from './option-request.ts'
import type { InfoRequest } from './option-request.ts'
import { decodeProtocolString } from './protocol-string.ts'

/**
 * `protocol`: the peer broke a rule. `limit`: it kept the rules and asked for too much. `refused`: an export that it
 * cannot have, where the protocol has no words to say so. `abort`: the client said that it is leaving.
 */
export type NegotiationCloseReason = 'protocol' | 'limit' | 'refused' | 'abort'

export type Decision =
  | { readonly kind: 'send'; readonly bytes: Uint8Array }
  /** Once all that was sent is out, the connection belongs to the data plane. `unread` begins with the first request. */
  | { readonly kind: 'transmission'; readonly terms: TransmissionTerms; readonly unread: Uint8Array }
  /** Disconnect, once all that was sent is out. `detail` is one clause for the log. */
  | { readonly kind: 'close'; readonly reason: NegotiationCloseReason; readonly detail: string }

export interface NegotiationLimits {
  /** Of one option's data that is looked at. At least NBD_STRING_BYTES_MAX and a little. */
  readonly optionBytesMax: number
  /** Of one option's data at all; a client that announces more is disconnected. */
  readonly optionSkipBytesMax: number
  readonly optionsMax: number
  /** Of all replies of one handshake. */
  readonly replyBytesMax: number
  /** What NBD_INFO_BLOCK_SIZE announces. */
  readonly payloadBytesMax: number
}

export const DEFAULT_NEGOTIATION_LIMITS: NegotiationLimits = {
  optionBytesMax: 8 * 1024,
  optionSkipBytesMax: 64 * 1024,
  // A client may list some hundred exports and ask about each of them, twice or thrice.
  optionsMax: 4096,
  replyBytesMax: 4 * 1024 * 1024,
  payloadBytesMax: NBD_PAYLOAD_BYTES_MAX,
}

const CLIENT_FLAGS_BYTES = 4
const OPTION_HEADER_BYTES = 16

type State =
  | { readonly at: 'client-flags' }
  | { readonly at: 'option-header' }
  | { readonly at: 'option-data'; readonly option: number; readonly lengthBytes: number }
  | { readonly at: 'skipping'; readonly option: number; remainingBytes: number; readonly tooBig: boolean }
  | { readonly at: 'transmission'; readonly terms: TransmissionTerms }
  | { readonly at: 'closed'; readonly reason: NegotiationCloseReason; readonly detail: string }

export type NegotiationState = State['at']

export class Negotiation {
  readonly #catalogue: ExportCatalogue
  readonly #limits: NegotiationLimits
  readonly #replies = new ByteWriter()
  #state: State = { at: 'client-flags' }
  #fixedNewstyle = false
  #noZeroes = false
  #options = 0
  #replyBytes = 0
  /** The beginning of what the present state needs, while it is incomplete. */
  #held: Uint8Array = new Uint8Array(CLIENT_FLAGS_BYTES)
  #heldBytes = 0

  constructor(catalogue: ExportCatalogue, limits: NegotiationLimits = DEFAULT_NEGOTIATION_LIMITS) {
    assert(limits.optionBytesMax >= NBD_STRING_BYTES_MAX + 16, 'an option with the longest name fits')
    assert(limits.optionSkipBytesMax >= limits.optionBytesMax, 'what is looked at is not more than what is read')
    this.#catalogue = catalogue
    this.#limits = limits
  }

  get state(): NegotiationState {
    return this.#state.at
  }

  /** Memory taken for what came in and is not yet complete: a bound, and not more than `optionBytesMax`. */
  get heldBytes(): number {
    return this.#held.length
  }

  /** What the server says first. */
  greeting(): Uint8Array {
    const writer = new ByteWriter(18)
    writeGreeting(writer)
    return writer.take()
  }

  /**
   * Takes what the client sent: any number of bytes, of which nothing is kept by reference but the `unread` of a
   * transmission decision. At most one `send`, then at most one `transmission` or `close`.
   */
  receive(bytes: Uint8Array): Decision[] {
    assert(this.#state.at !== 'transmission', 'the bytes after the negotiation belong to the data plane')
    if (this.#state.at === 'closed') return []
    let at = 0
    // An option without data needs no byte to be complete, so the loop also runs for states that need none.
    while (!this.#ended() && (at < bytes.length || this.#needsNothing())) {
      at += this.#consume(bytes, at)
    }
    return this.#decisions(bytes.subarray(at))
  }

  #ended(): boolean {
    return this.#state.at === 'transmission' || this.#state.at === 'closed'
  }

  #needsNothing(): boolean {
    return this.#state.at === 'option-data' && this.#state.lengthBytes === 0
  }

  /** Uses some of `bytes` from `at` on; returns how many. */
  #consume(bytes: Uint8Array, at: number): number {
    if (this.#state.at === 'skipping') {
      const skipped = Math.min(this.#state.remainingBytes, bytes.length - at)
      this.#state.remainingBytes -= skipped
      if (this.#state.remainingBytes === 0) this.#answerSkipped(this.#state.option, this.#state.tooBig)
      return skipped
    }
    const taken = Math.min(this.#held.length - this.#heldBytes, bytes.length - at)
    this.#held.set(bytes.subarray(at, at + taken), this.#heldBytes)
    this.#heldBytes += taken
    if (this.#heldBytes === this.#held.length) this.#step(this.#held)
    return taken
  }

  /** The present state has all that it needs. */
  #step(data: Uint8Array): void {
    switch (this.#state.at) {
      case 'client-flags':
        this.#takeClientFlags(data)
        return
      case 'option-header':
        this.#takeOptionHeader(data)
        return
      case 'option-data':
        this.#answer(this.#state.option, data)
        return
      case 'skipping':
      case 'transmission':
      case 'closed':
        assert(false, `${this.#state.at} collects nothing`)
    }
  }

  /** Begins to collect what `state` needs. */
  #collect(state: State, neededBytes: number): void {
    this.#state = state
    this.#held = new Uint8Array(neededBytes)
    this.#heldBytes = 0
  }

  #nextOption(): void {
    this.#collect({ at: 'option-header' }, OPTION_HEADER_BYTES)
  }

  #close(reason: NegotiationCloseReason, detail: string): void {
    this.#collect({ at: 'closed', reason, detail }, 0)
  }

  #takeClientFlags(data: Uint8Array): void {
    const flags = new ByteReader(data).uint32() ?? 0
    const unknown = flags & ~(NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES)
    if (unknown !== 0) {
      this.#close('protocol', `unknown client flags 0x${(unknown >>> 0).toString(16)}`)
      return
    }
    this.#fixedNewstyle = (flags & NBD_FLAG_C_FIXED_NEWSTYLE) !== 0
    this.#noZeroes = (flags & NBD_FLAG_C_NO_ZEROES) !== 0
    this.#nextOption()
  }

  #takeOptionHeader(data: Uint8Array): void {
    const reader = new ByteReader(data)
    const magic = reader.uint64()
    const option = reader.uint32() ?? 0
    const lengthBytes = reader.uint32() ?? 0
    this.#options += 1
    if (magic !== IHAVEOPT) {
      this.#close('protocol', 'an option does not begin with IHAVEOPT')
    } else if (!this.#fixedNewstyle && option !== NBD_OPT_EXPORT_NAME) {
      this.#close('protocol', `${optionName(option)} from a client that does not speak fixed newstyle`)
    } else if (this.#options > this.#limits.optionsMax) {
      this.#close('limit', `more than ${this.#limits.optionsMax} options`)
    } else if (lengthBytes > this.#limits.optionSkipBytesMax) {
      this.#close('limit', `${optionName(option)} with ${lengthBytes} bytes of data`)
    } else if (option === NBD_OPT_EXPORT_NAME && lengthBytes > NBD_STRING_BYTES_MAX) {
      this.#close('protocol', `EXPORT_NAME with a name of ${lengthBytes} bytes`)
    } else if (readsData(option) && lengthBytes <= this.#limits.optionBytesMax) {
      this.#collect({ at: 'option-data', option, lengthBytes }, lengthBytes)
    } else if (lengthBytes > 0) {
      this.#state = { at: 'skipping', option, remainingBytes: lengthBytes, tooBig: readsData(option) }
    } else {
      this.#answer(option, data.subarray(0, 0))
    }
  }

  /** An option whose data nobody looked at, now behind us. */
  #answerSkipped(option: number, tooBig: boolean): void {
    if (tooBig) {
      const message = `the data of an option may be ${this.#limits.optionBytesMax} bytes long`
      this.#refuseOption(option, NBD_REP_ERR_TOO_BIG, message)
    } else if (option === NBD_OPT_LIST) {
      this.#refuseOption(option, NBD_REP_ERR_INVALID, 'LIST takes no data')
    } else {
      this.#answer(option, new Uint8Array(0))
    }
  }

  #answer(option: number, data: Uint8Array): void {
    switch (option) {
      case NBD_OPT_EXPORT_NAME:
        this.#answerExportName(data)
        return
      case NBD_OPT_ABORT:
        writeOptionReply(this.#replies, option, NBD_REP_ACK)
        this.#close('abort', 'the client left the negotiation')
        return
      case NBD_OPT_LIST:
        this.#answerList()
        return
      case NBD_OPT_INFO:
      case NBD_OPT_GO:
        this.#answerInfo(option, data)
        return
      default:
        this.#refuseOption(option, NBD_REP_ERR_UNSUP, `${optionName(option)} is not supported`)
    }
  }

  /** The one option that has no error: whoever cannot have its export is disconnected. */
  #answerExportName(data: Uint8Array): void {
    const name = decodeProtocolString(data)
    if (name === undefined) {
      this.#close('protocol', 'EXPORT_NAME with a name that is not a string of the protocol')
      return
    }
    const offer = this.#offer(name)
    if ('refused' in offer) {
      this.#close('refused', offer.message)
      return
    }
    writeExportNameAnswer(this.#replies, offer, this.#noZeroes)
    this.#enterTransmission(offer, false)
  }

  #answerList(): void {
    for (const { name, description } of this.#catalogue.list()) {
      writeServer(this.#replies, NBD_OPT_LIST, name, description)
      if (this.#outOfReplies()) return
    }
    writeOptionReply(this.#replies, NBD_OPT_LIST, NBD_REP_ACK)
    this.#nextOption()
  }

  #answerInfo(option: typeof NBD_OPT_INFO | typeof NBD_OPT_GO, data: Uint8Array): void {
    const request = parseInfoRequest(data)
    if ('malformed' in request) {
      this.#refuseOption(option, NBD_REP_ERR_INVALID, request.malformed)
      return
    }
    const offer = this.#offer(request.name)
    if ('refused' in offer) {
      const type = offer.refused === 'unknown' ? NBD_REP_ERR_UNKNOWN : NBD_REP_ERR_SHUTDOWN
      this.#refuseOption(option, type, offer.message)
      return
    }
    this.#writeInfo(option, request, offer)
    if (option === NBD_OPT_GO) this.#enterTransmission(offer, request.wantsBlockSize)
    else if (!this.#outOfReplies()) this.#nextOption()
  }

  #writeInfo(option: number, request: InfoRequest, offer: ExportOffer): void {
    writeInfoExport(this.#replies, option, offer)
    if (request.wantsName) writeInfoName(this.#replies, option, offer)
    if (request.wantsDescription) writeInfoDescription(this.#replies, option, offer)
    if (request.wantsBlockSize) writeInfoBlockSize(this.#replies, option, offer, this.#limits.payloadBytesMax)
    writeOptionReply(this.#replies, option, NBD_REP_ACK)
  }

  #refuseOption(option: number, type: number, message: string): void {
    writeOptionError(this.#replies, option, type, message)
    if (!this.#outOfReplies()) this.#nextOption()
  }

  /** Closes when more was said than a handshake is worth. */
  #outOfReplies(): boolean {
    if (this.#replyBytes + this.#replies.lengthBytes <= this.#limits.replyBytesMax) return false
    this.#close('limit', `more than ${this.#limits.replyBytesMax} bytes of replies`)
    return true
  }

  #offer(name: string): ExportOffer | ExportRefusal {
    if (name !== '') return this.#catalogue.offer(name)
    const exports = this.#catalogue.list()
    const only = exports[0]
    if (only !== undefined && exports.length === 1) return this.#catalogue.offer(only.name)
    return { refused: 'unknown', message: `there is no default export among ${exports.length}; ask for one by name` }
  }

  #enterTransmission(offer: ExportOffer, knowsBlockSizes: boolean): void {
    const terms: TransmissionTerms = {
      exportName: offer.name,
      sizeBytes: offer.sizeBytes,
      transmissionFlags: offer.transmissionFlags,
      minimumBlockBytes: offer.minimumBlockBytes,
      preferredBlockBytes: offer.preferredBlockBytes,
      payloadBytesMax: this.#limits.payloadBytesMax,
      knowsBlockSizes,
    }
    this.#collect({ at: 'transmission', terms }, 0)
  }

  #decisions(unread: Uint8Array): Decision[] {
    const decisions: Decision[] = []
    const state = this.#state
    if (this.#replies.lengthBytes > 0) {
      this.#replyBytes += this.#replies.lengthBytes
      decisions.push({ kind: 'send', bytes: this.#replies.take() })
    }
    if (state.at === 'transmission') decisions.push({ kind: 'transmission', terms: state.terms, unread })
    if (state.at === 'closed') decisions.push({ kind: 'close', reason: state.reason, detail: state.detail })
    return decisions
  }
}

/** The options whose data means something here. That of all others is skipped. */
function readsData(option: number): boolean {
  return option === NBD_OPT_EXPORT_NAME || option === NBD_OPT_INFO || option === NBD_OPT_GO
}
