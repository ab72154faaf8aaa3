/**
 * What a request does on the disk, one engine operation at a time: the transfer, the blocks read around an unaligned
 * write, the ends of a WRITE_ZEROES, the rest of a short transfer. Once, for every engine.
 *
 * 1. What changes the image is handed to the engine only while the export's shared generation is that of its descriptor.
 * 2. A request has at most one engine operation outstanding.
 * 3. A transfer goes on at a block: what a short one did beyond the last whole block is done again.
 */

import { WRITE_DURABLE, ZERO_MAY_PUNCH } from '../engine/contract.ts'
import { Phase } from '../interlock/request-tracker.ts'
import * as nbd from '../nbd/constants.ts'
import { ZERO_FILL_BYTES } from '../plane-link/memory-layout.ts'
import { alignDown, innerLength, innerOffset, isAligned } from './command-plan.ts'
import type { PlaneState } from './plane-state.ts'
import type { ReadyQueue } from './ready-queue.ts'
import { Step } from './request-io.ts'
import type { ServedExport } from './served-export.ts'
import { TokenKind, makeToken } from './token.ts'

const EIO = 5
const EOPNOTSUPP = 95

/** What comes of it; exactly one of these, once, and only when no operation of the request is outstanding. */
export interface StepOutcome {
  done(slot: number): void
  /** `errno` is positive. */
  failed(slot: number, errno: number): void
  /** The export may not write any more; some of the request may have been written. */
  refusedMidway(slot: number): void
  /** Ends with this NBD error, and changed nothing. */
  conclude(slot: number, error: number): void
}

export class DiskSteps {
  readonly #state: PlaneState
  readonly #ready: ReadyQueue
  readonly #outcome: StepOutcome

  constructor(state: PlaneState, ready: ReadyQueue, outcome: StepOutcome) {
    this.#state = state
    this.#ready = ready
    this.#outcome = outcome
  }

  /** Begins a request that has passed the ledger and has its memory. */
  begin(slot: number): void {
    const { tracker } = this.#state
    const served = this.#state.exportOf(slot)
    const offset = tracker.wideOffset[slot] as number
    const length = tracker.wideLength[slot] as number
    const command = tracker.command[slot] as number
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

  /** The engine has completed the one operation of this request. False when an abort had dropped it meanwhile. */
  completed(slot: number, result: number): boolean {
    this.#ready.ended(this.#state.exportOf(slot))
    if (this.#state.io.dropped[slot] === 1) return false
    if (result < 0) this.#failed(slot, -result)
    else this.#succeeded(slot, result)
    return true
  }

  #succeeded(slot: number, result: number): void {
    const { io } = this.#state
    if (transfers(io.step[slot] as number)) {
      const progress = (io.progress[slot] as number) + this.#wholeBlocks(slot, result)
      io.progress[slot] = progress
      if (progress < (io.stepLength[slot] as number)) {
        if (this.#isStuck(slot, result)) this.#outcome.failed(slot, EIO)
        else this.#operate(slot)
        return
      }
    }
    this.#next(slot)
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
    else if (step === Step.discard) this.#outcome.conclude(slot, 0)
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
    if (changes && !served.mayWriteIn(this.#state.turnNumber)) {
      this.#outcome.refusedMidway(slot)
      return
    }
    if ((changes || step === Step.read) && tracker.phase[slot] === Phase.ADMITTED) tracker.submit(slot)
    if (changes) io.wrote[slot] = 1
    this.#ready.begun(served)
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
        this.#outcome.done(slot)
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
    this.#outcome.done(slot)
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

  #failed(slot: number, errno: number): void {
    const { io } = this.#state
    const step = io.step[slot] as Step
    if (errno === EOPNOTSUPP && step === Step.discard) this.#changedNothing(slot, nbd.NBD_SUCCESS)
    else if (errno === EOPNOTSUPP && step === Step.zero) this.#zeroUnsupported(slot)
    else this.#outcome.failed(slot, errno)
  }

  #zeroUnsupported(slot: number): void {
    const { tracker, io } = this.#state
    const fastOnly = ((tracker.flags[slot] as number) & nbd.NBD_CMD_FLAG_FAST_ZERO) !== 0
    if (fastOnly) this.#changedNothing(slot, nbd.NBD_ENOTSUP)
    else this.#start(slot, Step.zeroFill, io.stepOffset[slot] as number, io.stepLength[slot] as number, 0)
  }

  #changedNothing(slot: number, error: number): void {
    this.#state.io.wrote[slot] = 0
    this.#state.io.step[slot] = Step.none
    this.#outcome.conclude(slot, error)
  }

  #isWhole(served: ServedExport, slot: number): boolean {
    const { tracker } = this.#state
    return isAligned(tracker.offset[slot] as number, tracker.length[slot] as number, served.alignmentBytes)
  }

  /**
   * The end of the file, where none should be: nothing was transferred, or less than a block was read. A write that got
   * less than a block done is tried again, for the errno that it then gets.
   */
  #isStuck(slot: number, result: number): boolean {
    const writes = changesImage(this.#state.io.step[slot] as Step)
    return result === 0 || (!writes && alignDown(result, this.#state.exportOf(slot).alignmentBytes) === 0)
  }

  /** A short transfer counts only in whole blocks: direct I/O continues on a block. */
  #wholeBlocks(slot: number, result: number): number {
    const served = this.#state.exportOf(slot)
    const progress = this.#state.io.progress[slot] as number
    if (progress + result === (this.#state.io.stepLength[slot] as number)) return result
    return alignDown(result, served.alignmentBytes)
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
