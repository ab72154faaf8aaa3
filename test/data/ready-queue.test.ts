import { describe, expect, test } from 'vitest'
import type { DiskRecord } from '../support/simulated-engine.ts'
import { filled } from '../support/simulated-frontend.ts'
import { SimulatedPlane } from '../support/simulated-plane.ts'

const PART_BYTES = 64 * 1024
const FOR_EVER = 1_000_000

/** The first part of the disk does not answer, as far as anybody waits. */
function planeWithDeadPart(diskDepth: number, parts: number): SimulatedPlane {
  return new SimulatedPlane({
    seed: 1,
    parts,
    partBytes: PART_BYTES,
    limits: { slotsMax: 256, requestsPerConnectionMax: 100, arenaBytes: 4 * 1024 * 1024, exportsMax: parts },
    engine: {
      diskDepth,
      batchChance: 0,
      shortChance: 0,
      latency: ({ position }: Readonly<DiskRecord>) => (position < PART_BYTES ? FOR_EVER : 1),
    },
  })
}

describe('room in the engine', () => {
  test.each([2, 12, 512])('of depth %i is not used up by a disk that does not answer', (diskDepth) => {
    const plane = planeWithDeadPart(diskDepth, 2)
    plane.openExport(1)
    plane.openExport(2)
    const [dead, alive] = [plane.connect(1), plane.connect(2)]
    for (let block = 0; block < 100; block += 1) dead.read(block * 512, 512)
    for (let block = 0; block < 100; block += 1) alive.read(block * 512, 512)
    while (alive.unanswered.length > 0 && plane.engine.now < FOR_EVER && plane.step()) alive.poll()
    expect(alive.unanswered.length).toBe(0)
    expect(dead.unanswered.length).toBe(100)
    expect(plane.served(1).operations).toBeGreaterThanOrEqual(Math.min(100, diskDepth / 2))
    expect(plane.engine.now).toBeLessThan(FOR_EVER)
  })

  test('is nearly all for an export that is alone', () => {
    const plane = planeWithDeadPart(18, 1)
    plane.openExport(1)
    const frontend = plane.connect()
    for (let block = 0; block < 60; block += 1) frontend.read(block * 512, 512)
    let most = 0
    plane.onTurn = () => {
      most = Math.max(most, plane.served(1).operations)
    }
    plane.settle()
    expect(frontend.unanswered).toEqual([])
    expect(most).toBe(16)
  })

  test('is given to exports in turns, and within one in the order of admission', () => {
    const plane = new SimulatedPlane({
      seed: 1,
      parts: 3,
      limits: { slotsMax: 256, requestsPerConnectionMax: 100, arenaBytes: 4 * 1024 * 1024 },
      engine: { diskDepth: 1, shortChance: 0 },
    })
    for (const exportId of [1, 2, 3]) plane.openExport(exportId)
    const clients = [plane.connect(1), plane.connect(2), plane.connect(3)]
    plane.engine.setDiskFrozen(true)
    for (const client of clients) {
      for (let block = 0; block < 20; block += 1) client.write(block * 512, filled(512, block))
      plane.settle()
    }
    plane.engine.setDiskFrozen(false)
    plane.settle()
    const begun = plane.engine.history.map(({ position }) => ({
      part: Math.floor(position / plane.partBytes),
      block: (position % plane.partBytes) / 512,
    }))
    for (const part of [0, 1, 2]) {
      const blocks = begun.filter((one) => one.part === part).map(({ block }) => block)
      expect(blocks).toEqual([...blocks].sort((a, b) => a - b))
      expect(blocks).toHaveLength(20)
    }
    // The last export had its first turn long before the first one was through.
    expect(begun.findIndex(({ part }) => part === 2)).toBeLessThan(10)
    expect(clients.flatMap(({ unanswered }) => unanswered)).toEqual([])
  })

  test('is given back by what is aborted while it waits', () => {
    const plane = new SimulatedPlane({ seed: 1, parts: 2, engine: { diskDepth: 1, shortChance: 0 } })
    plane.openExport(1)
    plane.openExport(2)
    const [one, two] = [plane.connect(1), plane.connect(2)]
    plane.engine.setDiskFrozen(true)
    for (let block = 0; block < 5; block += 1) one.write(block * 512, filled(512, 1))
    plane.settle()
    for (let block = 0; block < 5; block += 1) two.write(block * 512, filled(512, 2))
    plane.settle()
    plane.gate(1, 'park', 'park', true)
    plane.engine.setDiskFrozen(false)
    plane.settle()
    expect(two.unanswered).toEqual([])
    expect(plane.disk(0, 1024)).toEqual(Uint8Array.from({ length: 1024 }, (_, index) => (index < 512 ? 1 : 0)))
    plane.gate(1, 'admit')
    const write = plane.connect(1).write(0, filled(512, 3))
    plane.settle()
    expect(write.reply?.error).toBe(0)
  })
})
