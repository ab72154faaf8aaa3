import { describe, expect, test } from 'vitest'
import { AssertionFailure } from '../../src/foundation/assert.ts'
import { COMMAND, ERROR, filled } from '../support/simulated-frontend.ts'
import { SimulatedPlane } from '../support/simulated-plane.ts'

function openPlane(): SimulatedPlane {
  const plane = new SimulatedPlane({ seed: 1, engine: { shortChance: 0 } })
  plane.openExport()
  return plane
}

describe('a drain', () => {
  test('is reported when the last admitted request has cleared, not before, and counts what the shut gate found', () => {
    const plane = openPlane()
    const frontend = plane.connect()
    plane.engine.setDiskFrozen(true)
    frontend.write(0, filled(512, 1))
    frontend.write(0, filled(1024, 2))
    frontend.read(4096, 512)
    plane.settle()
    plane.gate(1, 'park')
    const parked = frontend.write(2048, filled(512, 3))
    const drain = plane.post({ kind: 'drain', exportId: 1 })
    plane.settle()
    expect(plane.hasReported(drain)).toBe(false)
    plane.engine.setDiskFrozen(false)
    while (!plane.hasReported(drain)) {
      const { tracker } = plane.plane.state
      expect(tracker.unclearedOfExport(0)).toBeGreaterThan(0)
      expect(plane.step()).toBe(true)
    }
    expect(plane.value(drain, 'drain')).toEqual({
      cancelled: false,
      requests: 3,
      writes: 2,
      bytes: 2048,
      aborted: [],
      indeterminate: [],
    })
    plane.settle()
    expect(parked.reply).toBeUndefined()
    expect(plane.disk(0, 1024)).toEqual(filled(1024, 2))
  })

  test('waits for the sync behind a TRIM', () => {
    const plane = openPlane()
    plane.connect().send({ command: COMMAND.TRIM, length: 512 })
    const syncs = (): number => plane.engine.history.filter(({ kind }) => kind === 'sync').length
    while (syncs() === 0 && plane.step()) expect(plane.turns).toBeLessThan(1000)
    expect(syncs()).toBe(1)
    plane.engine.setDiskFrozen(true)
    plane.gate(1, 'park')
    const drain = plane.post({ kind: 'drain', exportId: 1 })
    plane.settle()
    expect(plane.hasReported(drain)).toBe(false)
    plane.engine.setDiskFrozen(false)
    plane.settle()
    expect(plane.hasReported(drain)).toBe(true)
  })

  test('waits for orphans, and not for a client that does not read', () => {
    const plane = new SimulatedPlane({ seed: 1, engine: { socketBufferBytes: 16 } })
    plane.openExport(1, { clients: 'shared' })
    const [lost, deaf] = [plane.connect(), plane.connect()]
    deaf.setReading(false)
    for (let block = 0; block < 8; block += 1) deaf.read(block * 512, 512)
    plane.settle()
    plane.engine.setDiskFrozen(true)
    lost.write(0, filled(512, 1))
    plane.settle()
    lost.reset()
    plane.settle()
    plane.gate(1, 'park')
    const drain = plane.post({ kind: 'drain', exportId: 1 })
    plane.settle()
    expect(plane.hasReported(drain)).toBe(false)
    plane.engine.setDiskFrozen(false)
    plane.settle()
    expect(plane.hasReported(drain)).toBe(true)
    expect(plane.disk(0, 512)).toEqual(filled(512, 1))
    expect(plane.order({ kind: 'sync', exportId: 1 }).errno).toBe(0)
    plane.order({ kind: 'detachFile', exportId: 1 })
    plane.order({ kind: 'detachExport', exportId: 1 })
    plane.assertNothingLeft()
  })

  test('is cancelled by a gate that admits, and what was parked goes on', () => {
    const plane = openPlane()
    const frontend = plane.connect()
    plane.engine.setDiskFrozen(true)
    frontend.write(0, filled(512, 1))
    plane.settle()
    plane.gate(1, 'park')
    const parked = frontend.write(512, filled(512, 2))
    const drain = plane.post({ kind: 'drain', exportId: 1 })
    plane.settle()
    plane.gate(1, 'admit')
    expect(plane.value(drain, 'drain').cancelled).toBe(true)
    plane.engine.setDiskFrozen(false)
    plane.settle()
    expect(parked.reply?.error).toBe(0)
  })

  test('of nothing is reported at once', () => {
    const plane = openPlane()
    plane.gate(1, 'refuse')
    expect(plane.order({ kind: 'drain', exportId: 1 })).toMatchObject({ cancelled: false, requests: 0, bytes: 0 })
  })
})

