/**
 * The data plane as a whole under a simulated engine, a thousand ways and the same way for the same seed.
 *
 * Fault model. Clients send requests of every kind, aligned and not, most of them into the same few blocks, one byte at
 * a time or many requests at once; they send bad requests with payloads, break the framing, stop reading, stop half way
 * through a payload, end their half, close or reset at any moment, say DISC with requests outstanding, come back under
 * the same identity. The main thread adopts them with any part of their bytes read ahead, parks, refuses and admits,
 * aborts, drains and changes its mind, syncs, holds and lets go, cuts, fences by the shared generation, takes the file
 * away and gives another one with another generation. The disk completes in any order, writes in part, fails with EIO,
 * ENOSPC and EOPNOTSUPP, stands still for a while, and may lose power at any step. Memory, request slots, connections and
 * the depth of the disk are few.
 *
 * Not in it: bytes that change on the disk by themselves, a kernel that completes twice, a main thread that gives orders
 * in an order that it promises not to (a file taken away before a drain).
 *
 * Checked is what `image-model.ts` says of bytes, and what `data-plane-run.ts` says of answers, orders and leftovers.
 * SIMULATION_RUNS sets how many seeds are run, SIMULATION_SEED the first one.
 */

import { describe, expect, test } from 'vitest'
import { DataPlaneRun } from './data-plane-run.ts'
import type { RunSummary } from './run-facts.ts'

const RUNS = Number(process.env['SIMULATION_RUNS'] ?? 200)
const FIRST_SEED = Number(process.env['SIMULATION_SEED'] ?? 1)

function runSeed(seed: number): RunSummary {
  try {
    return new DataPlaneRun(seed).run()
  } catch (error) {
    throw new Error(`the simulation failed: SIMULATION_SEED=${seed} SIMULATION_RUNS=1`, { cause: error })
  }
}

describe('the data plane, simulated', () => {
  test(`keeps its promises under ${RUNS} seeds from ${FIRST_SEED} on`, { timeout: 3_600_000 }, () => {
    const reasons = new Map<string, number>()
    let requests = 0
    let answered = 0
    let faults = 0
    let powerCuts = 0
    for (let seed = FIRST_SEED; seed < FIRST_SEED + RUNS; seed += 1) {
      const summary = runSeed(seed)
      requests += summary.requests
      answered += summary.answered
      faults += summary.faults
      powerCuts += summary.powerCut ? 1 : 0
      for (const [reason, count] of summary.reasons) reasons.set(reason, (reasons.get(reason) ?? 0) + count)
    }
    expect(answered).toBeGreaterThan(0)
    if (RUNS < 100) return
    // The runs are worth something only if they reach everything that the fault model names.
    expect(answered / requests).toBeGreaterThan(0.4)
    expect(faults).toBeGreaterThan(0)
    expect(powerCuts).toBeGreaterThan(0)
    expect([...reasons.keys()].sort()).toEqual(
      ['barred', 'disconnect', 'evicted', 'lost', 'ordered', 'protocol', 'starved'].sort(),
    )
  })
})
