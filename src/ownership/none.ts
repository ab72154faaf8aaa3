/**
 * The home for storage that nobody shares: the record lives in this process and dies with it. The locks on the image are
 * taken all the same; what is missing is a word from any other host. So an image that was handed over may be opened
 * again only on a receipt that proves a close which was asked for by this standby: it carries the nonce given out here.
 */

import { randomBytes } from 'node:crypto'
import { Refusal } from '../foundation/refusal.ts'
import type { Receipt } from '../interlock/receipt.ts'
import { RECORD_VERSION, sequenceOf } from './home.ts'
import type { Newest, OwnershipRecord, RecordDraft, RecordHome, SwapOutcome } from './home.ts'

const NONCE_BYTES = 16

export class UnsharedHome implements RecordHome {
  readonly kind = 'none'
  readonly shared = false
  #record: OwnershipRecord | null = null
  #nonce: string | null = null

  describe(): string {
    return 'no record (ownership kind "none")'
  }

  locate(): void {
    // The record is here, wherever the image is.
  }

  readNewest(): Promise<Newest> {
    return Promise.resolve(this.#newest())
  }

  compareAndSwap(expected: number, draft: RecordDraft): Promise<SwapOutcome> {
    const newest = this.#newest()
    if (sequenceOf(newest) !== expected) return Promise.resolve({ won: false, newest, superseded: null })
    this.#record = { ...draft, version: RECORD_VERSION, sequence: expected + 1 }
    if (draft.state === 'opening' || draft.state === 'open') this.#nonce = null
    return Promise.resolve({ won: true, record: this.#record })
  }

  close(): Promise<void> {
    return Promise.resolve()
  }

  /** The nonce that the other side's close must carry; the same until the image is opened here. */
  giveNonce(): string {
    this.#nonce ??= randomBytes(NONCE_BYTES).toString('hex')
    return this.#nonce
  }

  /** Whether opening wants a receipt: after a handover, somebody else may have the image. */
  get receiptRequired(): boolean {
    return this.#record?.state === 'closed' && this.#record.closeReason === 'handover'
  }

  /** Throws the refusal where the receipt is missing though required, or answers no nonce of this standby. */
  checkReceipt(receipt: Receipt | null): void {
    if (receipt === null) {
      if (!this.receiptRequired) return
      throw new Refusal(
        'receipt-required',
        'the image was handed over and there is no shared record: open it with the receipt of a close that was given' +
          ' the nonce of this standby',
      )
    }
    if (this.#nonce === null || receipt.nonce !== this.#nonce) {
      throw new Refusal('receipt-mismatch', 'the receipt does not carry the nonce that this standby gave out')
    }
  }

  #newest(): Newest {
    return this.#record === null ? { kind: 'absent' } : { kind: 'record', record: this.#record }
  }
}
