import { describe, expect, test } from 'vitest'
import { AssertionFailure } from '../../src/foundation/assert.ts'
import { COMMAND, ERROR, filled } from '../support/simulated-frontend.ts'
import type { SimulatedFrontend } from '../support/simulated-frontend.ts'
import { SimulatedPlane } from '../support/simulated-plane.ts'

/** Everything in whole pieces and in order, unless a test wants it otherwise. */
function calmPlane(options: Partial<ConstructorParameters<typeof SimulatedPlane>[0]> = {}): SimulatedPlane {
  return new SimulatedPlane({ seed: 1, ...options, engine: { shortChance: 0, ...options.engine } })
}

function errors(frontend: SimulatedFrontend): (number | undefined)[] {
  return [...frontend.requests.values()].map(({ reply }) => reply?.error)
}

/** A script that uses every command once; its answers are always the same. */
function queueScript(frontend: SimulatedFrontend): void {
  frontend.queue({ command: COMMAND.WRITE, offset: 0, payload: filled(4096, 1) })
  frontend.queue({ command: COMMAND.WRITE, offset: 700, payload: filled(1000, 2) })
  frontend.queue({ command: COMMAND.WRITE_ZEROES, offset: 100, length: 300 })
  frontend.queue({ command: COMMAND.FLUSH })
  frontend.queue({ command: COMMAND.TRIM, offset: 8192, length: 4096 })
  frontend.queue({ command: COMMAND.CACHE, offset: 0, length: 512 })
  frontend.queue({ command: 99, length: 512 })
  frontend.queue({ command: COMMAND.WRITE, offset: 1 << 20, payload: filled(2000, 3) })
  frontend.queue({ command: COMMAND.WRITE, offset: 2048, payload: filled(3000, 4) })
}

const SCRIPT_ERRORS = [0, 0, 0, 0, 0, 0, ERROR.EINVAL, ERROR.ENOSPC, 0]

function expectScriptDone(plane: SimulatedPlane, frontend: SimulatedFrontend): void {
  expect(errors(frontend)).toEqual(SCRIPT_ERRORS)
  const disk = plane.disk(0, 32 * 1024)
  const expected = filled(4096, 1)
  expected.fill(2, 700, 1700)
  expected.fill(0, 100, 400)
  expected.set(filled(2048, 4), 2048)
  expect(Buffer.compare(disk.subarray(0, 4096), expected)).toBe(0)
  expect(Buffer.compare(disk.subarray(2048, 5048), filled(3000, 4))).toBe(0)
}

describe('what is received', () => {
  test('means the same one byte at a time', () => {
    const plane = calmPlane({ limits: { requestsPerConnectionMax: 4, inboxBytes: 4096 } })
    plane.openExport()
    const frontend = plane.connect()
    queueScript(frontend)
    while (frontend.unsentBytes > 0) {
      frontend.deliver(1)
      plane.settle()
    }
    expectScriptDone(plane, frontend)
  })

  test.each([1, 27, 28, 29, 4096, 4124, 4125, 12_000])('means the same after %i bytes read ahead', (count) => {
    const plane = calmPlane({ limits: { inboxBytes: 4096 } })
    plane.openExport()
    const { frontend, adoption } = plane.connectLater(1)
    queueScript(frontend)
    plane.order({ ...adoption, unread: frontend.takeUnsent(count) })
    frontend.deliver()
    plane.settle()
    expectScriptDone(plane, frontend)
  })

  test('arrives in any pieces, into the inbox or straight into its place', () => {
    for (let seed = 1; seed <= 20; seed += 1) {
      const plane = new SimulatedPlane({ seed, limits: { inboxBytes: 4096 }, engine: { shortChance: 0.7 } })
      plane.openExport()
      const frontend = plane.connect()
      const payload = Uint8Array.from({ length: 60_000 }, (_, index) => (index * 7 + seed) & 0xff)
      const requests = [frontend.write(1000, payload.subarray(0, 50_001)), frontend.write(512, payload)]
      plane.settle()
      expect(requests.map(({ reply }) => reply?.error)).toEqual([0, 0])
      expect(Buffer.compare(plane.disk(512, payload.length), payload)).toBe(0)
    }
  })

  test('is looked at no further than as many requests as a connection may have', () => {
    const plane = calmPlane({ limits: { requestsPerConnectionMax: 3 } })
    plane.openExport()
    const frontend = plane.connect()
    plane.engine.setDiskFrozen(true)
    for (let block = 0; block < 10; block += 1) frontend.read(block * 512, 512)
    plane.settle()
    expect(plane.plane.state.tracker.freeCount).toBe(plane.limits.slotsMax - 3)
    plane.engine.setDiskFrozen(false)
    plane.settle()
    expect(frontend.unanswered).toEqual([])
  })
})

