/**
 * Every request a worker has parsed and not yet answered: which phase it is in, whose it is, and how many there are of
 * each, at any moment. Columns of typed arrays, one slot per request; nothing is allocated per request.
 *
 *     free ─▶ parsed ─▶ admitted ─▶ submitted ─▶ cleared ─▶ free
 *                         ▲  │
 *                         │  ▼            parsed, admitted and held may also be dropped: ─▶ free
 *                         held
 *
 * 1. A phase changes only along PHASE_TRANSITIONS. In particular a submitted request is never forgotten: it becomes
 *    cleared, by its completion, and nothing else.
 * 2. The counts of a client and of an export are those of a scan over the slots (`invariants`).
 * 3. A client whose connection is gone keeps its number until its last request has left; until then the number cannot
 *    begin a request, and nothing of it that was merely parsed can be admitted any more.
 *
 * Clients and exports are small indexes that the worker gives out, below the maxima given here.
 */

import { AssertionFailure, assert } from '../foundation/assert.ts'
import { TransitionTable } from '../foundation/transition-table.ts'
import { changesBytes } from './request-kind.ts'

export const Phase = {
  FREE: 0,
  PARSED: 1,
  ADMITTED: 2,
  HELD: 3,
  SUBMITTED: 4,
  CLEARED: 5,
} as const
export type Phase = (typeof Phase)[keyof typeof Phase]

/** The rows are in the order of `Phase`. */
export const PHASE_TRANSITIONS = new TransitionTable('a request', {
  free: { parsed: 'begin' },
  parsed: { admitted: 'admit', free: 'dropped or refused' },
  admitted: { held: 'hold back', submitted: 'submit', free: 'dropped' },
  held: { admitted: 'let go', free: 'dropped' },
  submitted: { cleared: 'completion' },
  cleared: { free: 'answered' },
})
export type PhaseName = (typeof PHASE_TRANSITIONS)['states'][number]

const PHASE_COUNT = 6
const PHASE_MATRIX = PHASE_TRANSITIONS.matrix()
const COOKIE_BYTES = 8
/** The count of a slot's uses starts again after this many, and stays a small integer. */
const REUSE_LIMIT = 2 ** 24

export interface TrackerLimits {
  readonly slotsMax: number
  readonly clientsMax: number
  readonly exportsMax: number
}

export class RequestTracker {
  readonly slotsMax: number
  readonly clientsMax: number
  readonly exportsMax: number

  readonly client: Int32Array
  readonly exportIndex: Int32Array
  readonly command: Uint8Array
  readonly flags: Uint16Array
  readonly offset: Float64Array
  readonly length: Float64Array
  /** The range that the disk sees: `offset` and `length`, or wider where a read-modify-write is needed. */
  readonly wideOffset: Float64Array
  readonly wideLength: Float64Array
  /** Eight bytes per slot, as the client sent them. */
  readonly cookies: Uint8Array
  /** When the request was parsed, in milliseconds of the caller's clock. */
  readonly since: Float64Array
  readonly phase: Uint8Array
  /** How often the slot was used before: with the slot it names one request, also after that has left. */
  readonly reuse: Int32Array

  readonly #freeSlots: Int32Array
  #freeCount: number
  readonly #clientCounts: Int32Array
  readonly #exportCounts: Int32Array
  readonly #clientTotals: Int32Array
  readonly #exportTotals: Int32Array
  readonly #clientBytes: Float64Array
  readonly #exportBytes: Float64Array
  readonly #exportWrites: Int32Array
  readonly #exportOrphans: Int32Array
  readonly #clientGone: Uint8Array

