/**
 * This host as the ownership rules see it: its identity, the open tokens and receipts that it has left for itself, and
 * which of its runs live. All of it is in the state directory; without that directory this is another host.
 */

import type { BlockingRunner } from '../blocking/calls.ts'
import type { RecordHolder } from './home.ts'
import { kinshipOf } from './kinship.ts'
import type { Kinship } from './kinship.ts'
import {
  dropOpenToken,
  establishIdentity,
  hasFenceMark,
  hasOpenToken,
  leaveFenceMark,
  leaveOpenToken,
  prepareOpenTokens,
} from './local-identity.ts'
import type { LocalIdentity } from './local-identity.ts'
import { ReceiptShelf } from './receipt-shelf.ts'
import { RunRegistry } from './run-registry.ts'

export class LocalHost {
  readonly identity: LocalIdentity
  readonly receipts: ReceiptShelf
  readonly #stateDirectory: string
  readonly #runner: BlockingRunner
  readonly #runs: RunRegistry

  private constructor(stateDirectory: string, runner: BlockingRunner, identity: LocalIdentity) {
    this.identity = identity
    this.receipts = new ReceiptShelf(stateDirectory, runner)
    this.#stateDirectory = stateDirectory
    this.#runner = runner
    this.#runs = new RunRegistry(stateDirectory, runner)
  }

  /** Reads or creates what is in the state directory, and counts as alive from here on. */
  static async establish(stateDirectory: string, runner: BlockingRunner): Promise<LocalHost> {
    const identity = await establishIdentity(stateDirectory, runner)
    const host = new LocalHost(stateDirectory, runner, identity)
    await host.receipts.prepare()
    await prepareOpenTokens(stateDirectory, runner)
    await host.#runs.enter(identity.instance)
    return host
  }

  /** The holder that a record of this run names, with a fresh token that is durable here before the record can be. */
  async newHolder(): Promise<RecordHolder> {
    const { host, boot, instance, name } = this.identity
    return { host, boot, instance, name, openToken: await leaveOpenToken(this.#stateDirectory, this.#runner) }
  }

  /** For a holder that no record names any more. */
  forget(holder: RecordHolder): Promise<void> {
    return dropOpenToken(this.#stateDirectory, holder.openToken, this.#runner)
  }

  /** What this holder has opened is fenced: no run of this host calls it closed. Durable when it settles. */
  markFenced({ openToken }: RecordHolder): Promise<void> {
    return leaveFenceMark(this.#stateDirectory, openToken, this.#runner)
  }

  /** Whether a run of this host has marked it so. */
  wasFenced({ openToken }: RecordHolder): Promise<boolean> {
    return hasFenceMark(this.#stateDirectory, openToken, this.#runner)
  }

  async kinship(holder: RecordHolder): Promise<Kinship> {
    const { identity } = this
    if (holder.host !== identity.host) return 'other-host'
    const tokenKnown = await hasOpenToken(this.#stateDirectory, holder.openToken, this.#runner)
    const sameBoot = holder.boot === identity.boot
    const isAlive = sameBoot && (holder.instance === identity.instance || (await this.#runs.isAlive(holder.instance)))
    return kinshipOf(holder, identity, tokenKnown, isAlive)
  }

  close(): Promise<void> {
    return this.#runs.leave(this.identity.instance)
  }
}