describe('a bad request', () => {
  test('with a payload is answered when the payload is consumed, and the connection goes on', () => {
    const plane = calmPlane({ limits: { inboxBytes: 4096 } })
    plane.openExport()
    const frontend = plane.connect()
    const bad = frontend.queue({ command: COMMAND.WRITE, offset: 60_000, payload: filled(20_000, 9) })
    frontend.deliver(28 + 19_999)
    plane.settle()
    expect(bad.reply).toBeUndefined()
    frontend.deliver()
    const good = frontend.write(0, filled(512, 1))
    plane.settle()
    expect([bad.reply?.error, good.reply?.error]).toEqual([ERROR.ENOSPC, 0])
  })

  test('that is parked behind a good one is answered in its turn', () => {
    const plane = calmPlane()
    plane.openExport()
    plane.gate(1, 'admit', 'park')
    const frontend = plane.connect()
    frontend.write(0, filled(512, 1))
    frontend.send({ command: 99 })
    plane.settle()
    expect(errors(frontend)).toEqual([undefined, undefined])
    plane.gate(1, 'admit')
    expect(errors(frontend)).toEqual([0, ERROR.EINVAL])
  })

  test('without the magic ends the connection, and what was admitted before it is still done', () => {
    const plane = calmPlane()
    plane.openExport()
    const frontend = plane.connect()
    plane.engine.setDiskFrozen(true)
    frontend.write(0, filled(512, 5))
    frontend.queueBytes(filled(28, 7))
    frontend.deliver()
    plane.settle()
    expect(plane.gone.get(frontend.clientId)?.reason).toBe('protocol')
    plane.engine.setDiskFrozen(false)
    plane.settle()
    expect(plane.disk(0, 512)).toEqual(filled(512, 5))
    plane.assertNothingLeft()
  })

  test('that announces more than the largest payload ends the connection', () => {
    const plane = calmPlane()
    plane.openExport()
    const frontend = plane.connect()
    frontend.send({ command: COMMAND.WRITE, length: plane.limits.payloadBytesMax + 1 })
    plane.settle()
    expect(plane.gone.get(frontend.clientId)?.reason).toBe('protocol')
    expect(frontend.ended).toBe(true)
  })

  test('that asks for more than the largest payload is refused', () => {
    const plane = calmPlane({ partBytes: 256 * 1024 })
    plane.openExport()
    const frontend = plane.connect()
    const tooMuch = frontend.read(0, plane.limits.payloadBytesMax + 1)
    const most = frontend.read(0, plane.limits.payloadBytesMax)
    plane.settle()
    expect([tooMuch.reply?.error, most.reply?.error]).toEqual([ERROR.EINVAL, 0])
  })

  test('to a read-only export is refused by EPERM', () => {
    const plane = calmPlane()
    plane.openExport(1, { readOnly: true }, 0)
    const frontend = plane.connect()
    const requests = [
      frontend.write(0, filled(512, 1)),
      frontend.send({ command: COMMAND.TRIM, length: 512 }),
      frontend.send({ command: COMMAND.WRITE_ZEROES, length: 512 }),
      frontend.read(0, 512),
    ]
    plane.settle()
    expect(requests.map(({ reply }) => reply?.error)).toEqual([ERROR.EPERM, ERROR.EPERM, ERROR.EPERM, 0])
  })
})