describe('an abort', () => {
  test('drops what was not submitted, unanswered, names it, and cuts its connection; the rest drains', () => {
    const plane = openPlane()
    const frontend = plane.connect()
    plane.engine.setDiskFrozen(true)
    frontend.write(0, filled(512, 1))
    frontend.write(0, filled(512, 2))
    frontend.write(256, filled(512, 3))
    plane.settle()
    const { aborted } = plane.order({
      kind: 'setGate',
      exportId: 1,
      reads: 'park',
      writes: 'park',
      abortUnsubmitted: true,
    })
    expect(aborted).toEqual([
      { client: 1, cookie: '0000000000010002', command: 'WRITE', offset: 0, length: 512 },
      { client: 1, cookie: '0000000000010003', command: 'WRITE', offset: 256, length: 512 },
    ])
    expect(plane.gone.get(1)?.reason).toBe('ordered')
    const drain = plane.post({ kind: 'drain', exportId: 1 })
    plane.engine.setDiskFrozen(false)
    plane.settle()
    expect(plane.value(drain, 'drain')).toMatchObject({ requests: 1, writes: 1, bytes: 512, aborted })
    expect(plane.disk(0, 512)).toEqual(filled(512, 1))
    expect(plane.disk(512, 512)).toEqual(filled(512, 0))
    plane.assertNothingLeft()
  })

  test('drops what waited for room in the engine', () => {
    const plane = new SimulatedPlane({ seed: 1, engine: { diskDepth: 1 } })
    plane.openExport()
    const frontend = plane.connect()
    plane.engine.setDiskFrozen(true)
    for (let block = 0; block < 4; block += 1) frontend.write(block * 512, filled(512, 1))
    plane.settle()
    plane.gate(1, 'park', 'park', true)
    plane.engine.setDiskFrozen(false)
    plane.settle()
    expect(plane.engine.history.map(({ position }) => position)).toEqual([0])
    plane.assertNothingLeft()
  })

  test('drops a read-modify-write that was reading, when that has completed', () => {
    const plane = openPlane()
    const frontend = plane.connect()
    plane.engine.setDiskFrozen(true)
    frontend.write(5, filled(5, 1))
    plane.settle()
    plane.gate(1, 'park', 'park', true)
    const drain = plane.post({ kind: 'drain', exportId: 1 })
    plane.settle()
    expect(plane.hasReported(drain)).toBe(false)
    plane.engine.setDiskFrozen(false)
    plane.settle()
    expect(plane.value(drain, 'drain')).toMatchObject({ requests: 0, aborted: [{ offset: 5, length: 5 }] })
    expect(plane.engine.history.map(({ kind }) => kind)).toEqual(['read'])
    plane.assertNothingLeft()
  })

  test('leaves other clients of the export alone', () => {
    const plane = new SimulatedPlane({ seed: 1 })
    plane.openExport(1, { clients: 'shared' })
    const [one, two] = [plane.connect(), plane.connect()]
    plane.engine.setDiskFrozen(true)
    const submitted = two.write(0, filled(512, 1))
    plane.settle()
    one.write(0, filled(512, 2))
    plane.settle()
    plane.gate(1, 'park', 'park', true)
    plane.engine.setDiskFrozen(false)
    plane.settle()
    expect([...plane.gone.keys()]).toEqual([one.clientId])
    expect(submitted.reply?.error).toBe(0)
  })
})

