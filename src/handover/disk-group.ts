/**
 * Several disks of one guest, handed over together: each step runs for all of them at once, and has succeeded when it has
 * for every one. A guest needs all of its disks in one place, so the way back takes back also those that the destination
 * has opened. Which step comes when is the business of whoever moves the guest.
 */

import type { Receipt } from '../client/index.ts'
import type { DiskHandover } from './disk-handover.ts'
import type { Ending, Failure } from './ending.ts'
import { StepFailed } from './ending.ts'
import type { PreflightReport } from './preflight.ts'
import type { Standing } from './standing.ts'

export class DiskGroup {
  readonly disks: readonly DiskHandover[]

  constructor(disks: readonly DiskHandover[]) {
    this.disks = disks
  }

  /** How far each is, in the order of the disks. */
  async stand(): Promise<readonly Standing[]> {
    return this.#all(async (disk) => (await disk.stand()).standing)
  }

  /** A finding that refuses, of any of them, is a failure. */
  preflight(): Promise<readonly PreflightReport[]> {
    return this.#all((disk) => disk.passPreflight())
  }

  async standby(): Promise<void> {
    await this.#all((disk) => disk.standby())
  }

  async beginClose(): Promise<void> {
    await this.#all((disk) => disk.beginClose())
  }

  /** Null for those that are closed early. */
  awaitClosed(): Promise<readonly (Receipt | null)[]> {
    return this.#all((disk) => disk.awaitClosed())
  }

  async open(): Promise<void> {
    await this.#all((disk) => disk.open())
  }

  async verify(): Promise<void> {
    await this.#all((disk) => disk.verify())
  }

  /** Of those that were closed early; null where one has not drained in time. */
  awaitDrained(): Promise<readonly (Receipt | null)[]> {
    return this.#all((disk) => disk.awaitDrained())
  }

  /** Every disk back at the source, also those that had been opened at the destination: the guest must not run there. */
  wayBack(failure: Failure): Promise<readonly Ending[]> {
    return this.#all((disk) => disk.wayBack(failure, { evenIfOpened: true }))
  }

  /** Ends the watching of all of them. */
  async finish(endings: readonly Ending[]): Promise<void> {
    await Promise.all(this.disks.map((disk, index) => disk.finish(endings[index] ?? neverEnded())))
  }

  /** Waits for all of them, whatever happens to one: a step that is still under way must not meet the next. */
  async #all<T>(step: (disk: DiskHandover) => Promise<T>): Promise<T[]> {
    const settled = await Promise.allSettled(this.disks.map(step))
    for (const [index, result] of settled.entries()) {
      if (result.status === 'fulfilled') continue
      const { reason } = result as { reason: unknown }
      if (!(reason instanceof StepFailed)) throw reason
      const { name } = this.disks[index]?.disk ?? { name: '' }
      throw new StepFailed({ ...reason.failure, message: `${name}: ${reason.failure.message}` }, reason)
    }
    return settled.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []))
  }
}

function neverEnded(): never {
  throw new TypeError('there is an ending for each disk')
}