describe('NBD_CMD_DISC', () => {
  test('lets everything before it be answered, and nothing after it be read', () => {
    const plane = calmPlane()
    plane.openExport()
    const frontend = plane.connect()
    plane.engine.setDiskFrozen(true)
    frontend.write(0, filled(512, 1))
    frontend.read(512, 512)
    frontend.send({ command: COMMAND.DISC })
    frontend.write(1024, filled(512, 9))
    plane.settle()
    expect(plane.gone.size).toBe(0)
    plane.engine.setDiskFrozen(false)
    plane.settle()
    expect(errors(frontend)).toEqual([0, 0, undefined])
    expect(plane.disk(1024, 512)).toEqual(filled(512, 0))
    expect(plane.gone.get(frontend.clientId)?.reason).toBe('disconnect')
    plane.assertNothingLeft()
  })

  test('is honoured when it was sent before the end of the stream and is not parsed yet', () => {
    const plane = calmPlane()
    plane.openExport()
    plane.gate(1, 'admit', 'park')
    const frontend = plane.connect()
    frontend.write(0, filled(512, 1))
    frontend.write(512, filled(512, 2))
    frontend.send({ command: COMMAND.DISC })
    frontend.finish()
    plane.settle()
    expect(plane.gone.size).toBe(0)
    plane.gate(1, 'admit')
    expect(errors(frontend)).toEqual([0, 0])
    expect(plane.gone.get(frontend.clientId)?.reason).toBe('disconnect')
  })

  test('is not seen where a payload says so', () => {
    const plane = calmPlane()
    plane.openExport()
    plane.gate(1, 'admit', 'park')
    const frontend = plane.connect()
    const disc = plane.connectLater(1).frontend
    disc.queue({ command: COMMAND.DISC })
    const payload = filled(512, 0)
    payload.set(disc.takeUnsent())
    frontend.write(0, payload)
    frontend.finish()
    plane.settle()
    expect(plane.gone.get(frontend.clientId)?.reason).toBe('lost')
  })

  test('of a client that does not take its answers delays no stop', () => {
    const plane = calmPlane({ engine: { socketBufferBytes: 8 } })
    plane.openExport()
    const frontend = plane.connect()
    frontend.setReading(false)
    frontend.write(0, filled(512, 1))
    frontend.send({ command: COMMAND.DISC })
    plane.settle()
    plane.gate(1, 'park')
    plane.order({ kind: 'drain', exportId: 1 })
    plane.order({ kind: 'detachFile', exportId: 1 })
    const stop = plane.post({ kind: 'stop' })
    plane.settle()
    expect(plane.hasReported(stop)).toBe(false)
    plane.pass(plane.limits.farewellMs)
    expect(plane.hasReported(stop)).toBe(true)
    plane.assertNothingLeft()
  })
})

describe('a client that goes without NBD_CMD_DISC', () => {
  test.each(['finish', 'close', 'reset'] as const)('by %s takes what was not admitted along', (how) => {
    const plane = calmPlane()
    plane.openExport()
    plane.gate(1, 'admit', 'park')
    const frontend = plane.connect()
    frontend.write(0, filled(512, 1))
    frontend.write(512, filled(512, 2))
    plane.settle()
    frontend[how]()
    plane.settle()
    plane.gate(1, 'admit')
    expect(plane.disk(0, 1024)).toEqual(filled(1024, 0))
    expect(plane.gone.get(frontend.clientId)?.reason).toBe('lost')
    plane.assertNothingLeft()
  })

  test('leaves what was admitted to run to its end', () => {
    const plane = calmPlane()
    plane.openExport()
    const frontend = plane.connect()
    plane.engine.setDiskFrozen(true)
    frontend.write(0, filled(512, 1))
    plane.settle()
    frontend.reset()
    plane.settle()
    expect(plane.gone.has(frontend.clientId)).toBe(true)
    expect(plane.plane.state.tracker.orphansOfExport(0)).toBe(1)
    plane.engine.setDiskFrozen(false)
    plane.settle()
    expect(plane.disk(0, 512)).toEqual(filled(512, 1))
    plane.assertNothingLeft()
  })

  test('in the middle of a payload leaves nothing behind', () => {
    for (const received of [28, 100, 28 + 20_000]) {
      const plane = calmPlane({ limits: { inboxBytes: 4096 } })
      plane.openExport()
      const frontend = plane.connect()
      frontend.queue({ command: COMMAND.WRITE, payload: filled(40_000, 1) })
      frontend.deliver(received)
      plane.settle()
      frontend.close()
      plane.settle()
      expect(Buffer.compare(plane.disk(0, 40_000), filled(40_000, 0))).toBe(0)
      plane.assertNothingLeft()
    }
  })

  test('while its request is parked, unnoticed, is noticed before that is admitted', () => {
    const plane = calmPlane({ limits: { inboxBytes: 4096 } })
    plane.openExport()
    plane.gate(1, 'admit', 'park')
    const frontend = plane.connect()
    // The inbox is full, so the end of the stream cannot be received.
    for (let block = 0; block < 8; block += 1) frontend.write(block * 512, filled(512, 1))
    plane.settle()
    frontend.finish()
    plane.settle()
    expect(plane.gone.size).toBe(0)
    plane.gate(1, 'admit')
    expect(plane.disk(0, 4096)).toEqual(filled(4096, 0))
    expect(plane.gone.get(frontend.clientId)?.reason).toBe('lost')
  })
})

describe('limits that cannot work', () => {
  test('are asserted when the plane is made', () => {
    expect(() => calmPlane({ limits: { arenaBytes: 64 * 1024 } })).toThrow(AssertionFailure)
    expect(() => calmPlane({ limits: { slotsMax: 100_000 } })).toThrow(AssertionFailure)
  })
})
