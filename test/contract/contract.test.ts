/**
 * One suite, every engine: whatever the data plane may rely on is a scenario, and each engine passes all of them. Real
 * engines run in processes of their own.
 */

import { afterAll, describe, expect, test } from 'vitest'
import { DISK_SCENARIOS } from './disk-scenarios.ts'
import { EngineProcess } from './engine-process.ts'
import { LIFE_SCENARIOS } from './life-scenarios.ts'
import { ARENA_BYTES } from './rig.ts'
import { runSimulated } from './simulated-rig.ts'
import { STREAM_SCENARIOS } from './stream-scenarios.ts'

const SEEDS = [1, 2, 3, 4, 5, 6, 7, 8]
const PATIENCE_MS = 60_000

interface Variant {
  readonly kind: 'file' | 'io_uring'
  readonly registeredBytes: number
  readonly plainRing: boolean
  readonly name: string
}

const VARIANTS: readonly Variant[] = [
  { kind: 'file', registeredBytes: 0, plainRing: false, name: 'file' },
  { kind: 'io_uring', registeredBytes: 0, plainRing: true, name: 'plain io_uring' },
  // Half of the arena, so that some memory is registered and some is not.
  { kind: 'io_uring', registeredBytes: ARENA_BYTES / 2, plainRing: false, name: 'registered io_uring' },
]

describe('the simulated engine', () => {
  for (const [name, scenario] of Object.entries({ ...STREAM_SCENARIOS, ...DISK_SCENARIOS })) {
    test(name, () => {
      for (const seed of SEEDS) {
        try {
          runSimulated(scenario, seed)
        } catch (error) {
          throw new Error(`seed ${seed}`, { cause: error })
        }
      }
    })
  }
})

for (const { name, kind, registeredBytes, plainRing } of VARIANTS) {
  describe(`the ${name} engine`, () => {
    const engine = new EngineProcess(kind)
    afterAll(() => {
      engine.close()
    })

    describe.each(['unix', 'tcp'] as const)('over %s sockets', (transport) => {
      test.each(Object.keys(STREAM_SCENARIOS))('%s', { timeout: PATIENCE_MS }, async (scenario) => {
        expect(await engine.run({ scenario, transport, registeredBytes, plainRing })).toEqual({
          outcome: 'done',
          detail: '',
        })
      })
    })

    test.each(Object.keys(DISK_SCENARIOS))('%s', { timeout: PATIENCE_MS }, async (scenario) => {
      expect(await engine.run({ scenario, transport: 'unix', registeredBytes, plainRing })).toEqual({
        outcome: 'done',
        detail: '',
      })
    })

    test.each(Object.keys(LIFE_SCENARIOS))('%s', { timeout: PATIENCE_MS }, async (scenario) => {
      expect(await engine.run({ scenario, transport: 'unix', registeredBytes, plainRing })).toEqual({
        outcome: 'stopped',
        detail: '',
      })
    })
  })
}
