/**
 * What an export does about the past when it is added: opens again by itself where the record allows that, finishes a
 * close that the last run left, or waits in standby and says why; where the record cannot be reached, until it can. Nobody
 * waits here for what the last run left in the kernel: that goes on beside everything else. And the receipt of a close that
 * is asked for again, whichever run of this host has given it.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { present } from '../foundation/assert.ts'
import { Refusal } from '../foundation/refusal.ts'
import type { Receipt } from '../interlock/receipt.ts'
import type { ExportContext } from './export-context.ts'
import type { HostedExport } from './hosted-export.ts'
import type { Recovery } from './recovery.ts'
import { within } from './within.ts'

const RECORD_INTERVAL_MS = 1_000
/** A process that is gone lets go of its files a moment later. Whatever holds a lock for longer delays nobody's start. */
const LOCK_MOMENT_MS = 250

export class LastRun {
  readonly #context: ExportContext
  readonly #hosted: HostedExport
  #recovery: Recovery | null = null
  /** Asking again for a record whose home did not answer. */
  #asking: AbortController | null = null
  #waitsBecause: string | null = null
  /** How often an opening has taken over. */
  #abandoned = 0

  constructor(context: ExportContext, hosted: HostedExport) {
    this.#context = context
    this.#hosted = hosted
  }

  /** While it opens by itself: what that waits for, if anything. */
  get waitsBecause(): string | null {
    return this.#waitsBecause
  }

  /**
   * In standby, at the start of the daemon. Rejects with the refusal of an opening that the record had allowed, but for a
   * lock that is held: that is waited for, for so long, after this has settled.
   */
  async resume(lockTimeoutMs: number): Promise<void> {
    try {
      await this.#resume(lockTimeoutMs)
    } catch (error) {
      if (!isUnreachable(error)) {
        // What kept an opening from beginning is its reason already; what kept the record from being read is not.
        if (this.#hosted.stateReason === null) this.#waitBecause(error)
        throw error
      }
      const reason = `it is asked again: ${error.message}`
      this.#hosted.waitBecause(reason)
      void this.#askAgain(lockTimeoutMs, reason)
    }
  }

  async #askAgain(lockTimeoutMs: number, reason: string): Promise<void> {
    const { signal } = (this.#asking = new AbortController())
    const isWanted = (): boolean => !signal.aborted && this.#hosted.state === 'standby'
    while (isWanted()) {
      await sleep(RECORD_INTERVAL_MS, null, { signal, ref: false }).catch(() => null)
      if (!isWanted()) return
      try {
        await this.#resume(lockTimeoutMs)
        if (this.#hosted.stateReason === reason) this.#hosted.waitBecause(null)
        return
      } catch (error) {
        if (isUnreachable(error)) continue
        this.#waitBecause(error)
        return
      }
    }
  }

  async #resume(lockTimeoutMs: number): Promise<void> {
    const { definition, ownership } = this.#hosted
    if (definition.readOnly) {
      if (!definition.standby) await this.#hosted.open()
      return
    }
    const facts = present(this.#hosted.facts, 'the facts of an image in standby')
    const before = this.#abandoned
    const { decision, recovery, leftByFence } = await ownership.past(facts)
    if (this.#abandoned !== before) {
      await recovery?.abandon()
      return
    }
    if (leftByFence !== null) this.#hosted.fencedBefore(leftByFence)
    if (recovery !== null) {
      this.#recovery = recovery
      const { generation } = recovery
      this.#hosted.waitBecause(`the last run died while it closed generation ${generation}: its writes are waited for`)
      void this.#finish(recovery)
      return
    }
    if (definition.standby) return
    if (decision.act === 'standby') this.#hosted.waitBecause(decision.reason)
    else await this.#openByItself(lockTimeoutMs)
  }

  async #openByItself(lockTimeoutMs: number): Promise<void> {
    const timeoutMs = Math.min(lockTimeoutMs, LOCK_MOMENT_MS)
    try {
      await this.#hosted.open({ receipt: null, takeover: false, timeoutMs })
    } catch (error) {
      if (!isInUse(error) || timeoutMs === lockTimeoutMs) throw error
      void this.#openWhenFree(error.message, lockTimeoutMs)
    }
  }

  async #openWhenFree(reason: string, timeoutMs: number): Promise<void> {
    const { name } = this.#hosted
    this.#waitsBecause = `its lock is waited for: ${reason}`
    this.#context.log.info({ export: name, reason }, 'its lock is waited for')
    try {
      await this.#hosted.open({ receipt: null, takeover: false, timeoutMs })
    } catch (error) {
      this.#context.log.error({ export: name, error: String(error) }, 'it was not opened')
    } finally {
      this.#waitsBecause = null
    }
  }

  /** The receipt of this host's latest close; rejects where there is none. `known` is what this run remembers. */
  async receipt(known: Receipt | null, timeoutMs: number | null): Promise<Receipt> {
    const { name, state, definition, facts, ownership } = this.#hosted
    const recovery = this.#recovery
    if (recovery !== null) {
      const receipt = await within(recovery.finished, timeoutMs)
      if (receipt !== null) return receipt
      const detail = `the writes of generation ${recovery.generation}, which the last run left, have not cleared yet`
      throw new Refusal('still-draining', `export '${name}': ${detail}`)
    }
    const isRecorded = !definition.readOnly && facts !== null
    const receipt = known ?? (isRecorded ? await ownership.receiptOfLastClose(facts) : null)
    if (receipt !== null) return receipt
    const detail = `export '${name}' is ${state} and has no receipt: 'open' it first`
    throw new Refusal('wrong-state', detail, { export: name, state, verb: 'close' })
  }

  /** For an opening: it waits for the same writes itself. */
  async abandon(): Promise<void> {
    this.#abandoned += 1
    this.#asking?.abort()
    const recovery = this.#recovery
    this.#recovery = null
    await recovery?.abandon()
  }

  async #finish(recovery: Recovery): Promise<void> {
    const receipt = await recovery.finished
    const stillWanted = this.#recovery === recovery
    if (stillWanted) this.#recovery = null
    if (receipt === null) return
    this.#hosted.finishedFor(receipt)
    this.#context.emit(this.#hosted.name, { kind: 'receipt', receipt })
    if (!stillWanted || this.#hosted.state !== 'standby') return
    try {
      this.#hosted.waitBecause(null)
      await this.resume(0)
    } catch (error) {
      this.#waitBecause(error)
    }
  }

  /** Fenced behind the gate it has a reason of its own. */
  #waitBecause(error: unknown): void {
    if (this.#hosted.state !== 'standby') return
    this.#hosted.waitBecause(error instanceof Error ? error.message : String(error))
  }
}

function isInUse(error: unknown): error is Refusal {
  return error instanceof Refusal && error.code === 'image-in-use'
}

function isUnreachable(error: unknown): error is Refusal {
  return error instanceof Refusal && error.code === 'record-unreachable'
}
