import { describe, expect, test } from 'vitest'
import { COMMAND, filled } from '../support/simulated-frontend.ts'
import { SimulatedPlane } from '../support/simulated-plane.ts'

describe('answers', () => {
  test('come whole and in one order, however little the kernel takes at once', () => {
    for (let seed = 1; seed <= 4; seed += 1) {
      for (const socketBufferBytes of [3, 16, 100, 5000]) {
        const plane = new SimulatedPlane({ seed, engine: { socketBufferBytes, shortChance: 0.5 } })
        plane.openExport()
        const pattern = Uint8Array.from({ length: 65_536 }, (_, index) => (index * 31 + (index >> 8)) & 0xff)
        plane.engine.disk.format(pattern)
        const frontend = plane.connect()
        const reads = [frontend.read(1, 700), frontend.read(512, 512), frontend.read(4000, 1)]
        frontend.send({ command: COMMAND.FLUSH })
        frontend.send({ command: 99 })
        reads.push(frontend.read(3, 2000))
        plane.settle()
        expect(frontend.unanswered).toEqual([])
        for (const { offset, length, reply } of reads) {
          expect(Buffer.compare(reply!.data, pattern.subarray(offset, offset + length))).toBe(0)
        }
      }
    }
  })

  test('use their few headers again and again', () => {
    const plane = new SimulatedPlane({ seed: 3, limits: { requestsPerConnectionMax: 3 } })
    plane.openExport()
    const frontend = plane.connect()
    for (let round = 0; round < 50; round += 1) {
      for (let block = 0; block < 5; block += 1) frontend.read(block * 512, 512)
      plane.settle()
    }
    expect(frontend.requests.size).toBe(250)
    expect(frontend.unanswered).toEqual([])
  })

  test('of more requests than one send has parts for', () => {
    const plane = new SimulatedPlane({
      seed: 4,
      limits: { requestsPerConnectionMax: 200, slotsMax: 200, arenaBytes: 4 * 1024 * 1024 },
      engine: { socketBufferBytes: 1 << 20, shortChance: 0 },
    })
    plane.openExport()
    const frontend = plane.connect()
    frontend.setReading(false)
    plane.engine.setDiskFrozen(true)
    for (let request = 0; request < 180; request += 1) frontend.read((request % 100) * 512 + 1, 500)
    plane.settle()
    plane.engine.setDiskFrozen(false)
    plane.settle()
    frontend.setReading(true)
    plane.settle()
    expect(frontend.unanswered).toEqual([])
  })

  test('that a client does not take keep only what is its own', () => {
    const plane = new SimulatedPlane({ seed: 5, engine: { socketBufferBytes: 64 } })
    plane.openExport()
    const idle = plane.connect()
    const busy = plane.connect()
    idle.setReading(false)
    for (let block = 0; block < 8; block += 1) idle.read(block * 512, 512)
    plane.settle()
    for (let round = 0; round < 20; round += 1) {
      const write = busy.write(round * 512, filled(512, round))
      const read = busy.read(0, 16_384)
      plane.settle()
      expect([write.reply?.error, read.reply?.error]).toEqual([0, 0])
    }
    expect(plane.gone.size).toBe(0)
    idle.setReading(true)
    plane.settle()
    expect(idle.unanswered).toEqual([])
  })

  test('end with the connection that they were for, and leave nothing', () => {
    for (const how of ['close', 'reset'] as const) {
      const plane = new SimulatedPlane({ seed: 6, engine: { socketBufferBytes: 10 } })
      plane.openExport()
      const frontend = plane.connect()
      frontend.setReading(false)
      for (let block = 0; block < 8; block += 1) frontend.read(block * 512, 512)
      plane.settle()
      frontend[how]()
      plane.settle()
      expect(plane.gone.get(frontend.clientId)?.reason).toBe('lost')
      plane.assertNothingLeft()
    }
  })
})
