import { describe, expect, test } from 'vitest'
import { COMMAND, ERROR, FLAG, filled } from '../support/simulated-frontend.ts'
import type { SimulatedFrontend } from '../support/simulated-frontend.ts'
import { SimulatedPlane } from '../support/simulated-plane.ts'

function reasonOf(plane: SimulatedPlane, frontend: SimulatedFrontend): string | undefined {
  return plane.gone.get(frontend.clientId)?.reason
}

describe('clients of an exclusive export', () => {
  test('the first write of a newcomer evicts the older writer; its reads and its flushes do not', () => {
    const plane = new SimulatedPlane({ seed: 1 })
    plane.openExport()
    const [older, newer] = [plane.connect(), plane.connect()]
    older.write(0, filled(512, 1))
    newer.read(0, 512)
    newer.send({ command: COMMAND.FLUSH })
    plane.settle()
    expect(reasonOf(plane, older)).toBeUndefined()
    newer.write(0, filled(512, 2))
    plane.settle()
    expect(reasonOf(plane, older)).toBe('evicted')
    expect(older.ended).toBe(true)
    expect(newer.unanswered).toEqual([])
  })

  test.each([
    ['TRIM', COMMAND.TRIM],
    ['WRITE_ZEROES', COMMAND.WRITE_ZEROES],
  ] as const)('%s is a write, too', (_name, command) => {
    const plane = new SimulatedPlane({ seed: 1 })
    plane.openExport()
    const [older, newer] = [plane.connect(), plane.connect()]
    older.write(0, filled(512, 1))
    plane.settle()
    newer.send({ command, length: 512 })
    plane.settle()
    expect(reasonOf(plane, older)).toBe('evicted')
  })

  test('what the evicted one had in the disk is waited for; what it had not got admitted never is', () => {
    const plane = new SimulatedPlane({ seed: 1 })
    plane.openExport()
    const [older, newer] = [plane.connect(), plane.connect()]
    plane.engine.setDiskFrozen(true)
    older.write(0, filled(512, 1))
    older.queue({ command: COMMAND.WRITE, offset: 512, payload: filled(512, 1) })
    older.deliver(28 + 500)
    plane.settle()
    const write = newer.write(0, filled(512, 2))
    plane.settle()
    older.deliver()
    plane.settle()
    expect(plane.engine.history).toHaveLength(1)
    expect(plane.plane.state.tracker.orphansOfExport(0)).toBe(1)
    plane.engine.setDiskFrozen(false)
    plane.settle()
    expect(write.reply?.error).toBe(0)
    expect(plane.disk(0, 512)).toEqual(filled(512, 2))
    expect(plane.disk(512, 512)).toEqual(filled(512, 0))
  })

  test('a writer that comes after an older client that never wrote bars it from then on', () => {
    const plane = new SimulatedPlane({ seed: 1 })
    plane.openExport()
    const [older, newer] = [plane.connect(), plane.connect()]
    newer.write(0, filled(512, 2))
    plane.settle()
    newer.send({ command: COMMAND.DISC })
    plane.settle()
    const read = older.read(0, 512)
    plane.settle()
    expect(read.reply?.error).toBe(0)
    older.write(0, filled(512, 1))
    plane.settle()
    expect(reasonOf(plane, older)).toBe('barred')
    expect(plane.disk(0, 512)).toEqual(filled(512, 2))
  })

  test('the evicted identity may not come back while the newcomer lives', () => {
    const plane = new SimulatedPlane({ seed: 1 })
    plane.openExport()
    const older = plane.connect(1, { peerIdentity: 'a' })
    const newer = plane.connect(1, { peerIdentity: 'b' })
    older.write(0, filled(512, 1))
    plane.settle()
    newer.write(0, filled(512, 2))
    plane.settle()
    const { frontend: again, adoption } = plane.connectLater(1, { peerIdentity: 'a' })
    expect(plane.order(adoption).adopted).toBe(false)
    const { frontend: oncemore, adoption: second } = plane.connectLater(1, { peerIdentity: 'a' })
    expect(plane.order(second).adopted).toBe(false)
    expect([reasonOf(plane, again), reasonOf(plane, oncemore)]).toEqual(['barred', 'barred'])
    // One line in the log, and silence after it.
    expect([again, oncemore].map(({ clientId }) => plane.gone.get(clientId)?.detail === '')).toEqual([false, true])
    newer.close()
    plane.settle()
    expect(plane.order(plane.connectLater(1, { peerIdentity: 'a' }).adoption).adopted).toBe(true)
  })

  test('parked writes of the older are dropped when the newer writes', () => {
    const plane = new SimulatedPlane({ seed: 1 })
    plane.openExport()
    const [older, newer] = [plane.connect(), plane.connect()]
    older.write(0, filled(512, 1))
    plane.settle()
    plane.gate(1, 'park')
    older.write(0, filled(512, 3))
    newer.write(0, filled(512, 2))
    plane.settle()
    plane.gate(1, 'admit')
    expect(plane.disk(0, 512)).toEqual(filled(512, 2))
    expect(newer.unanswered).toEqual([])
  })
})

