/**
 * The way of an admitted request: wait for earlier overlapping writes, go to the disk (`disk-steps.ts`), be made durable
 * where that is asked for, and be settled. FUA and what a failure means are here, once, for every engine.
 *
 * 1. A write leaves the ledger only when the kernel has completed it, sync included.
 * 2. Nothing of a request is freed while an engine operation of it is outstanding.
 * 3. In `sync` a failed write becomes indeterminate; in `writeback`, and when a sync fails, the export is faulted.
 */

import { Phase } from '../interlock/request-tracker.ts'
import { SlotList } from '../interlock/slot-list.ts'
import * as nbd from '../nbd/constants.ts'
import { nbdErrorOfErrno } from '../nbd/errno-map.ts'
import type { ExportFaulted } from '../plane-link/reports.ts'
import type { Answers } from './answers.ts'
import { isWriteCommand } from './command-plan.ts'
import { DiskSteps } from './disk-steps.ts'
import type { StepOutcome } from './disk-steps.ts'
import type { PlaneState } from './plane-state.ts'
import { ReadyQueue } from './ready-queue.ts'
import { NO_SLOT, Step } from './request-io.ts'
import type { ServedExport } from './served-export.ts'
import type { Syncs } from './syncs.ts'

export class Executor implements StepOutcome {
  readonly #state: PlaneState
  readonly #answers: Answers
  readonly #syncs: Syncs
  /** Admitted, nothing in the way, and waiting for room in the engine. */
  readonly #ready: ReadyQueue
  readonly #released: SlotList
  readonly #steps: DiskSteps

  constructor(state: PlaneState, answers: Answers, syncs: Syncs) {
    this.#state = state
    this.#answers = answers
    this.#syncs = syncs
    this.#ready = new ReadyQueue(state)
    this.#released = new SlotList(state.limits.slotsMax)
    this.#steps = new DiskSteps(state, this.#ready, this)
  }

  get operationsInFlight(): number {
    return this.#ready.operations
  }

  /** Passes a parsed request, with its payload and its memory, through the ledger. */
  admit(slot: number): void {
    const { tracker } = this.#state
    const served = this.#state.exportOf(slot)
    const command = tracker.command[slot] as number
    tracker.admit(slot)
    if (command === nbd.NBD_CMD_FLUSH) {
      this.#flush(served, slot)
    } else if (command === nbd.NBD_CMD_CACHE || tracker.length[slot] === 0) {
      this.#pass(slot)
    } else if (!isWriteCommand(command)) {
      this.#ready.push(served, slot)
    } else if (served.ledger.admit(slot, tracker.wideOffset[slot] as number, tracker.wideLength[slot] as number)) {
      this.#ready.push(served, slot)
    } else {
      tracker.holdBack(slot)
    }
  }

