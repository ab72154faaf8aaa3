/**
 * The contract between the data plane and whatever moves its bytes. Integers only: no promise, no Error, no Buffer.
 *
 * 1. Every token given to a call completes exactly once through `next`, also after `endStream` (with -ECANCELED).
 * 2. A call never fails, blocks or completes inside itself. A full queue is the engine's own matter.
 * 3. `next` is called only inside a turn, and never calls back.
 * 4. Memory named by an arena offset belongs to the engine until the token has completed.
 * 5. Transfers may be short. Whoever called continues them: continuation, read-modify-write, FUA and ordering live
 *    above this contract, once, in `data/`.
 *
 * All engines (file, io_uring, and the simulated one of the tests) pass the same contract test.
 */

export type StreamId = number
export type FileId = number
/** Chosen by the caller; a non-negative safe integer. */
export type Token = number

/** Filled by `Engine.next`. `result` is bytes (or 0), or a negative errno. */
export interface Completion {
  token: Token
  result: number
}

/**
 * What to send, as pairs of arena offset and length. Read inside the call; only the bytes must stay. At most
 * `SEND_PARTS_MAX` parts.
 */
export interface PartList {
  readonly count: number
  readonly offsets: Int32Array
  readonly lengths: Int32Array
}

export const SEND_PARTS_MAX = 64

/** Flags of `write`. The file was opened with O_DSYNC as well when the export is `sync`; io_uring adds RWF_DSYNC. */
export const WRITE_DURABLE = 1
/** Flag of `zero`: the range may be deallocated (punched). Without it the space stays allocated. */
export const ZERO_MAY_PUNCH = 1

export type EngineKind = 'io_uring' | 'file' | 'simulated'

export interface Engine {
  readonly kind: EngineKind
  /** How many disk operations this engine takes to the kernel at once; more than that queue inside the process. */
  readonly diskDepth: number

  /** io_uring: loops until the stop word is set, asleep when idle. file: returns, then one turn per batch of completions. */
  run(turn: () => void): void
  /** Makes a turn happen soon. From any thread that holds the engine or its doorbell. */
  wake(): void
  /** Takes one completion. False when there is none left in this turn. */
  next(into: Completion): boolean

  /** Takes over the descriptor of a connected socket. The engine closes it when the stream has ended. */
  addStream(descriptor: number): StreamId
  /** Shuts the socket down, completes what is outstanding with -ECANCELED, closes the descriptor, completes `token` with 0. */
  endStream(id: StreamId, token: Token): void
  /** At most one outstanding per stream. 0 is the end of the stream. */
  receive(id: StreamId, token: Token, arenaOffset: number, lengthBytes: number): void
  /** At most one outstanding per stream. May be short. */
  send(id: StreamId, token: Token, parts: PartList): void

  /** The descriptor stays the caller's, who closes it after `removeFile` has completed. */
  addFile(descriptor: number, alignmentBytes: number): FileId
  /** Only when nothing is outstanding on the file. Completes with 0 once the engine holds no reference to it. */
  removeFile(id: FileId, token: Token): void
  /** Positions and lengths are multiples of the file's alignment. */
  read(id: FileId, token: Token, position: number, arenaOffset: number, lengthBytes: number): void
  write(id: FileId, token: Token, position: number, arenaOffset: number, lengthBytes: number, flags: number): void
  /** fdatasync. */
  sync(id: FileId, token: Token): void
  /** Deallocates. Not durable by itself. -EOPNOTSUPP where the file cannot. */
  discard(id: FileId, token: Token, position: number, lengthBytes: number): void
  /** Zeroes without transferring data. Not durable by itself. -EOPNOTSUPP where the file cannot. */
  zero(id: FileId, token: Token, position: number, lengthBytes: number, flags: number): void
}

/** The memory that all offsets of an engine refer to: mmapped, seen by each thread through a view of its own. */
export interface ArenaMemory {
  readonly address: bigint
  readonly lengthBytes: number
  readonly bytes: Uint8Array
}
