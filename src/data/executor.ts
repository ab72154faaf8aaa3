/**
 * The way of an admitted request to the disk: wait for earlier overlapping writes, run its steps one engine operation
 * at a time, make it durable where that is asked for, and settle it. Read-modify-write, continuation of short transfers
 * and FUA are here, once, for every engine.
 *
 * 1. A write is handed to the engine only while the export's shared generation is the one of its descriptor.
 * 2. A request has at most one engine operation outstanding; nothing of it is freed before that has completed.
 * 3. A write leaves the ledger only when the kernel has completed it, sync included.
 * 4. In `sync` a failed write becomes indeterminate; in `writeback`, and when a sync fails, the export is faulted.
 */

import { WRITE_DURABLE, ZERO_MAY_PUNCH } from '../engine/contract.ts'
import { assert } from '../foundation/assert.ts'
import { Phase } from '../interlock/request-tracker.ts'
import { SlotList } from '../interlock/slot-list.ts'
import * as nbd from '../nbd/constants.ts'
import { nbdErrorOfErrno } from '../nbd/errno-map.ts'
import type { ExportFaulted } from '../plane-link/reports.ts'
import type { Answers } from './answers.ts'
import { alignDown, innerLength, innerOffset, isAligned, isWriteCommand } from './command-plan.ts'
import { ZERO_FILL_BYTES } from '../plane-link/memory-layout.ts'
import type { PlaneState } from './plane-state.ts'
import { Step } from './request-io.ts'
import { Ring } from './ring.ts'
import type { ServedExport } from './served-export.ts'
import type { Syncs } from './syncs.ts'
import { TokenKind, makeToken } from './token.ts'

const EIO = 5
const EOPNOTSUPP = 95

export class Executor {
  readonly #state: PlaneState
  readonly #answers: Answers
  readonly #syncs: Syncs
  /** Admitted, nothing in the way, and waiting for room in the engine. */
  readonly #ready: Ring
  readonly #released: SlotList
  #inFlight = 0

  constructor(state: PlaneState, answers: Answers, syncs: Syncs) {
    this.#state = state
    this.#answers = answers
    this.#syncs = syncs
    this.#ready = new Ring(state.limits.slotsMax)
    this.#released = new SlotList(state.limits.slotsMax)
  }