  /** Hands the engine what it has room for. */
  pump(): void {
    for (let slot = this.#ready.take(); slot !== NO_SLOT; slot = this.#ready.take()) this.#begin(slot)
  }

  /** The engine has completed the one operation of this request. */
  completed(slot: number, result: number): void {
    if (this.#steps.completed(slot, result)) return
    this.#drop(slot)
  }

  /** Lets the slots run that the ledger released; after `RangeLedger.release` too. */
  letGo(released: SlotList): void {
    for (let index = 0; index < released.count; index += 1) {
      const slot = released.at(index)
      this.#state.tracker.letGo(slot)
      this.#ready.push(this.#state.exportOf(slot), slot)
    }
    released.empty()
  }

  /**
   * Drops everything of an export that was admitted and not submitted, unanswered; says each slot first. What is reading
   * for a read-modify-write is dropped when that read has completed.
   */
  abortUnsubmitted(served: ServedExport, each: (slot: number) => void): void {
    const { tracker, io } = this.#state
    const dropped: number[] = []
    tracker.slotsOfExport(served.index, (slot) => {
      const phase = tracker.phase[slot]
      if ((phase === Phase.ADMITTED || phase === Phase.HELD) && io.dropped[slot] === 0) dropped.push(slot)
    })
    for (const slot of dropped) {
      each(slot)
      io.dropped[slot] = 1
    }
    this.#ready.filter(served, (slot) => io.dropped[slot] === 0)
    for (const slot of dropped) if (io.step[slot] === Step.none) this.#drop(slot)
  }

  /** The export may not submit any more: what was not submitted is answered NBD_ESHUTDOWN. */
  refuseUnsubmitted(served: ServedExport): void {
    const { tracker, io } = this.#state
    this.#ready.filter(served, () => false)
    const refused: number[] = []
    tracker.slotsOfExport(served.index, (slot) => {
      const phase = tracker.phase[slot]
      if ((phase === Phase.ADMITTED || phase === Phase.HELD) && io.step[slot] === Step.none) refused.push(slot)
    })
    for (const slot of refused) {
      if (tracker.phase[slot] === Phase.HELD) tracker.letGo(slot)
      tracker.submit(slot)
      tracker.clear(slot)
      if (isWriteCommand(tracker.command[slot] as number)) served.ledger.clear(slot, this.#released)
      this.#answers.answer(slot, nbd.NBD_ESHUTDOWN)
    }
    // Whatever the refused ones kept waiting was refused itself.
    this.#released.empty()
  }

  /** Fences the export from inside the data plane: this generation can never be reported closed. */
  fault(served: ServedExport, errno: number, during: ExportFaulted['during']): void {
    if (served.faulted) return
    served.faulted = true
    served.gate.set('refuse', 'refuse')
    this.#state.say({ kind: 'exportFaulted', exportId: served.exportId, errno, during })
    this.refuseUnsubmitted(served)
  }

  /** A sync has completed: those that waited for it are answered, and a failed one fences (guarantee 6). */
  synced(served: ServedExport, result: number): void {
    const { wrote, nextInSync } = this.#state.io
    let slot = this.#syncs.completed(served, result)
    if (result < 0) this.fault(served, -result, 'sync')
    while (slot !== NO_SLOT) {
      // Once it is concluded, its slot may be another request's.
      const next = nextInSync[slot] as number
      if (result < 0 && wrote[slot] === 1) this.#indeterminate(served, slot)
      this.conclude(slot, result < 0 ? nbdErrorOfErrno(-result) : 0)
      slot = next
    }
  }

  /** Answers a request whose disk work is over, and lets go of what it kept waiting. `errno` is 0 or positive. */
  conclude(slot: number, error: number): void {
    const { tracker } = this.#state
    const served = this.#state.exportOf(slot)
    if (tracker.phase[slot] === Phase.ADMITTED) tracker.submit(slot)
    tracker.clear(slot)
    this.#leaveLedger(served, slot)
    if (error !== 0) served.errors += 1
    this.#answers.answer(slot, error)
  }

  #leaveLedger(served: ServedExport, slot: number): void {
    const { tracker } = this.#state
    if (!isWriteCommand(tracker.command[slot] as number) || tracker.length[slot] === 0) return
    served.ledger.clear(slot, this.#released)
    if (this.#released.count > 0) this.letGo(this.#released)
  }

  #begin(slot: number): void {
    const served = this.#state.exportOf(slot)
    const changes = isWriteCommand(this.#state.tracker.command[slot] as number)
    if (changes && !served.mayWriteIn(this.#state.turnNumber)) this.conclude(slot, nbd.NBD_ESHUTDOWN)
    else this.#steps.begin(slot)
  }

  /** Every step succeeded. */
  done(slot: number): void {
    const { tracker, io } = this.#state
    const served = this.#state.exportOf(slot)
    const command = tracker.command[slot] as number
    const length = tracker.length[slot] as number
    io.step[slot] = Step.none
    if (command === nbd.NBD_CMD_READ) {
      served.reads += 1
      served.bytesRead += length
      this.conclude(slot, 0)
      return
    }
    if (command === nbd.NBD_CMD_TRIM) {
      served.trims += 1
    } else {
      served.writes += 1
      served.bytesWritten += length
      // What a read-modify-write read around its payload is as unknown as it was.
      if (served.indeterminate.count > 0) served.indeterminate.overwrite(tracker.offset[slot] as number, length)
    }
    if (this.#needsSync(slot, served)) {
      io.step[slot] = Step.sync
      served.dirty += 1
      this.#syncs.join(served, slot)
      return
    }
    if (served.durability === 'writeback') served.dirty += 1
    this.conclude(slot, 0)
  }

  #needsSync(slot: number, served: ServedExport): boolean {
    const { tracker, io } = this.#state
    if (io.wrote[slot] === 0) return false
    if (served.durability === 'sync') return served.syncAfterWrite || tracker.command[slot] !== nbd.NBD_CMD_WRITE
    return ((tracker.flags[slot] as number) & nbd.NBD_CMD_FLAG_FUA) !== 0
  }

  /** A step failed; nothing of the request is outstanding. */
  failed(slot: number, errno: number): void {
    const { io, tracker } = this.#state
    const served = this.#state.exportOf(slot)
    io.step[slot] = Step.none
    if (io.wrote[slot] === 1) this.writeFailed(served, slot, errno, during(tracker.command[slot] as number))
    this.conclude(slot, nbdErrorOfErrno(errno))
  }

  /** Guarantee 6: a failed write stays listed, or fences. */
  writeFailed(served: ServedExport, slot: number, errno: number, what: ExportFaulted['during']): void {
    const { tracker } = this.#state
    this.#indeterminate(served, slot)
    const range = { offset: tracker.wideOffset[slot] as number, length: tracker.wideLength[slot] as number }
    this.#state.say({ kind: 'writeFailed', exportId: served.exportId, errno, range })
    if (served.durability === 'writeback') this.fault(served, errno, what)
  }

  /** The generation changed between two steps of one request. */
  refusedMidway(slot: number): void {
    const { io } = this.#state
    const served = this.#state.exportOf(slot)
    io.step[slot] = Step.none
    if (io.wrote[slot] === 1) this.#indeterminate(served, slot)
    this.conclude(slot, nbd.NBD_ESHUTDOWN)
  }

  #flush(served: ServedExport, slot: number): void {
    served.flushes += 1
    if (!served.isDirty || served.faulted || !served.hasFile) {
      this.#state.tracker.submit(slot)
      this.conclude(slot, served.faulted ? nbd.NBD_ESHUTDOWN : 0)
      return
    }
    this.#state.tracker.submit(slot)
    this.#state.io.step[slot] = Step.sync
    this.#syncs.join(served, slot)
  }

  /** Nothing to do on the disk. */
  #pass(slot: number): void {
    this.#state.tracker.submit(slot)
    this.#state.tracker.clear(slot)
    this.#answers.answer(slot, 0)
  }

  #drop(slot: number): void {
    const { tracker } = this.#state
    const served = this.#state.exportOf(slot)
    if (isWriteCommand(tracker.command[slot] as number) && (tracker.length[slot] as number) > 0) {
      served.ledger.clear(slot, this.#released)
      // What waited for it is either dropped by the same abort, or may run now.
      this.#dropReleased()
    }
    this.#state.finish(slot)
  }

  #dropReleased(): void {
    const { io, tracker } = this.#state
    for (let index = 0; index < this.#released.count; index += 1) {
      const slot = this.#released.at(index)
      if (io.dropped[slot] === 1) continue
      tracker.letGo(slot)
      this.#ready.push(this.#state.exportOf(slot), slot)
    }
    this.#released.empty()
  }

  #indeterminate(served: ServedExport, slot: number): void {
    const { tracker } = this.#state
    served.indeterminate.add(tracker.wideOffset[slot] as number, tracker.wideLength[slot] as number)
  }
}

function during(command: number): ExportFaulted['during'] {
  if (command === nbd.NBD_CMD_TRIM) return 'trim'
  return command === nbd.NBD_CMD_WRITE_ZEROES ? 'zero' : 'write'
}
