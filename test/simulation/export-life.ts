/**
 * The main thread's part in the life of one simulated export: rounds of standby, open, close, cancelled close and fence,
 * each a sequence of orders in the order in which a main thread may give them, with pauses between.
 */

import type { ServedExport } from '../../src/data/served-export.ts'
import { assert } from '../../src/foundation/assert.ts'
import type { Hold, Range } from '../../src/interlock/range.ts'
import type { AbortedRequest } from '../../src/interlock/receipt.ts'
import type { GateSetting, OrderBody } from '../../src/plane-link/orders.ts'
import type { SimulatedPlane } from '../support/simulated-plane.ts'
import type { SeededRandom } from '../support/seeded-random.ts'

export interface ExportTraits {
  readonly exportId: number
  readonly durability: 'sync' | 'writeback'
  readonly clients: 'exclusive' | 'shared'
  readonly sizeBytes: number
  readonly readOnly: boolean
  readonly alignmentBytes: number
  readonly rounds: number
}

/** Steps to let pass, or the number of an order to wait for. */
type Wait = { readonly steps: number } | { readonly order: number }

export class ExportLife {
  readonly exportId: number
  readonly durability: 'sync' | 'writeback'
  readonly clients: 'exclusive' | 'shared'
  readonly readOnly: boolean
  isOver = false
  isAttached = false
  /** A drain was reported, and nobody has said admit since. */
  isQuiet = false
  isAdmitting = false
  everRefused = false
  generationEver = 0
  roundsDone = 0
  onHolds: (holds: readonly Hold[]) => void = () => undefined
  onSynced: (since: number) => void = () => undefined
  onDrained: (indeterminate: readonly Range[]) => void = () => undefined
  onAttached: (served: ServedExport) => void = () => undefined
  onAborted: (aborted: readonly AbortedRequest[]) => void = () => undefined
  /** The moment, in the run's count of events. */
  clock: () => number = () => 0
  readonly #plane: SimulatedPlane
  readonly #random: SeededRandom
  readonly #traits: ExportTraits
  readonly #steps: Generator<Wait, void>
  #waiting: Wait = { steps: 0 }
  #faulted = false
  #newestWriter = 0
  #holds: Hold[] = []
  #alignmentBytes: number

  constructor(plane: SimulatedPlane, random: SeededRandom, traits: ExportTraits) {
    this.#plane = plane
    this.#random = random
    this.#traits = traits
    this.exportId = traits.exportId
    this.durability = traits.durability
    this.clients = traits.clients
    this.readOnly = traits.readOnly
    this.#alignmentBytes = traits.alignmentBytes
    this.#steps = this.#live()
  }