  constructor(limits: TrackerLimits) {
    const { slotsMax, clientsMax, exportsMax } = limits
    assert(slotsMax > 0 && slotsMax <= 2 ** 20, 'the number of request slots is between 1 and 2^20')
    this.slotsMax = slotsMax
    this.clientsMax = clientsMax
    this.exportsMax = exportsMax
    this.client = new Int32Array(slotsMax)
    this.exportIndex = new Int32Array(slotsMax)
    this.command = new Uint8Array(slotsMax)
    this.flags = new Uint16Array(slotsMax)
    this.offset = new Float64Array(slotsMax)
    this.length = new Float64Array(slotsMax)
    this.wideOffset = new Float64Array(slotsMax)
    this.wideLength = new Float64Array(slotsMax)
    this.cookies = new Uint8Array(slotsMax * COOKIE_BYTES)
    this.since = new Float64Array(slotsMax)
    this.phase = new Uint8Array(slotsMax)
    this.reuse = new Int32Array(slotsMax)
    // Low slots are given out first: the columns in use stay together.
    this.#freeSlots = Int32Array.from({ length: slotsMax }, (_, index) => slotsMax - 1 - index)
    this.#freeCount = slotsMax
    this.#clientCounts = new Int32Array(clientsMax * PHASE_COUNT)
    this.#exportCounts = new Int32Array(exportsMax * PHASE_COUNT)
    this.#clientTotals = new Int32Array(clientsMax)
    this.#exportTotals = new Int32Array(exportsMax)
    this.#clientBytes = new Float64Array(clientsMax)
    this.#exportBytes = new Float64Array(exportsMax)
    this.#exportWrites = new Int32Array(exportsMax)
    this.#exportOrphans = new Int32Array(exportsMax)
    this.#clientGone = new Uint8Array(clientsMax)
  }