describe('clients of a shared export', () => {
  test('all write, in the order of admission, and nobody is evicted', () => {
    const plane = new SimulatedPlane({ seed: 1 })
    plane.openExport(1, { clients: 'shared' })
    const clients = [plane.connect(), plane.connect(), plane.connect()]
    plane.engine.setDiskFrozen(true)
    for (const [index, client] of clients.entries()) {
      client.write(0, filled(1024, index + 1))
      plane.settle()
    }
    plane.engine.setDiskFrozen(false)
    plane.settle()
    expect(clients.map(({ unanswered }) => unanswered)).toEqual([[], [], []])
    expect(plane.disk(0, 1024)).toEqual(filled(1024, 3))
    expect(plane.gone.size).toBe(0)
  })
})

describe('a connection row', () => {
  test('is kept by orphans, and a newcomer that finds none is turned away', () => {
    const plane = new SimulatedPlane({ seed: 1, limits: { connectionsMax: 2 } })
    plane.openExport(1, { clients: 'shared' })
    plane.engine.setDiskFrozen(true)
    for (let block = 0; block < 2; block += 1) {
      const frontend = plane.connect()
      frontend.write(block * 512, filled(512, 1))
      plane.settle()
      frontend.reset()
      plane.settle()
    }
    const { frontend, adoption } = plane.connectLater(1)
    expect(plane.order(adoption).adopted).toBe(false)
    expect(reasonOf(plane, frontend)).toBe('ordered')
    plane.engine.setDiskFrozen(false)
    plane.settle()
    expect(plane.disk(0, 1024)).toEqual(filled(1024, 1))
    plane.assertNothingLeft()
    const write = plane.connect().write(0, filled(512, 2))
    plane.settle()
    expect(write.reply?.error).toBe(0)
  })

  test('is free again only when nothing of the one before is left', () => {
    const plane = new SimulatedPlane({ seed: 1, limits: { connectionsMax: 1 } })
    plane.openExport()
    for (let round = 1; round <= 20; round += 1) {
      const frontend = plane.connect()
      frontend.write(0, filled(512, round))
      frontend.read(0, 512)
      if (round % 2 === 0) plane.settle()
      frontend.reset()
      plane.settle()
    }
    plane.assertNothingLeft()
  })
})

