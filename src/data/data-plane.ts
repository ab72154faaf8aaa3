/**
 * One worker's data plane: the parts put together, and the turn of its loop. A turn is: take orders, take completions,
 * decide, submit. Nothing here waits; the engine calls the turn when there is something to do.
 */

import type { Completion, Engine } from '../engine/contract.ts'
import { assert, present } from '../foundation/assert.ts'
import type { Order } from '../plane-link/orders.ts'
import type { WorkerMessage } from '../plane-link/reports.ts'
import { Answers } from './answers.ts'
import { Connections } from './connections.ts'
import { Executor } from './executor.ts'
import { OrderDesk } from './order-desk.ts'
import type { DataLimits } from './plane-state.ts'
import { PlaneState } from './plane-state.ts'
import { RequestReader } from './request-reader.ts'
import { Syncs } from './syncs.ts'
import { TokenKind, tokenFits, tokenIndex, tokenKind } from './token.ts'

export interface DataPlaneOptions {
  readonly engine: Engine
  readonly limits: DataLimits
  /** The memory that the engine's arena offsets refer to; at least `layOutMemory(limits).totalBytes`. */
  readonly bytes: Uint8Array
  readonly say: (message: WorkerMessage) => void
  /** The next order, or undefined when there is none now. */
  readonly nextOrder: () => Order | undefined
  readonly peerGone: (descriptor: number) => boolean
  /** Milliseconds of a monotonic clock. */
  readonly now: () => number
  /** Whether the plane wants to be woken by the clock. */
  readonly wantClock: (wanted: boolean) => void
}

export class DataPlane {
  readonly #options: DataPlaneOptions
  readonly #state: PlaneState
  readonly #answers: Answers
  readonly #executor: Executor
  readonly #connections: Connections
  readonly #reader: RequestReader
  readonly #desk: OrderDesk
  readonly #completion: Completion = { token: 0, result: 0 }
  #clockWanted = false

  constructor(options: DataPlaneOptions) {
    const { engine, limits, bytes, say, peerGone } = options
    this.#options = options
    const state = new PlaneState(engine, limits, bytes, say)
    const syncs = new Syncs(state)
    this.#state = state
    this.#answers = new Answers(state)
    this.#executor = new Executor(state, this.#answers, syncs)
    this.#connections = new Connections(state, this.#answers)
    this.#reader = new RequestReader(state, this.#executor, this.#answers, this.#connections)
    this.#connections.attachReader(this.#reader)
    this.#desk = new OrderDesk({
      state,
      connections: this.#connections,
      executor: this.#executor,
      reader: this.#reader,
      syncs,
      peerGone,
    })
  }

  /** The state, for tests: they check it after every turn. */
  get state(): PlaneState {
    return this.#state
  }

  readonly turn = (): void => {
    const state = this.#state
    state.turnNumber += 1
    state.again = false
    state.nowMs = this.#options.now()
    for (let order = this.#options.nextOrder(); order !== undefined; order = this.#options.nextOrder()) {
      this.#desk.take(order)
    }
    while (state.engine.next(this.#completion)) this.#completed(this.#completion.token, this.#completion.result)
    this.#reader.run()
    this.#executor.pump()
    this.#answers.flush()
    this.#connections.cutStalled()
    this.#connections.sweep()
    this.#desk.settle()
    this.#askForClock()
    if (this.#state.again) state.engine.wake()
  }

  #completed(token: number, result: number): void {
    const index = tokenIndex(token)
    switch (tokenKind(token)) {
      case TokenKind.request:
        assert(tokenFits(token, this.#state.tracker.reuse[index] ?? 0), 'a completion belongs to this use of its slot')
        this.#executor.completed(index, result)
        return
      case TokenKind.receive: {
        const connection = present(this.#state.connections[index], 'the connection of a receive')
        if (connection.state === 'open') this.#reader.received(connection, result)
        else this.#connections.receiveEnded(connection)
        return
      }
      case TokenKind.send:
        this.#connections.sent(present(this.#state.connections[index], 'the connection of a send'), result)
        return
      case TokenKind.streamEnded:
        this.#connections.streamEnded(present(this.#state.connections[index], 'the connection of a stream'))
        return
      case TokenKind.fileRemoved:
        this.#desk.fileRemoved(present(this.#state.exports[index], 'the export of a file'))
        return
      case TokenKind.strayEnded:
        this.#connections.strayEnded(index)
        return
      default:
        this.#executor.synced(present(this.#state.exports[index], 'the export of a sync'), result)
    }
  }

  #askForClock(): void {
    const wanted = this.#connections.needsClock
    if (wanted === this.#clockWanted) return
    this.#clockWanted = wanted
    this.#options.wantClock(wanted)
  }
}