  /** A write of this client was admitted: in an exclusive export nobody older than it writes any more. */
  wrote(clientId: number): void {
    if (this.clients === 'shared') return
    assert(clientId >= this.#newestWriter, `client ${this.#newestWriter} writes, and an older one was admitted`)
    this.#newestWriter = clientId
  }

  /** The plane said that the export is faulted: its generation is over. */
  fault(): void {
    this.#faulted = true
    this.everRefused = true
  }

  /** Goes on as far as it may. */
  step(): void {
    while (!this.isOver) {
      if ('steps' in this.#waiting) {
        if (this.#waiting.steps > 0) {
          this.#waiting = { steps: this.#waiting.steps - 1 }
          return
        }
      } else if (!this.#plane.hasReported(this.#waiting.order)) return
      const next = this.#steps.next()
      if (next.done === true) this.isOver = true
      else this.#waiting = next.value
    }
  }

  /** After its life: open once more, with everything admitted and nothing held. */
  reopen(settle: () => void): void {
    this.#finish(this.#open(false), settle)
  }

  /** Shut, drained, synced and detached, whatever the clients do. */
  close(settle: () => void): void {
    this.#finish(this.#close('park', false), settle)
  }

  #finish(steps: Generator<Wait, unknown>, settle: () => void): void {
    for (let next = steps.next(); next.done !== true; next = steps.next()) {
      settle()
      if ('order' in next.value) {
        assert(this.#plane.hasReported(next.value.order), `export ${this.exportId}: an order waits for nobody's help`)
      }
    }
  }

  *#live(): Generator<Wait, void> {
    const { durability, clients, readOnly, sizeBytes, rounds } = this.#traits
    const cell = new SharedArrayBuffer(4)
    this.#plane.cells.set(this.exportId, new Int32Array(cell))
    const name = `export-${this.exportId}`
    const body = { name, sizeBytes, readOnly, durability, clients, generationCell: cell } as const
    yield this.#send({ kind: 'attachExport', exportId: this.exportId, ...body })
    this.isAttached = true
    this.onAttached(this.#plane.served(this.exportId))
    yield this.#pause(20)
    for (this.roundsDone = 0; this.roundsDone < rounds; this.roundsDone += 1) {
      if (this.#random.chance(0.4)) yield* this.#standby()
      yield* this.#open(true)
      yield* this.#serve()
      yield* this.#end()
      yield this.#pause(60)
    }
  }

  *#standby(): Generator<Wait, void> {
    yield this.#attachFile(0)
    yield* this.#gate(this.#random.pick(['admit', 'park']), 'park')
    yield this.#pause(80)
    yield* this.#gate('park', 'park')
    yield* this.#drainAndDetach()
  }

  *#open(mayHold: boolean): Generator<Wait, void> {
    this.generationEver += 1
    // Now and then the same name leads to a device with other blocks.
    if (mayHold && this.#random.chance(0.1)) this.#alignmentBytes = this.#random.pick([512, 1024, 4096])
    yield this.#attachFile(this.readOnly ? 0 : this.generationEver)
    this.#faulted = false
    if (mayHold && this.#random.chance(0.3)) yield this.#hold()
    this.#plane.setCell(this.exportId, this.readOnly ? 0 : this.generationEver)
    yield* this.#gate('admit', 'admit')
  }

  *#serve(): Generator<Wait, void> {
    for (let moves = this.#random.between(1, 6); moves > 0 && !this.#faulted; moves -= 1) {
      yield this.#pause(100)
      switch (this.#random.between(1, 7)) {
        case 1:
          if (this.#random.chance(0.3)) yield this.#send({ kind: 'disconnect', exportId: this.exportId })
          break
        case 2:
          yield this.#send({ kind: 'inspect', exportId: this.exportId })
          break
        case 3:
          yield this.#send({ kind: 'listRequests', exportId: this.exportId, countMax: this.#random.between(0, 40) })
          break
        case 4:
          yield this.#send({ kind: 'listUncleared', exportId: this.exportId })
          break
        case 5:
          yield* this.#sync()
          break
        case 6:
          yield* this.#cancelledClose()
          break
        default:
          if (this.#holds.length > 0) yield this.#release()
      }
    }
  }

  *#end(): Generator<Wait, void> {
    if (this.#random.chance(0.2)) {
      this.#plane.setCell(this.exportId, 0)
      this.everRefused = true
      yield this.#pause(10)
      yield* this.#gate('refuse', 'refuse')
      // What was answered in writeback may stay in a cache: the next generation finds it there.
      yield* this.#drainAndDetach(this.#random.chance(0.5))
      return
    }
    yield* this.#close(this.#random.pick(['park', 'refuse']), this.#random.chance(0.4))
  }

  *#cancelledClose(): Generator<Wait, void> {
    yield* this.#gate('park', 'park')
    yield this.#pause(15)
    const drain = this.#post({ kind: 'drain', exportId: this.exportId })
    yield this.#pause(30)
    const over = this.#plane.hasReported(drain)
    if (!this.#faulted) yield* this.#gate('admit', 'admit')
    // Holds never outlive the drain that waits for what they hold.
    else if (this.#holds.length > 0) yield this.#release()
    yield { order: drain }
    const { cancelled } = this.#plane.value(drain, 'drain')
    assert(!over || !cancelled, 'a drain that is reported is not cancelled afterwards')
  }

  *#close(gate: GateSetting, abort: boolean): Generator<Wait, void> {
    yield* this.#gate(gate, gate, abort)
    yield* this.#drainAndDetach()
  }

  *#drainAndDetach(syncs = true): Generator<Wait, void> {
    const drain = this.#post({ kind: 'drain', exportId: this.exportId })
    if (this.#holds.length > 0) yield this.#release()
    yield { order: drain }
    const result = this.#plane.value(drain, 'drain')
    assert(!result.cancelled, 'a drain is cancelled only by a gate that admits')
    this.onDrained(result.indeterminate)
    this.isQuiet = true
    yield this.#pause(10)
    if (syncs) yield* this.#sync()
    this.#plane.setCell(this.exportId, 0)
    yield this.#send({ kind: 'detachFile', exportId: this.exportId })
  }

  *#sync(): Generator<Wait, void> {
    const since = this.clock()
    const order = this.#post({ kind: 'sync', exportId: this.exportId })
    yield { order }
    if (this.#plane.value(order, 'sync').errno === 0) this.onSynced(since)
  }

  *#gate(reads: GateSetting, writes: GateSetting, abortUnsubmitted = false): Generator<Wait, void> {
    if (reads === 'refuse' || writes === 'refuse') this.everRefused = true
    if (reads === 'admit' || writes === 'admit') this.isQuiet = false
    this.isAdmitting = reads === 'admit' && writes === 'admit'
    const body = { reads, writes, abortUnsubmitted }
    const order = this.#post({ kind: 'setGate', exportId: this.exportId, ...body })
    yield { order }
    this.onAborted(this.#plane.value(order, 'setGate').aborted)
  }

  #attachFile(generation: number): Wait {
    const alignmentBytes = this.#alignmentBytes
    return this.#send(this.#plane.attachFileOrder({ exportId: this.exportId, generation, alignmentBytes }))
  }

  #hold(): Wait {
    const { sizeBytes } = this.#traits
    for (let count = this.#random.between(1, 3); count > 0; count -= 1) {
      const offset = this.#random.between(0, 15) * 512
      const length = Math.min(this.#random.between(1, 8) * 512, sizeBytes - offset)
      this.#holds.push({ offset, length, generation: this.generationEver - 1 })
    }
    this.onHolds(this.#holds)
    return this.#send({ kind: 'hold', exportId: this.exportId, holds: this.#holds })
  }

  #release(): Wait {
    this.#holds = []
    this.onHolds([])
    return this.#send({ kind: 'release', exportId: this.exportId, generation: this.generationEver - 1 })
  }

  #pause(stepsMax: number): Wait {
    return { steps: this.#random.between(0, stepsMax) }
  }

  #send(body: OrderBody): Wait {
    return { order: this.#post(body) }
  }

  #post(body: OrderBody): number {
    return this.#plane.post(body)
  }
}