describe('memory and slots', () => {
  const large = { arenaBytes: 128 * 1024, payloadBytesMax: 48 * 1024, stalledPeerMs: 1000 }

  test('a peer that does not take its data is cut when others need the memory, and not before', () => {
    const plane = new SimulatedPlane({ seed: 1, limits: large, engine: { socketBufferBytes: 16 } })
    plane.openExport(1, { clients: 'shared' })
    const stalled = [plane.connect(), plane.connect()]
    for (const frontend of stalled) {
      frontend.setReading(false)
      frontend.read(0, 48 * 1024)
    }
    plane.settle()
    plane.pass(plane.limits.stalledPeerMs * 10)
    expect(plane.gone.size).toBe(0)
    const busy = plane.connect()
    const write = busy.write(0, filled(30_000, 1))
    plane.settle()
    expect(write.reply).toBeUndefined()
    expect(plane.clockWanted).toBe(true)
    plane.pass(plane.limits.stalledPeerMs - 1)
    expect(plane.gone.size).toBe(0)
    plane.pass(1)
    expect(plane.gone.size).toBe(1)
    expect([...plane.gone.values()][0]?.reason).toBe('starved')
    expect(write.reply?.error).toBe(0)
    expect(plane.clockWanted).toBe(false)
  })

  test('a peer that owes its payload is cut, also when it sends other bytes or takes its answers', () => {
    const plane = new SimulatedPlane({ seed: 1, limits: large })
    plane.openExport(1, { clients: 'shared' })
    const stalled = [plane.connect(), plane.connect()]
    for (const frontend of stalled) {
      frontend.queue({ command: COMMAND.WRITE, payload: filled(48 * 1024, 1) })
      frontend.deliver(28 + 100)
    }
    plane.settle()
    const waiting = plane.connect().read(0, 10_000)
    plane.pass(0)
    plane.pass(plane.limits.stalledPeerMs)
    expect([...plane.gone.values()].map(({ reason }) => reason)).toEqual(['starved'])
    expect(waiting.reply?.error).toBe(0)
  })

  test('a peer that keeps slots without memory is cut, too: it takes no answers, or owes a refused payload', () => {
    for (const bad of [false, true]) {
      const plane = new SimulatedPlane({
        seed: 1,
        limits: { slotsMax: 4, requestsPerConnectionMax: 4, stalledPeerMs: 1000 },
        engine: { socketBufferBytes: 8 },
      })
      plane.openExport(1, { clients: 'shared' })
      const stalled = plane.connect()
      stalled.setReading(false)
      for (let count = 0; count < (bad ? 3 : 4); count += 1) stalled.send({ command: COMMAND.FLUSH })
      if (bad) {
        stalled.queue({ command: COMMAND.WRITE, offset: 1 << 20, payload: filled(100, 1) })
        stalled.deliver(28)
      }
      plane.settle()
      // Sending more is no progress where answers are not taken.
      stalled.queue({ command: COMMAND.FLUSH })
      stalled.deliver(bad ? 0 : 1)
      plane.settle()
      const flush = plane.connect().send({ command: COMMAND.FLUSH })
      plane.settle()
      stalled.deliver(bad ? 0 : 1)
      plane.pass(plane.limits.stalledPeerMs)
      expect(reasonOf(plane, stalled)).toBe('starved')
      expect(flush.reply?.error).toBe(0)
    }
  })

  test('whoever waits itself, for the disk or for memory, is not cut', () => {
    const plane = new SimulatedPlane({ seed: 1, limits: large })
    plane.openExport(1, { clients: 'shared' })
    plane.engine.setDiskFrozen(true)
    const clients = [plane.connect(), plane.connect(), plane.connect(), plane.connect()]
    for (const client of clients) client.write(0, filled(40_000, 1))
    plane.settle()
    plane.pass(plane.limits.stalledPeerMs * 3)
    expect(plane.gone.size).toBe(0)
    plane.engine.setDiskFrozen(false)
    plane.settle()
    expect(clients.map(({ unanswered }) => unanswered)).toEqual([[], [], [], []])
  })

  test('whom our own gate has parked with its memory is cut after all others', () => {
    const plane = new SimulatedPlane({ seed: 1, parts: 2, limits: large, engine: { socketBufferBytes: 16 } })
    plane.openExport(1)
    plane.openExport(2)
    const parked = plane.connect(1)
    parked.queue({ command: COMMAND.WRITE, payload: filled(40_000, 1) })
    parked.deliver(100)
    plane.settle()
    plane.gate(1, 'park')
    parked.deliver()
    plane.settle()
    const stalled = plane.connect(2)
    stalled.setReading(false)
    stalled.read(0, 40_000)
    plane.settle()
    const busy = plane.connect(2)
    const first = busy.read(0, 40_000)
    plane.settle()
    plane.pass(plane.limits.stalledPeerMs)
    expect([reasonOf(plane, parked), reasonOf(plane, stalled)]).toEqual([undefined, 'starved'])
    expect(first.reply?.error).toBe(0)
    plane.gate(1, 'admit')
    expect(parked.unanswered).toEqual([])
  })

  test('are given in the order in which they were waited for, large or small', () => {
    const plane = new SimulatedPlane({ seed: 1, limits: large })
    plane.openExport(1, { clients: 'shared' })
    const order: number[] = []
    plane.engine.setDiskFrozen(true)
    const clients = [30_000, 60_000 - 20_000, 40_000, 100, 100].map((length, index) => {
      const client = plane.connect()
      client.onReply = () => {
        order.push(index)
      }
      client.read(0, length)
      plane.settle()
      return client
    })
    expect(plane.plane.state.memoryLine.count).toBe(3)
    plane.engine.setDiskFrozen(false)
    plane.settle()
    expect(clients.map(({ unanswered }) => unanswered.length)).toEqual([0, 0, 0, 0, 0])
    // The small ones could have been served at once; they do not pass the large one that came before them.
    expect(order.indexOf(2)).toBeLessThan(5)
    expect(plane.gone.size).toBe(0)
  })

  test('go round: a busy client never keeps another from its turn', () => {
    const plane = new SimulatedPlane({ seed: 1, limits: { slotsMax: 3, requestsPerConnectionMax: 3 } })
    plane.openExport(1, { clients: 'shared' })
    const busy = [plane.connect(), plane.connect()]
    const modest = plane.connect()
    for (const client of busy) for (let count = 0; count < 60; count += 1) client.read(0, 512)
    plane.engine.setDiskFrozen(true)
    plane.settle()
    const read = modest.read(0, 512)
    let before = 0
    modest.onReply = () => {
      before = busy.reduce((sum, { requests, unanswered }) => sum + requests.size - unanswered.length, 0)
    }
    plane.settle()
    plane.engine.setDiskFrozen(false)
    while (read.reply === undefined && plane.step()) for (const client of [...busy, modest]) client.poll()
    expect(read.reply?.error).toBe(0)
    expect(before).toBeLessThan(20)
    plane.settle()
    expect(busy.flatMap(({ unanswered }) => unanswered)).toEqual([])
  })

  test('waiting for slots never stands in front of waiting for memory', () => {
    const plane = new SimulatedPlane({
      seed: 1,
      limits: { ...large, slotsMax: 3, requestsPerConnectionMax: 1, connectionsMax: 8 },
    })
    plane.openExport(1, { clients: 'shared' })
    plane.engine.setDiskFrozen(true)
    const first = [plane.connect(), plane.connect()]
    for (const client of first) client.read(0, 40_000)
    plane.settle()
    const memory = plane.connect()
    memory.read(0, 40_000)
    plane.settle()
    const slots = [plane.connect(), plane.connect()]
    for (const client of slots) client.read(0, 40_000)
    plane.settle()
    plane.engine.setDiskFrozen(false)
    plane.settle()
    expect([...first, memory, ...slots].flatMap(({ unanswered }) => unanswered)).toEqual([])
  })
})

