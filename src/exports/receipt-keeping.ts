/**
 * The receipt of one close on this host's shelf. It is there before the close is recorded: once that is written a
 * destination may open and the record move on, and nothing but the shelf would know the receipt after a crash. Where the
 * close is not recorded after all (somebody else has the record, or the export was fenced meanwhile) it goes again: what
 * nobody was given, and no record says, is no receipt.
 */

import type { Receipt } from '../interlock/receipt.ts'
import type { ExportContext } from './export-context.ts'
import type { HostedExport } from './hosted-export.ts'
import { present } from '../foundation/assert.ts'

export class ReceiptKeeping {
  readonly #context: ExportContext
  readonly #hosted: HostedExport
  #mayBeKept = false
  #isRecorded = false

  constructor(context: ExportContext, hosted: HostedExport) {
    this.#context = context
    this.#hosted = hosted
  }

  get isRecorded(): boolean {
    return this.#isRecorded
  }

  /** Durable when it settles. Asked again it is the same. */
  async keep(receipt: Receipt): Promise<void> {
    const { ownership, facts } = this.#hosted
    this.#mayBeKept = true
    await ownership.keepReceipt(receipt, present(facts, 'the facts of an image that was open'))
  }

  /** From here on it stays. */
  recorded(): void {
    this.#isRecorded = true
  }

  async takeBack(): Promise<void> {
    await this.#context.host.receipts.drop(this.#hosted.name)
    this.#mayBeKept = false
  }

  /** When the close is over, however it ended. */
  async end(): Promise<void> {
    if (!this.#mayBeKept || this.#isRecorded) return
    try {
      await this.takeBack()
    } catch (error) {
      const fields = { export: this.#hosted.name, error: String(error) }
      this.#context.log.error(fields, 'the receipt of a close that was fenced could not be taken back')
    }
  }
}