describe('holds', () => {
  test('hold overlapping writes, let others and all reads pass, and let go in the order of admission', () => {
    const plane = new SimulatedPlane({ seed: 1 })
    plane.attachExport({ exportId: 1 })
    plane.order(plane.attachFileOrder({ exportId: 1, generation: 5 }))
    plane.order({ kind: 'hold', exportId: 1, holds: [{ offset: 512, length: 512, generation: 4 }] })
    plane.setCell(1, 5)
    plane.gate(1, 'admit')
    const frontend = plane.connect()
    const held = frontend.write(600, filled(10, 1))
    const behind = frontend.write(0, filled(1024, 2))
    const free = frontend.write(1024, filled(512, 3))
    const read = frontend.read(512, 512)
    plane.settle()
    expect([held, behind, free, read].map(({ reply }) => reply?.error)).toEqual([undefined, undefined, 0, 0])
    expect(plane.order({ kind: 'listUncleared', exportId: 1 }).ranges).toEqual([
      { offset: 512, length: 512 },
      { offset: 0, length: 1024 },
    ])
    expect(plane.order({ kind: 'inspect', exportId: 1 }).holds).toEqual([
      { offset: 512, length: 512, generation: 4, waiting: 2 },
    ])
    plane.order({ kind: 'release', exportId: 1, generation: 3 })
    expect(held.reply).toBeUndefined()
    plane.order({ kind: 'release', exportId: 1, generation: 4 })
    expect([held, behind].map(({ reply }) => reply?.error)).toEqual([0, 0])
    expect(plane.disk(0, 1024)).toEqual(filled(1024, 2))
  })
})

describe('a file', () => {
  test('is detached only after a drain and behind a shut gate', () => {
    const plane = openPlane()
    expect(() => plane.order({ kind: 'detachFile', exportId: 1 })).toThrow(AssertionFailure)
  })

  test('with other blocks, or a smaller one, cuts whoever has a request that was measured by the former', () => {
    for (const change of [{ alignmentBytes: 4096 }, { sizeBytes: 4096 }]) {
      const plane = new SimulatedPlane({ seed: 1 })
      plane.openExport(1, { clients: 'shared' })
      const [measured, fresh] = [plane.connect(), plane.connect()]
      measured.queue({ command: COMMAND.WRITE, offset: 8192 + 512, payload: filled(512, 1) })
      measured.deliver(28)
      plane.settle()
      plane.gate(1, 'park')
      measured.deliver()
      plane.settle()
      plane.order({ kind: 'drain', exportId: 1 })
      plane.order({ kind: 'detachFile', exportId: 1 })
      plane.order(plane.attachFileOrder({ exportId: 1, generation: 2, ...change }))
      plane.setCell(1, 2)
      plane.gate(1, 'admit')
      expect(plane.gone.get(measured.clientId)?.reason).toBe('ordered')
      const write = fresh.write(512, filled(512, 2))
      plane.settle()
      expect(write.reply?.error).toBe(0)
      expect(plane.disk(8192, 4096)).toEqual(filled(4096, 0))
    }
  })

  test('with the same blocks lets parked requests go on, in the new generation', () => {
    const plane = openPlane()
    const frontend = plane.connect()
    frontend.queue({ command: COMMAND.WRITE, offset: 100, payload: filled(512, 1) })
    frontend.deliver(28)
    plane.settle()
    plane.gate(1, 'park')
    frontend.deliver()
    plane.settle()
    plane.order({ kind: 'drain', exportId: 1 })
    plane.setCell(1, 0)
    plane.order({ kind: 'detachFile', exportId: 1 })
    plane.order(plane.attachFileOrder({ exportId: 1, generation: 2 }))
    plane.setCell(1, 2)
    plane.gate(1, 'admit')
    expect(frontend.unanswered).toEqual([])
    expect(plane.disk(100, 512)).toEqual(filled(512, 1))
  })

  test('that is not there cannot be synced', () => {
    const plane = new SimulatedPlane({ seed: 1 })
    plane.attachExport({ exportId: 1 })
    expect(plane.order({ kind: 'sync', exportId: 1 }).errno).toBe(9)
  })
})

