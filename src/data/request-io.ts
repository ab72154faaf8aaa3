/**
 * What the data plane knows of each request beyond the interlock's tracker: its buffer, the disk step it is in, and the
 * answer it will get. Columns by the tracker's slot; all of it is made once.
 */

/** The disk step a request is in. A request has at most one engine operation outstanding. */
export const Step = {
  none: 0,
  read: 1,
  write: 2,
  /** Read-modify-write: the first and the last block of the widened range are read before the write. */
  readHead: 3,
  readTail: 4,
  discard: 5,
  zero: 6,
  /** Zeroing by writing zeroes, where the file cannot do better. */
  zeroFill: 7,
  /** The partial blocks at both ends of a WRITE_ZEROES. */
  edgeRead: 8,
  edgeWrite: 9,
  sync: 10,
} as const
export type Step = (typeof Step)[keyof typeof Step]

export const NO_BUFFER = -1
export const NO_SLOT = -1

export class RequestIo {
  /** Arena offset of the request's buffer, or NO_BUFFER. */
  readonly buffer: Int32Array
  readonly bufferBytes: Int32Array
  /** Arena offset of the first byte the client sent or gets. */
  readonly payloadAt: Int32Array
  readonly step: Uint8Array
  /** The range and memory of the present step, and how much of it is done. */
  readonly stepOffset: Float64Array
  readonly stepLength: Float64Array
  readonly stepArena: Int32Array
  readonly progress: Float64Array
  /** Which partial block of a WRITE_ZEROES is being worked on: 0 the first, 1 the last. */
  readonly edge: Uint8Array
  /** The NBD error of the answer; 0 is success. */
  readonly error: Uint16Array
  /** 1 once a write of this request was handed to the engine. */
  readonly wrote: Uint8Array
  /** The request behind this one among those that wait for the same sync, or NO_SLOT. */
  readonly nextInSync: Int32Array
  /** The request behind this one among those of its export that wait for room in the engine, or NO_SLOT. */
  readonly nextReady: Int32Array
  /** 1 when an abort dropped it while an operation was still outstanding. */
  readonly dropped: Uint8Array

  constructor(slotsMax: number) {
    this.buffer = new Int32Array(slotsMax).fill(NO_BUFFER)
    this.bufferBytes = new Int32Array(slotsMax)
    this.payloadAt = new Int32Array(slotsMax)
    this.step = new Uint8Array(slotsMax)
    this.stepOffset = new Float64Array(slotsMax)
    this.stepLength = new Float64Array(slotsMax)
    this.stepArena = new Int32Array(slotsMax)
    this.progress = new Float64Array(slotsMax)
    this.edge = new Uint8Array(slotsMax)
    this.error = new Uint16Array(slotsMax)
    this.wrote = new Uint8Array(slotsMax)
    this.nextInSync = new Int32Array(slotsMax).fill(NO_SLOT)
    this.nextReady = new Int32Array(slotsMax).fill(NO_SLOT)
    this.dropped = new Uint8Array(slotsMax)
  }

  reset(slot: number): void {
    this.buffer[slot] = NO_BUFFER
    this.bufferBytes[slot] = 0
    this.step[slot] = Step.none
    this.progress[slot] = 0
    this.edge[slot] = 0
    this.error[slot] = 0
    this.wrote[slot] = 0
    this.dropped[slot] = 0
  }
}