describe('a busy connection', () => {
  test('has its share of a turn, and others theirs', () => {
    const plane = new SimulatedPlane({
      seed: 1,
      limits: { inboxBytes: 65_536, slotsMax: 4096, requestsPerConnectionMax: 2048 },
      engine: { shortChance: 0, socketBufferBytes: 1 << 20, diskDepth: 4096 },
    })
    plane.openExport(1, { clients: 'shared' })
    const [busy, modest] = [plane.connect(), plane.connect()]
    for (let count = 0; count < 1500; count += 1) busy.queue({ command: COMMAND.CACHE, length: 512 })
    busy.deliver()
    let before = -1
    modest.onReply = () => {
      before = busy.requests.size - busy.unanswered.length
    }
    const read = modest.send({ command: COMMAND.CACHE, length: 512, flags: FLAG.FUA })
    while (read.reply === undefined && plane.step()) for (const client of [modest, busy]) client.poll()
    expect(read.reply?.error).toBe(0)
    expect(before).toBeLessThan(1000)
    plane.settle()
    expect(busy.unanswered).toEqual([])
  })
})

describe('a disconnect that was ordered', () => {
  test('cuts one or all, answers what is outstanding, and reads nothing more', () => {
    const plane = new SimulatedPlane({ seed: 1 })
    plane.openExport(1, { clients: 'shared' })
    const [one, two, three] = [plane.connect(), plane.connect(), plane.connect()]
    plane.engine.setDiskFrozen(true)
    const write = one.write(0, filled(512, 1))
    plane.settle()
    expect(plane.order({ kind: 'disconnect', exportId: 1, clientId: one.clientId }).clients).toBe(1)
    const late = one.write(0, filled(512, 2))
    plane.settle()
    expect(plane.gone.size).toBe(0)
    plane.engine.setDiskFrozen(false)
    plane.settle()
    expect([write.reply?.error, late.reply]).toEqual([0, undefined])
    expect(reasonOf(plane, one)).toBe('ordered')
    expect(plane.order({ kind: 'disconnect', exportId: 1 }).clients).toBe(2)
    expect([reasonOf(plane, two), reasonOf(plane, three)]).toEqual(['ordered', 'ordered'])
    plane.assertNothingLeft()
  })

  test('waits for the disk no longer than a farewell; the admitted write runs on', () => {
    const plane = new SimulatedPlane({ seed: 1 })
    plane.openExport()
    const frontend = plane.connect()
    plane.engine.setDiskFrozen(true)
    frontend.write(0, filled(512, 1))
    plane.settle()
    plane.order({ kind: 'disconnect', exportId: 1 })
    expect(reasonOf(plane, frontend)).toBeUndefined()
    plane.pass(plane.limits.farewellMs)
    expect(reasonOf(plane, frontend)).toBe('ordered')
    plane.engine.setDiskFrozen(false)
    plane.settle()
    expect(plane.disk(0, 512)).toEqual(filled(512, 1))
    plane.assertNothingLeft()
  })
})