describe('a sync that was ordered', () => {
  test('happens even if nothing is dirty, and covers what had cleared when it began', () => {
    const plane = new SimulatedPlane({ seed: 1 })
    plane.openExport(1, { durability: 'writeback' })
    expect(plane.order({ kind: 'sync', exportId: 1 }).errno).toBe(0)
    plane.connect().write(0, filled(512, 1))
    plane.settle()
    expect(plane.order({ kind: 'sync', exportId: 1 }).errno).toBe(0)
    plane.engine.disk.powerCut()
    expect(plane.disk(0, 512)).toEqual(filled(512, 1))
    expect(plane.engine.history.filter(({ kind }) => kind === 'sync')).toHaveLength(2)
  })
})

describe('what is told of an export', () => {
  test('counts each client and each request', () => {
    const plane = openPlane()
    const frontend = plane.connect()
    frontend.write(0, filled(512, 1))
    frontend.read(0, 512)
    frontend.send({ command: COMMAND.FLUSH })
    frontend.send({ command: COMMAND.TRIM, length: 512 })
    frontend.send({ command: 99 })
    plane.settle()
    plane.engine.setDiskFrozen(true)
    frontend.write(0, filled(512, 2))
    frontend.write(0, filled(512, 3))
    plane.settle()
    plane.nowMs += 50
    const inspection = plane.order({ kind: 'inspect', exportId: 1 })
    expect(inspection.outstanding).toMatchObject({ submitted: 1, held: 1, parsed: 0, bytes: 1024, oldestMs: 50 })
    expect(inspection.clients).toMatchObject([{ clientId: frontend.clientId, writer: true, sinceMs: 50 }])
    expect(inspection.totals).toEqual({
      reads: 1,
      writes: 1,
      flushes: 1,
      trims: 1,
      bytesRead: 512,
      bytesWritten: 512,
      errors: 1,
    })
    const { requests, truncated } = plane.order({ kind: 'listRequests', exportId: 1, countMax: 1 })
    expect(truncated).toBe(true)
    expect(requests).toMatchObject([{ command: 'WRITE', offset: 0, length: 512, ageMs: 50, orphan: false }])
  })
})

describe('an export', () => {
  test('that is removed cuts its clients, and its row serves another', () => {
    const plane = new SimulatedPlane({ seed: 1, limits: { exportsMax: 1 } })
    for (let round = 0; round < 3; round += 1) {
      plane.openExport()
      const frontend = plane.connect()
      frontend.write(0, filled(512, 1))
      plane.settle()
      plane.gate(1, 'park')
      frontend.write(0, filled(512, 2))
      plane.order({ kind: 'drain', exportId: 1 })
      plane.order({ kind: 'detachFile', exportId: 1 })
      plane.order({ kind: 'detachExport', exportId: 1 })
      expect(frontend.ended).toBe(true)
      plane.assertNothingLeft()
    }
  })

  test('serves reads in standby, and keeps writes and flushes until it is open', () => {
    const plane = new SimulatedPlane({ seed: 1 })
    plane.attachExport({ exportId: 1 })
    plane.order(plane.attachFileOrder({ exportId: 1, generation: 0 }))
    plane.gate(1, 'admit', 'park')
    const frontend = plane.connect()
    const read = frontend.read(0, 512)
    const flush = frontend.send({ command: COMMAND.FLUSH })
    const behind = frontend.read(512, 512)
    plane.settle()
    expect([read.reply?.error, flush.reply, behind.reply]).toEqual([0, undefined, undefined])
    plane.gate(1, 'park')
    plane.order({ kind: 'drain', exportId: 1 })
    plane.order({ kind: 'detachFile', exportId: 1 })
    plane.order(plane.attachFileOrder({ exportId: 1, generation: 1 }))
    plane.setCell(1, 1)
    plane.gate(1, 'admit')
    expect(frontend.unanswered).toEqual([])
  })

  test('that refuses answers what is parked with NBD_ESHUTDOWN', () => {
    const plane = openPlane()
    plane.gate(1, 'park')
    const frontend = plane.connect()
    const write = frontend.write(0, filled(30_000, 1))
    const read = frontend.read(0, 512)
    plane.settle()
    plane.gate(1, 'refuse')
    expect([write.reply?.error, read.reply?.error]).toEqual([ERROR.ESHUTDOWN, ERROR.ESHUTDOWN])
  })
})