  /** A parsed request takes a slot. -1 when none is free: the caller stops reading from its clients. */
  begin(
    exportIndex: number,
    client: number,
    command: number,
    flags: number,
    offset: number,
    length: number,
    cookieSource: Uint8Array,
    cookieAt: number,
    nowMs: number,
  ): number {
    if (this.#clientGone[client] !== 0) throw new AssertionFailure(`client ${client} cannot begin a request`)
    if (!(exportIndex < this.exportsMax)) throw new AssertionFailure(`export ${exportIndex} cannot begin a request`)
    if (this.#freeCount === 0) return -1
    this.#freeCount -= 1
    const slot = this.#freeSlots[this.#freeCount] ?? -1
    this.exportIndex[slot] = exportIndex
    this.client[slot] = client
    this.command[slot] = command
    this.flags[slot] = flags
    this.offset[slot] = offset
    this.length[slot] = length
    this.wideOffset[slot] = offset
    this.wideLength[slot] = length
    for (let index = 0; index < COOKIE_BYTES; index++) {
      this.cookies[slot * COOKIE_BYTES + index] = cookieSource[cookieAt + index] ?? 0
    }
    this.since[slot] = nowMs
    add(this.#clientTotals, client, 1)
    add(this.#exportTotals, exportIndex, 1)
    add(this.#clientBytes, client, length)
    add(this.#exportBytes, exportIndex, length)
    this.#move(slot, Phase.PARSED)
    return slot
  }

  /** Before submission only: what the disk will see of it once it is aligned. */
  widen(slot: number, offset: number, length: number): void {
    const phase = this.phase[slot]
    assert(phase === Phase.PARSED || phase === Phase.ADMITTED, 'only a parsed or admitted request is widened')
    const from = this.offset[slot] ?? 0
    const to = from + (this.length[slot] ?? 0)
    assert(offset <= from && offset + length >= to, 'a widened range contains the range that was asked for')
    this.wideOffset[slot] = offset
    this.wideLength[slot] = length
  }

  /** The request has passed the gate. */
  admit(slot: number): void {
    if (this.phase[slot] !== Phase.PARSED) this.#refuse(slot, Phase.ADMITTED)
    if (this.isOrphan(slot)) throw new AssertionFailure('a request whose client is gone is not admitted')
    this.#move(slot, Phase.ADMITTED)
  }

  /** It waits for an earlier write, or for a predecessor's. */
  holdBack(slot: number): void {
    this.#move(slot, Phase.HELD)
  }

  letGo(slot: number): void {
    if (this.phase[slot] !== Phase.HELD) this.#refuse(slot, Phase.ADMITTED)
    this.#move(slot, Phase.ADMITTED)
  }

  /** From here on only its completion ends it. */
  submit(slot: number): void {
    this.#move(slot, Phase.SUBMITTED)
  }

  clear(slot: number): void {
    this.#move(slot, Phase.CLEARED)
  }

  /** Answered, or dropped before it was submitted. The slot is free afterwards, and its use counted. */
  finish(slot: number): void {
    this.#move(slot, Phase.FREE)
    const client = this.client[slot] ?? 0
    const exportIndex = this.exportIndex[slot] ?? 0
    const length = this.length[slot] ?? 0
    add(this.#clientTotals, client, -1)
    add(this.#exportTotals, exportIndex, -1)
    add(this.#clientBytes, client, -length)
    add(this.#exportBytes, exportIndex, -length)
    if (this.#clientTotals[client] === 0) this.#clientGone[client] = 0
    this.reuse[slot] = ((this.reuse[slot] ?? 0) + 1) % REUSE_LIMIT
    this.#freeSlots[this.#freeCount] = slot
    this.#freeCount += 1
  }

  /**
   * The client's connection is gone. Its admitted writes go on as orphans; what was only parsed is the caller's to
   * finish. The client's number is free again once `outstandingOfClient` is 0.
   */
  orphanClient(client: number): void {
    if (this.outstandingOfClient(client) === 0 || this.#clientGone[client] === 1) return
    this.#clientGone[client] = 1
    for (let slot = 0; slot < this.slotsMax; slot++) {
      if (this.client[slot] === client && this.#isUnclearedWrite(slot)) {
        add(this.#exportOrphans, this.exportIndex[slot] ?? 0, 1)
      }
    }
  }

  isOrphan(slot: number): boolean {
    return this.phase[slot] !== Phase.FREE && this.#clientGone[this.client[slot] ?? 0] === 1
  }

  get freeCount(): number {
    return this.#freeCount
  }

  countOf(client: number, phase: Phase): number {
    return this.#clientCounts[client * PHASE_COUNT + phase] ?? 0
  }

  exportCountOf(exportIndex: number, phase: Phase): number {
    return this.#exportCounts[exportIndex * PHASE_COUNT + phase] ?? 0
  }

  /** Bytes that the client's requests name, reads included. */
  clientBytes(client: number): number {
    return this.#clientBytes[client] ?? 0
  }

  exportBytes(exportIndex: number): number {
    return this.#exportBytes[exportIndex] ?? 0
  }

  /** All phases. */
  outstandingOfClient(client: number): number {
    return this.#clientTotals[client] ?? 0
  }

  outstandingOfExport(exportIndex: number): number {
    return this.#exportTotals[exportIndex] ?? 0
  }

  /** Admitted, held or submitted: what a drain waits for. */
  unclearedOfExport(exportIndex: number): number {
    const base = exportIndex * PHASE_COUNT
    const counts = this.#exportCounts
    return (
      (counts[base + Phase.ADMITTED] ?? 0) + (counts[base + Phase.HELD] ?? 0) + (counts[base + Phase.SUBMITTED] ?? 0)
    )
  }

  unclearedWritesOfExport(exportIndex: number): number {
    return this.#exportWrites[exportIndex] ?? 0
  }

  /** Uncleared writes whose connection is gone. */
  orphansOfExport(exportIndex: number): number {
    return this.#exportOrphans[exportIndex] ?? 0
  }

  /** When the oldest outstanding request of the export was parsed; `Infinity` when there is none. Scans. */
  oldestSinceOfExport(exportIndex: number): number {
    return this.#oldestSince(this.exportIndex, exportIndex, this.outstandingOfExport(exportIndex))
  }

  oldestSinceOfClient(client: number): number {
    return this.#oldestSince(this.client, client, this.outstandingOfClient(client))
  }

  /** Every slot in use of the export, by slot. The callback may finish the slot that it was given. Scans for the last. */
  slotsOfExport(exportIndex: number, callback: (slot: number) => void): void {
    let left = this.outstandingOfExport(exportIndex)
    for (let slot = 0; left > 0 && slot < this.slotsMax; slot++) {
      if (this.phase[slot] === Phase.FREE || this.exportIndex[slot] !== exportIndex) continue
      left -= 1
      callback(slot)
    }
  }

  phaseName(slot: number): PhaseName {
    const name = PHASE_TRANSITIONS.states[this.phase[slot] ?? 0]
    if (name === undefined) throw new AssertionFailure(`slot ${slot} has no phase`)
    return name
  }

  /** Sixteen hexadecimal digits. */
  cookieText(slot: number): string {
    const cookie = this.cookies.subarray(slot * COOKIE_BYTES, (slot + 1) * COOKIE_BYTES)
    return Array.from(cookie, (byte) => byte.toString(16).padStart(2, '0')).join('')
  }

  /** Throws unless every count equals what a scan finds. For tests and for debugging; it scans and allocates. */
  invariants(): void {
    const scanned = new RequestTracker(this)
    let used = 0
    for (let slot = 0; slot < this.slotsMax; slot++) {
      if (this.phase[slot] === Phase.FREE) continue
      used += 1
      const client = this.client[slot] ?? 0
      const exportIndex = this.exportIndex[slot] ?? 0
      const length = this.length[slot] ?? 0
      const phase = this.phase[slot] ?? 0
      add(scanned.#clientCounts, client * PHASE_COUNT + phase, 1)
      add(scanned.#exportCounts, exportIndex * PHASE_COUNT + phase, 1)
      add(scanned.#clientTotals, client, 1)
      add(scanned.#exportTotals, exportIndex, 1)
      add(scanned.#clientBytes, client, length)
      add(scanned.#exportBytes, exportIndex, length)
      if (this.#isUnclearedWrite(slot)) {
        add(scanned.#exportWrites, exportIndex, 1)
        if (this.isOrphan(slot)) add(scanned.#exportOrphans, exportIndex, 1)
      }
    }
    assert(used + this.#freeCount === this.slotsMax, 'every slot is free or in use')
    assertSame(this.#clientCounts, scanned.#clientCounts, 'requests of a client by phase')
    assertSame(this.#exportCounts, scanned.#exportCounts, 'requests of an export by phase')
    assertSame(this.#clientTotals, scanned.#clientTotals, 'requests of a client')
    assertSame(this.#exportTotals, scanned.#exportTotals, 'requests of an export')
    assertSame(this.#clientBytes, scanned.#clientBytes, 'bytes of a client')
    assertSame(this.#exportBytes, scanned.#exportBytes, 'bytes of an export')
    assertSame(this.#exportWrites, scanned.#exportWrites, 'uncleared writes of an export')
    assertSame(this.#exportOrphans, scanned.#exportOrphans, 'orphans of an export')
  }

  /** The only place that assigns a phase. */
  #move(slot: number, to: Phase): void {
    const from = this.phase[slot] ?? 0
    if (PHASE_MATRIX[from * PHASE_COUNT + to] !== 1) this.#refuse(slot, to)
    const client = this.client[slot] ?? 0
    const exportIndex = this.exportIndex[slot] ?? 0
    const wasWrite = this.#isUnclearedWrite(slot)
    this.phase[slot] = to
    const isWrite = this.#isUnclearedWrite(slot)
    if (wasWrite !== isWrite) {
      const change = isWrite ? 1 : -1
      add(this.#exportWrites, exportIndex, change)
      if (this.#clientGone[client] === 1) add(this.#exportOrphans, exportIndex, change)
    }
    if (from !== Phase.FREE) {
      add(this.#clientCounts, client * PHASE_COUNT + from, -1)
      add(this.#exportCounts, exportIndex * PHASE_COUNT + from, -1)
    }
    if (to !== Phase.FREE) {
      add(this.#clientCounts, client * PHASE_COUNT + to, 1)
      add(this.#exportCounts, exportIndex * PHASE_COUNT + to, 1)
    }
  }

  #isUnclearedWrite(slot: number): boolean {
    const phase = this.phase[slot] ?? 0
    return phase >= Phase.ADMITTED && phase <= Phase.SUBMITTED && changesBytes(this.command[slot] ?? 0)
  }

  /** Of `count` slots that have that value. */
  #oldestSince(column: Int32Array, value: number, count: number): number {
    let oldest = Infinity
    let left = count
    for (let slot = 0; left > 0 && slot < this.slotsMax; slot++) {
      if (this.phase[slot] === Phase.FREE || column[slot] !== value) continue
      left -= 1
      oldest = Math.min(oldest, this.since[slot] ?? Infinity)
    }
    return oldest
  }

  #refuse(slot: number, to: Phase): never {
    const target = PHASE_TRANSITIONS.states[to] ?? 'free'
    throw new AssertionFailure(`the request in slot ${slot} is ${this.phaseName(slot)} and cannot become ${target}`)
  }
}

function add(column: Int32Array | Float64Array, index: number, amount: number): void {
  column[index] = (column[index] ?? 0) + amount
}

function assertSame(kept: Int32Array | Float64Array, scanned: Int32Array | Float64Array, what: string): void {
  for (let index = 0; index < kept.length; index++) {
    if (kept[index] !== scanned[index]) {
      throw new AssertionFailure(`${what}: ${kept[index] ?? '?'} kept, ${scanned[index] ?? '?'} found, at ${index}`)
    }
  }
}
