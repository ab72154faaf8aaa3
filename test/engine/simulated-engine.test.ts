/** That the simulated engine is as bad as it claims to be, and no worse; and that it notices a careless caller. */

import { describe, expect, test } from 'vitest'
import { WRITE_DURABLE } from '../../src/engine/contract.ts'
import { overlappingWrites, SimulatedEngine } from '../support/simulated-engine.ts'

const BLOCK = 512
const BLOCKS = 16
const LENGTH = BLOCK * BLOCKS
const SEEDS = Array.from({ length: 60 }, (_, index) => index + 1)

/** Writes 0xaa over a disk of zeroes. `steps` -1: until it is done. */
function writeAndCut(seed: number, flags: number, steps: number, syncs: boolean): Uint8Array {
  const engine = new SimulatedEngine({ seed, sizeBytes: LENGTH, shortChance: 0 })
  engine.arena.bytes.fill(0xaa, 0, LENGTH)
  const file = engine.addFile(engine.openDisk(), BLOCK)
  const completion = { token: 0, result: 0 }
  let started = false
  engine.run(() => {
    if (!started) engine.write(file, 1, 0, 0, LENGTH, flags)
    started = true
    while (engine.next(completion)) if (completion.token === 1 && syncs) engine.sync(file, 2)
  })
  if (steps < 0) engine.settle()
  else for (let step = 0; step < steps; step += 1) engine.step()
  engine.powerCut()
  return engine.disk.contents()
}

/** How many blocks are new; fails where one is torn. */
function newBlocks(disk: Uint8Array): number {
  let count = 0
  for (let block = 0; block < BLOCKS; block += 1) {
    const values = new Set(disk.subarray(block * BLOCK, (block + 1) * BLOCK))
    expect(values.size, `block ${block} is not torn`).toBe(1)
    if (values.has(0xaa)) count += 1
  }
  return count
}

describe('a power cut', () => {
  test('keeps what was written durably', () => {
    for (const seed of SEEDS)
      expect(newBlocks(writeAndCut(seed, WRITE_DURABLE, -1, false)), `seed ${seed}`).toBe(BLOCKS)
  })

  test('keeps what was synced', () => {
    for (const seed of SEEDS) expect(newBlocks(writeAndCut(seed, 0, -1, true)), `seed ${seed}`).toBe(BLOCKS)
  })

  test('keeps any part of what was only written', () => {
    const counts = SEEDS.map((seed) => newBlocks(writeAndCut(seed, 0, -1, false)))
    expect(new Set(counts).size).toBeGreaterThan(3)
  })

  test('leaves any part of a write that was under way', () => {
    const counts = SEEDS.map((seed) => newBlocks(writeAndCut(seed, WRITE_DURABLE, 1, false)))
    expect(new Set(counts).size).toBeGreaterThan(3)
  })
})

test('overlapping writes under way at once are found', () => {
  const engine = new SimulatedEngine({ seed: 1 })
  const file = engine.addFile(engine.openDisk(), BLOCK)
  const completion = { token: 0, result: 0 }
  engine.run(() => {
    while (engine.next(completion));
  })
  engine.settle()
  engine.write(file, 1, 0, 0, 2 * BLOCK, 0)
  engine.write(file, 2, 2 * BLOCK, 0, BLOCK, 0)
  engine.settle()
  engine.zero(file, 3, 0, BLOCK, 0)
  expect(overlappingWrites(engine.history)).toEqual([])
  engine.write(file, 4, 0, 0, BLOCK, 0)
  expect(overlappingWrites(engine.history)).toHaveLength(1)
})

describe('a careless caller is noticed when it', () => {
  const setUp = () => {
    const engine = new SimulatedEngine({ seed: 1 })
    const stream = engine.addStream(engine.connect().descriptor)
    const file = engine.addFile(engine.openDisk(), BLOCK)
    return { engine, stream, file }
  }

  test('receives twice at once', () => {
    const { engine, stream } = setUp()
    engine.receive(stream, 1, 0, 10)
    expect(() => {
      engine.receive(stream, 2, 100, 10)
    }).toThrow(/one receive at a time/u)
  })

  test('writes from memory that a read is filling', () => {
    const { engine, file } = setUp()
    engine.read(file, 1, 0, 0, 2 * BLOCK)
    expect(() => {
      engine.write(file, 2, 0, BLOCK, BLOCK, 0)
    }).toThrow(/in the hands of a read/u)
  })

  test('removes a file that is in use', () => {
    const { engine, file } = setUp()
    engine.sync(file, 1)
    expect(() => {
      engine.removeFile(file, 2)
    }).toThrow(/nothing is outstanding/u)
  })

  test('takes completions outside a turn', () => {
    const { engine } = setUp()
    expect(() => engine.next({ token: 0, result: 0 })).toThrow(/inside a turn/u)
  })
})

test('the same seed makes the same history', () => {
  const history = (seed: number): unknown => {
    const engine = new SimulatedEngine({ seed })
    const file = engine.addFile(engine.openDisk(), BLOCK)
    const completion = { token: 0, result: 0 }
    engine.run(() => {
      while (engine.next(completion));
    })
    for (let token = 0; token < 50; token += 1) engine.write(file, token, token * BLOCK, 0, BLOCK, 0)
    engine.settle()
    return engine.history
  }
  expect(history(7)).toEqual(history(7))
  expect(history(7)).not.toEqual(history(8))
})