describe('a connection that comes too late', () => {
  test('for its export is turned away', () => {
    const plane = new SimulatedPlane({ seed: 1 })
    plane.attachExport({ exportId: 1 })
    plane.order({ kind: 'detachExport', exportId: 1 })
    const { frontend, adoption } = plane.connectLater(1)
    expect(plane.order(adoption).adopted).toBe(false)
    expect([reasonOf(plane, frontend), frontend.ended]).toEqual(['ordered', true])
    plane.assertNothingLeft()
  })

  test('for its worker is turned away, and does not hold up the stop', () => {
    const plane = new SimulatedPlane({ seed: 1 })
    plane.openExport()
    plane.engine.setDiskFrozen(true)
    plane.connect().write(0, filled(512, 1))
    plane.settle()
    const stop = plane.post({ kind: 'stop' })
    const { frontend, adoption } = plane.connectLater(1)
    expect(plane.order(adoption).adopted).toBe(false)
    expect(frontend.ended).toBe(true)
    plane.engine.setDiskFrozen(false)
    plane.settle()
    expect(plane.hasReported(stop)).toBe(true)
    plane.assertNothingLeft()
  })
})

test('an error is an answer like any other', () => {
  const plane = new SimulatedPlane({ seed: 1 })
  plane.openExport()
  plane.gate(1, 'refuse')
  const frontend = plane.connect()
  const write = frontend.write(0, filled(2000, 1))
  const read = frontend.read(0, 512)
  const flush = frontend.send({ command: COMMAND.FLUSH })
  plane.settle()
  expect([write, read, flush].map(({ reply }) => reply?.error)).toEqual(new Array(3).fill(ERROR.ESHUTDOWN))
  expect(plane.engine.history).toEqual([])
})