  get operationsInFlight(): number {
    return this.#inFlight
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
      this.#ready.push(slot)
    } else if (served.ledger.admit(slot, tracker.wideOffset[slot] as number, tracker.wideLength[slot] as number)) {
      this.#ready.push(slot)
    } else {
      tracker.holdBack(slot)
    }
  }

  /** Hands the engine what it has room for. */
  pump(): void {
    while (this.#ready.count > 0 && this.#inFlight < this.#state.engine.diskDepth) this.#begin(this.#ready.shift())
  }

  /** The engine has completed the one operation of this request. */
  completed(slot: number, result: number): void {
    this.#inFlight -= 1
    const { io, tracker } = this.#state
    if (io.dropped[slot] === 1) {
      this.#drop(slot)
      return
    }
    if (result < 0) {
      this.#failed(slot, -result)
      return
    }
    if (transfers(io.step[slot] as number)) {
      const progress = (io.progress[slot] as number) + this.#wholeBlocks(slot, result)
      io.progress[slot] = progress
      if (progress < (io.stepLength[slot] as number)) {
        if (result === 0) this.#failed(slot, EIO)
        else this.#operate(slot)
        return
      }
    }
    assert(tracker.phase[slot] !== Phase.FREE, 'a completed request is still here')
    this.#next(slot)
  }

  /** Lets the slots run that the ledger released; after `RangeLedger.release` too. */
  letGo(released: SlotList): void {
    for (let index = 0; index < released.count; index += 1) {
      const slot = released.at(index)
      this.#state.tracker.letGo(slot)
      this.#ready.push(slot)
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
    this.#ready.filter((slot) => io.dropped[slot] === 0)
    for (const slot of dropped) if (io.step[slot] === Step.none) this.#drop(slot)
  }

  /** The export may not submit any more: what was not submitted is answered NBD_ESHUTDOWN. */
  refuseUnsubmitted(served: ServedExport): void {
    const { tracker, io } = this.#state
    this.#ready.filter((slot) => tracker.exportIndex[slot] !== served.index)
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
    const covered = this.#syncs.completed(served, result)
    if (result < 0) this.fault(served, -result, 'sync')
    for (const slot of covered) {
      if (result < 0 && this.#state.io.wrote[slot] === 1) this.#indeterminate(served, slot)
      this.conclude(slot, result < 0 ? nbdErrorOfErrno(-result) : 0)
    }
    covered.length = 0
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
    const { tracker } = this.#state
    const served = this.#state.exportOf(slot)
    const offset = tracker.wideOffset[slot] as number
    const length = tracker.wideLength[slot] as number
    const command = tracker.command[slot] as number
    if (isWriteCommand(command) && !this.#mayWrite(served)) {
      this.conclude(slot, nbd.NBD_ESHUTDOWN)
      return
    }
    const buffer = this.#state.io.buffer[slot] as number
    switch (command) {
      case nbd.NBD_CMD_READ:
        this.#start(slot, Step.read, offset, length, buffer)
        return
      case nbd.NBD_CMD_WRITE:
        if (this.#isWhole(served, slot)) this.#start(slot, Step.write, offset, length, buffer)
        else this.#beginModify(slot, served, buffer + length)
        return
      case nbd.NBD_CMD_TRIM:
        this.#beginInner(slot, served, Step.discard)
        return
      default:
        this.#beginInner(slot, served, Step.zero)
    }
  }

  /** Read-modify-write begins with the block at the end that is not whole; `bounce` is where it is read to. */
  #beginModify(slot: number, served: ServedExport, bounce: number): void {
    const { tracker } = this.#state
    const alignment = served.alignmentBytes
    const offset = tracker.wideOffset[slot] as number
    const length = tracker.wideLength[slot] as number
    const headIsWhole = offset === tracker.offset[slot] && length > alignment
    if (headIsWhole) this.#start(slot, Step.readTail, offset + length - alignment, alignment, bounce)
    else this.#start(slot, Step.readHead, offset, alignment, bounce)
  }

  /** TRIM and WRITE_ZEROES begin with the whole blocks inside their range. */
  #beginInner(slot: number, served: ServedExport, step: Step): void {
    const { tracker } = this.#state
    const offset = tracker.offset[slot] as number
    const length = innerLength(offset, tracker.length[slot] as number, served.alignmentBytes)
    if (length > 0) this.#start(slot, step, innerOffset(offset, served.alignmentBytes), length, 0)
    else if (step === Step.discard) this.conclude(slot, 0)
    else this.#beginEdge(slot, served, 0)
  }

  #start(slot: number, step: Step, offset: number, length: number, arenaOffset: number): void {
    const { io } = this.#state
    io.step[slot] = step
    io.stepOffset[slot] = offset
    io.stepLength[slot] = length
    io.stepArena[slot] = arenaOffset
    io.progress[slot] = 0
    this.#operate(slot)
  }

  /** One engine operation for what is left of the present step. */
  #operate(slot: number): void {
    const { io, tracker, engine } = this.#state
    const served = this.#state.exportOf(slot)
    const step = io.step[slot] as Step
    const progress = io.progress[slot] as number
    const offset = (io.stepOffset[slot] as number) + progress
    const length = (io.stepLength[slot] as number) - progress
    const memory = (io.stepArena[slot] as number) + progress
    const token = makeToken(TokenKind.request, slot, tracker.reuse[slot] as number)
    const changes = changesImage(step)
    if (changes && !this.#mayWrite(served)) {
      this.#refuseMidway(slot)
      return
    }
    if ((changes || step === Step.read) && tracker.phase[slot] === Phase.ADMITTED) tracker.submit(slot)
    if (changes) io.wrote[slot] = 1
    this.#inFlight += 1
    const durable = served.durability === 'sync' ? WRITE_DURABLE : 0
    switch (step) {
      case Step.write:
      case Step.edgeWrite:
        engine.write(served.file, token, offset, memory, length, durable)
        return
      case Step.zeroFill:
        engine.write(
          served.file,
          token,
          offset,
          this.#state.layout.zeroesAt,
          Math.min(length, ZERO_FILL_BYTES),
          durable,
        )
        return
      case Step.discard:
        engine.discard(served.file, token, offset, length)
        return
      case Step.zero:
        engine.zero(served.file, token, offset, length, this.#mayPunch(slot) ? ZERO_MAY_PUNCH : 0)
        return
      default:
        engine.read(served.file, token, offset, memory, length)
    }
  }

  /** A step is complete: the next one, or the end. */
  #next(slot: number): void {
    const { io } = this.#state
    const served = this.#state.exportOf(slot)
    switch (io.step[slot] as Step) {
      case Step.readHead:
        this.#headRead(slot, served)
        return
      case Step.readTail:
        this.#tailRead(slot, served)
        return
      case Step.edgeRead:
        this.#edgeRead(slot, served)
        return
      case Step.zero:
      case Step.zeroFill:
        this.#beginEdge(slot, served, 0)
        return
      case Step.edgeWrite:
        this.#beginEdge(slot, served, (io.edge[slot] as number) + 1)
        return
      default:
        this.#done(slot, served)
    }
  }

  /** The first block of an unaligned write was read: what lies before the payload comes from it. */
  #headRead(slot: number, served: ServedExport): void {
    const { tracker, io, bytes } = this.#state
    const alignment = served.alignmentBytes
    const wideOffset = tracker.wideOffset[slot] as number
    const wideLength = tracker.wideLength[slot] as number
    const buffer = io.buffer[slot] as number
    const bounce = io.stepArena[slot] as number
    const before = (tracker.offset[slot] as number) - wideOffset
    bytes.copyWithin(buffer, bounce, bounce + before)
    if (wideLength === alignment) {
      this.#tailRead(slot, served)
      return
    }
    const end = (tracker.offset[slot] as number) + (tracker.length[slot] as number)
    if (end % alignment === 0) this.#start(slot, Step.write, wideOffset, wideLength, buffer)
    else this.#start(slot, Step.readTail, wideOffset + wideLength - alignment, alignment, bounce)
  }

  #tailRead(slot: number, served: ServedExport): void {
    const { tracker, io } = this.#state
    this.#tailFrom(slot, io.stepArena[slot] as number, served.alignmentBytes)
    this.#start(
      slot,
      Step.write,
      tracker.wideOffset[slot] as number,
      tracker.wideLength[slot] as number,
      io.buffer[slot] as number,
    )
  }

  /** What lies behind the payload comes from the last block, which stands at `bounce`. */
  #tailFrom(slot: number, bounce: number, alignmentBytes: number): void {
    const { tracker, io, bytes } = this.#state
    const wideEnd = (tracker.wideOffset[slot] as number) + (tracker.wideLength[slot] as number)
    const after = wideEnd - (tracker.offset[slot] as number) - (tracker.length[slot] as number)
    const end = (io.buffer[slot] as number) + (tracker.wideLength[slot] as number)
    bytes.copyWithin(end - after, bounce + alignmentBytes - after, bounce + alignmentBytes)
  }

  /** The partial blocks of a WRITE_ZEROES, one after the other; then the end. */
  #beginEdge(slot: number, served: ServedExport, from: number): void {
    const { tracker, io } = this.#state
    const alignment = served.alignmentBytes
    const offset = tracker.offset[slot] as number
    const end = offset + (tracker.length[slot] as number)
    const first = alignDown(offset, alignment)
    const last = alignDown(end, alignment)
    for (let edge = from; edge < 2; edge += 1) {
      const block = edge === 0 ? first : last
      const partial = edge === 0 ? offset !== first || end < first + alignment : end !== last && last !== first
      if (!partial) continue
      io.edge[slot] = edge
      this.#start(slot, Step.edgeRead, block, alignment, io.buffer[slot] as number)
      return
    }
    this.#done(slot, served)
  }

  #edgeRead(slot: number, served: ServedExport): void {
    const { tracker, io, bytes } = this.#state
    const block = io.stepOffset[slot] as number
    const offset = tracker.offset[slot] as number
    const end = offset + (tracker.length[slot] as number)
    const memory = io.stepArena[slot] as number
    const from = Math.max(0, offset - block)
    const to = Math.min(served.alignmentBytes, end - block)
    bytes.fill(0, memory + from, memory + to)
    this.#start(slot, Step.edgeWrite, block, served.alignmentBytes, memory)
  }

  /** Every step succeeded. */
  #done(slot: number, served: ServedExport): void {
    const { tracker, io } = this.#state
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
      if (served.indeterminate.count > 0)
        served.indeterminate.overwrite(tracker.wideOffset[slot] as number, tracker.wideLength[slot] as number)
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
    if (served.durability === 'sync') return tracker.command[slot] !== nbd.NBD_CMD_WRITE
    return ((tracker.flags[slot] as number) & nbd.NBD_CMD_FLAG_FUA) !== 0
  }

  #failed(slot: number, errno: number): void {
    const { io, tracker } = this.#state
    const served = this.#state.exportOf(slot)
    const step = io.step[slot] as Step
    io.step[slot] = Step.none
    if (errno === EOPNOTSUPP && step === Step.discard) {
      io.wrote[slot] = 0
      this.conclude(slot, 0)
      return
    }
    if (errno === EOPNOTSUPP && step === Step.zero) {
      this.#zeroUnsupported(slot)
      return
    }
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

  #zeroUnsupported(slot: number): void {
    const { tracker, io } = this.#state
    if (((tracker.flags[slot] as number) & nbd.NBD_CMD_FLAG_FAST_ZERO) !== 0) {
      io.wrote[slot] = 0
      this.conclude(slot, nbd.NBD_ENOTSUP)
      return
    }
    this.#start(slot, Step.zeroFill, io.stepOffset[slot] as number, io.stepLength[slot] as number, 0)
  }

  /** The generation changed between two steps of one request. */
  #refuseMidway(slot: number): void {
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
      this.#ready.push(slot)
    }
    this.#released.empty()
  }

  #mayWrite(served: ServedExport): boolean {
    if (served.checkedTurn !== this.#state.turnNumber) {
      served.checkedTurn = this.#state.turnNumber
      served.mayWrite =
        served.generation !== 0 && Atomics.load(served.generationCell, 0) === served.generation && !served.faulted
    }
    return served.mayWrite && !served.faulted
  }

  #isWhole(served: ServedExport, slot: number): boolean {
    const { tracker } = this.#state
    return isAligned(tracker.offset[slot] as number, tracker.length[slot] as number, served.alignmentBytes)
  }

  /** A short transfer counts only in whole blocks: direct I/O continues on a block. */
  #wholeBlocks(slot: number, result: number): number {
    const served = this.#state.exportOf(slot)
    const progress = this.#state.io.progress[slot] as number
    if (progress + result === (this.#state.io.stepLength[slot] as number)) return result
    return alignDown(result, served.alignmentBytes)
  }

  #indeterminate(served: ServedExport, slot: number): void {
    const { tracker } = this.#state
    served.indeterminate.add(tracker.wideOffset[slot] as number, tracker.wideLength[slot] as number)
  }

  #mayPunch(slot: number): boolean {
    return ((this.#state.tracker.flags[slot] as number) & nbd.NBD_CMD_FLAG_NO_HOLE) === 0
  }
}

function transfers(step: number): boolean {
  return step !== Step.discard && step !== Step.zero && step !== Step.sync
}

function changesImage(step: Step): boolean {
  return (
    step === Step.write ||
    step === Step.edgeWrite ||
    step === Step.zeroFill ||
    step === Step.discard ||
    step === Step.zero
  )
}

function during(command: number): ExportFaulted['during'] {
  if (command === nbd.NBD_CMD_TRIM) return 'trim'
  return command === nbd.NBD_CMD_WRITE_ZEROES ? 'zero' : 'write'
}
