/**
 * The contract's scenarios on the simulated engine: no thread, no socket, no file, and another order for each seed.
 */

import { ok } from 'node:assert/strict'
import { SimulatedEngine } from '../support/simulated-engine.ts'
import type { ClientEnd } from '../support/simulated-engine.ts'
import { ARENA_BYTES, IMAGE_BYTES, Rig } from './rig.ts'
import type { Client, Scenario } from './rig.ts'

const BLOCK_BYTES = 4096
const STEPS_MAX = 200_000

export function runSimulated(scenario: Scenario, seed: number): void {
  const engine = new SimulatedEngine({ seed, sizeBytes: IMAGE_BYTES, blockBytes: BLOCK_BYTES, arenaBytes: ARENA_BYTES })
  const rig = new Rig({
    engine,
    arena: engine.arena.bytes,
    blockBytes: BLOCK_BYTES,
    connect: () => {
      const client = engine.connect()
      return { stream: engine.addStream(client.descriptor), client: new SimulatedClient(client) }
    },
    openImage: ({ readOnly }) => engine.openDisk({ readOnly }),
    imageBytes: () => engine.disk.contents(),
    wakeLater: () => {
      engine.wake()
    },
    closeImage: () => true,
  })
  const waiting = { condition: () => true }
  const generator = scenario(rig)
  const state = { done: false }
  engine.run(() => {
    if (!state.done) state.done = rig.turn(generator, waiting)
  })
  for (let steps = 0; !state.done; steps += 1) {
    ok(engine.step(), 'the engine has something to do while the scenario waits')
    ok(steps < STEPS_MAX, 'the scenario comes to its end')
  }
  ok(rig.outstandingCount === 0, 'every token has completed')
}

/** Reads only when asked, as a socket is read. */
class SimulatedClient implements Client {
  readonly #end: ClientEnd
  #closed = false

  constructor(end: ClientEnd) {
    this.#end = end
    end.setReading(false)
  }

  send(bytes: Uint8Array): number {
    this.#end.send(bytes)
    return bytes.length
  }

  received(): Uint8Array {
    this.#end.setReading(true)
    this.#end.setReading(false)
    return this.#end.received()
  }

  finish(): void {
    this.#end.finish()
  }

  close(): void {
    if (!this.#closed) this.#end.close()
    this.#closed = true
  }

  get ended(): boolean {
    return this.#end.ended
  }
}
