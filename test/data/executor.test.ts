import { describe, expect, test } from 'vitest'
import { COMMAND, ERROR, FLAG, filled } from '../support/simulated-frontend.ts'
import { SimulatedPlane } from '../support/simulated-plane.ts'
import { Rig, failing, operations } from './executor-rig.ts'
import { WRITE_DURABLE, ZERO_MAY_PUNCH } from '../../src/engine/contract.ts'

const EIO = 5
const ENOSPC = 28
const EOPNOTSUPP = 95

describe('a write in sync', () => {
  test('is one durable write, without a sync', () => {
    const { plane } = new Rig()
    plane.openExport()
    const write = plane.connect().write(512, filled(1024, 1))
    plane.settle()
    expect(write.reply?.error).toBe(0)
    expect(operations(plane)).toEqual(['write 512+1024'])
    expect(plane.engine.history[0]?.flags).toBe(WRITE_DURABLE)
    plane.engine.disk.powerCut()
    expect(plane.disk(512, 1024)).toEqual(filled(1024, 1))
  })

  test('and a FLUSH after it costs nothing', () => {
    const { plane } = new Rig()
    plane.openExport()
    const frontend = plane.connect()
    frontend.write(0, filled(512, 1), FLAG.FUA)
    frontend.send({ command: COMMAND.FLUSH })
    plane.settle()
    expect(frontend.unanswered).toEqual([])
    expect(operations(plane)).toEqual(['write 0+512'])
  })

  test.each([
    ['TRIM', COMMAND.TRIM, 'discard'],
    ['WRITE_ZEROES', COMMAND.WRITE_ZEROES, 'zero'],
  ] as const)('%s is followed by a sync before it is answered', (_name, command, kind) => {
    const { plane } = new Rig()
    plane.openExport()
    plane.engine.disk.format(filled(plane.partBytes * 2, 7))
    const frontend = plane.connect()
    let syncCleared = false
    frontend.onReply = () => {
      syncCleared = plane.engine.history.some((record) => record.kind === 'sync' && record.clearedAt > 0)
    }
    frontend.send({ command, offset: 4096, length: 4096 })
    plane.settle()
    expect(operations(plane)).toEqual([`${kind} 4096+4096`, 'sync'])
    expect(syncCleared).toBe(true)
    plane.engine.disk.powerCut()
    expect(plane.disk(4096, 4096)).toEqual(filled(4096, 0))
  })

  test('of TRIM holds back what overlaps it until its sync has completed', () => {
    const { plane } = new Rig()
    plane.openExport()
    const frontend = plane.connect()
    frontend.send({ command: COMMAND.TRIM, offset: 0, length: 4096 })
    frontend.write(512, filled(512, 1))
    plane.settle()
    expect(operations(plane)).toEqual(['discard 0+4096', 'sync', 'write 512+512'])
    const [, sync, write] = plane.engine.history
    expect(write!.submittedAt).toBeGreaterThanOrEqual(sync!.clearedAt)
  })
})

describe('a write in writeback', () => {
  test('is durable after FLUSH, or by FUA', () => {
    const { plane } = new Rig()
    plane.openExport(1, { durability: 'writeback' })
    const frontend = plane.connect()
    frontend.send({ command: COMMAND.FLUSH })
    plane.settle()
    frontend.write(0, filled(512, 1))
    plane.settle()
    expect(plane.engine.history.at(-1)?.flags).toBe(0)
    frontend.send({ command: COMMAND.FLUSH })
    plane.settle()
    frontend.write(512, filled(512, 2), FLAG.FUA)
    plane.settle()
    frontend.write(1024, filled(512, 3))
    plane.settle()
    expect(frontend.unanswered).toEqual([])
    expect(operations(plane)).toEqual(['sync', 'write 0+512', 'sync', 'write 512+512', 'sync', 'write 1024+512'])
  })

  test('that a FLUSH did not cover is covered by the next one', () => {
    const { plane } = new Rig()
    plane.openExport(1, { durability: 'writeback' })
    const frontend = plane.connect()
    frontend.send({ command: COMMAND.FLUSH })
    plane.settle()
    frontend.send({ command: COMMAND.FLUSH })
    plane.settle()
    expect(operations(plane)).toEqual(['sync'])
    frontend.write(0, filled(512, 1))
    plane.settle()
    frontend.send({ command: COMMAND.FLUSH })
    frontend.send({ command: COMMAND.FLUSH })
    plane.settle()
    expect(operations(plane).filter((operation) => operation === 'sync').length).toBeGreaterThanOrEqual(2)
    expect(frontend.unanswered).toEqual([])
  })

  test('does not join a sync that is on its way', () => {
    const { plane } = new Rig()
    plane.openExport(1, { durability: 'writeback' })
    const frontend = plane.connect()
    frontend.write(0, filled(512, 1))
    plane.settle()
    let answersAtSync = -1
    frontend.onReply = () => {
      answersAtSync = plane.engine.history.filter(({ kind, clearedAt }) => kind === 'sync' && clearedAt > 0).length
    }
    plane.engine.setDiskFrozen(true)
    frontend.send({ command: COMMAND.FLUSH })
    plane.settle()
    const late = frontend.send({ command: COMMAND.FLUSH })
    plane.settle()
    plane.engine.setDiskFrozen(false)
    plane.settle()
    expect(late.reply?.error).toBe(0)
    expect(answersAtSync).toBe(2)
  })

  test('of a generation that was fenced is flushed by the first FLUSH of the next', () => {
    const { plane } = new Rig()
    plane.openExport(1, { durability: 'writeback' })
    const frontend = plane.connect()
    frontend.write(0, filled(512, 1))
    plane.settle()
    plane.setCell(1, 0)
    plane.gate(1, 'refuse')
    plane.order({ kind: 'drain', exportId: 1 })
    plane.order({ kind: 'detachFile', exportId: 1 })
    plane.order(plane.attachFileOrder({ exportId: 1, generation: 2 }))
    plane.setCell(1, 2)
    plane.gate(1, 'admit')
    const flush = frontend.send({ command: COMMAND.FLUSH })
    plane.settle()
    expect(flush.reply?.error).toBe(0)
    plane.engine.disk.powerCut()
    expect(plane.disk(0, 512)).toEqual(filled(512, 1))
  })
})

describe('an unaligned write', () => {
  test.each([
    [100, 50, ['read 0+512', 'write 0+512']],
    [100, 412, ['read 0+512', 'write 0+512']],
    [512, 100, ['read 512+512', 'write 512+512']],
    [500, 24, ['read 0+512', 'read 512+512', 'write 0+1024']],
    [512, 700, ['read 1024+512', 'write 512+1024']],
    [100, 924, ['read 0+512', 'write 0+1024']],
    [100, 2000, ['read 0+512', 'read 2048+512', 'write 0+2560']],
  ])('of %i+%i reads what it must and no more', (offset, length, expected) => {
    const { plane } = new Rig()
    const pattern = Uint8Array.from({ length: plane.partBytes * 2 }, (_, index) => (index * 13) & 0xff)
    plane.engine.disk.format(pattern)
    plane.openExport()
    plane.connect().write(offset, filled(length, 0xee))
    plane.settle()
    expect(operations(plane)).toEqual(expected)
    pattern.fill(0xee, offset, offset + length)
    expect(plane.disk(0, 4096)).toEqual(pattern.slice(0, 4096))
  })

  test('into the same block as another keeps both', () => {
    for (let seed = 1; seed <= 20; seed += 1) {
      const { plane } = new Rig({ seed })
      plane.openExport(1, { alignmentBytes: 4096 })
      const frontend = plane.connect()
      for (let part = 0; part < 8; part += 1) frontend.write(part * 500, filled(500, part + 1))
      plane.settle()
      const expected = filled(4096, 0)
      for (let part = 0; part < 8; part += 1) expected.fill(part + 1, part * 500, part * 500 + 500)
      expect(plane.disk(0, 4096)).toEqual(expected)
    }
  })

  test('goes on where a short transfer ended', () => {
    for (let seed = 1; seed <= 30; seed += 1) {
      const { plane } = new Rig({ seed, shortChance: 0.9 })
      plane.openExport()
      const frontend = plane.connect()
      const payload = Uint8Array.from({ length: 30_000 }, (_, index) => (index * 7 + seed) & 0xff)
      const write = frontend.write(777, payload)
      plane.settle()
      const read = frontend.read(777, 30_000)
      plane.settle()
      expect([write.reply?.error, read.reply?.error]).toEqual([0, 0])
      expect(Buffer.compare(read.reply!.data, payload)).toBe(0)
    }
  })

  test('whose block cannot be read writes nothing, and leaves nothing unknown', () => {
    const rig = new Rig()
    const { plane } = rig
    plane.openExport()
    rig.plan = failing('read', EIO)
    const write = plane.connect().write(100, filled(10, 1))
    plane.settle()
    expect(write.reply?.error).toBe(ERROR.EIO)
    expect(operations(plane)).toEqual(['read 0+512'])
    expect(plane.served(1).indeterminate.count).toBe(0)
  })
})

describe('WRITE_ZEROES', () => {
  test.each([
    [100, 50, ['read 0+512', 'write 0+512', 'sync']],
    [500, 24, ['read 0+512', 'write 0+512', 'read 512+512', 'write 512+512', 'sync']],
    [100, 2000, ['zero 512+1536', 'read 0+512', 'write 0+512', 'read 2048+512', 'write 2048+512', 'sync']],
    [512, 600, ['zero 512+512', 'read 1024+512', 'write 1024+512', 'sync']],
    [100, 924, ['zero 512+512', 'read 0+512', 'write 0+512', 'sync']],
  ])('of %i+%i zeroes just that', (offset, length, expected) => {
    const { plane } = new Rig()
    const pattern = Uint8Array.from({ length: plane.partBytes * 2 }, (_, index) => (index * 13 + 1) & 0xff)
    plane.engine.disk.format(pattern)
    plane.openExport()
    plane.connect().send({ command: COMMAND.WRITE_ZEROES, offset, length })
    plane.settle()
    expect(operations(plane)).toEqual(expected)
    pattern.fill(0, offset, offset + length)
    expect(plane.disk(0, 4096)).toEqual(pattern.slice(0, 4096))
  })

  test('may punch unless NO_HOLE forbids it', () => {
    const { plane } = new Rig()
    plane.openExport()
    const frontend = plane.connect()
    frontend.send({ command: COMMAND.WRITE_ZEROES, offset: 0, length: 512 })
    frontend.send({ command: COMMAND.WRITE_ZEROES, offset: 512, length: 512, flags: FLAG.NO_HOLE })
    plane.settle()
    const zeroes = plane.engine.history.filter(({ kind }) => kind === 'zero')
    expect(zeroes.map(({ flags }) => flags)).toEqual([ZERO_MAY_PUNCH, 0])
  })

  test('where the disk cannot: zeroes are written, however many, or a fast zero is refused', () => {
    const rig = new Rig()
    const { plane } = rig
    rig.plan = failing('zero', EOPNOTSUPP)
    plane.engine.disk.format(filled(plane.partBytes * 2, 7))
    plane.openExport()
    const frontend = plane.connect()
    const fast = frontend.send({ command: COMMAND.WRITE_ZEROES, offset: 0, length: 4096, flags: FLAG.FAST_ZERO })
    plane.settle()
    expect(fast.reply?.error).toBe(ERROR.ENOTSUP)
    expect(plane.disk(0, 4096)).toEqual(filled(4096, 7))
    const slow = frontend.send({ command: COMMAND.WRITE_ZEROES, offset: 10, length: 5000 })
    plane.settle()
    expect(slow.reply?.error).toBe(0)
    expect(plane.disk(10, 5000)).toEqual(filled(5000, 0))
    expect(plane.disk(0, 10)).toEqual(filled(10, 7))
    expect(plane.served(1).indeterminate.count).toBe(0)
  })

  test('beyond the stretch of zeroes that is kept takes several writes', () => {
    const size = 3 * 1024 * 1024
    const plane = new SimulatedPlane({
      seed: 1,
      partBytes: size,
      engine: { shortChance: 0, plan: failing('zero', EOPNOTSUPP) },
    })
    plane.engine.disk.format(filled(size, 7))
    plane.openExport()
    const zeroes = plane.connect().send({ command: COMMAND.WRITE_ZEROES, length: size - 512 })
    plane.settle()
    expect(zeroes.reply?.error).toBe(0)
    expect(Buffer.compare(plane.disk(0, size - 512), filled(size - 512, 0))).toBe(0)
    expect(plane.disk(size - 512, 512)).toEqual(filled(512, 7))
  })
})

describe('TRIM', () => {
  test('names whole blocks to the disk, and succeeds where it cannot', () => {
    const rig = new Rig()
    const { plane } = rig
    plane.openExport()
    const frontend = plane.connect()
    const some = frontend.send({ command: COMMAND.TRIM, offset: 100, length: 2000 })
    const none = frontend.send({ command: COMMAND.TRIM, offset: 100, length: 500 })
    plane.settle()
    expect(operations(plane)).toEqual(['discard 512+1536', 'sync'])
    rig.plan = failing('discard', EOPNOTSUPP)
    const unsupported = frontend.send({ command: COMMAND.TRIM, offset: 0, length: 512 })
    plane.settle()
    expect([some, none, unsupported].map(({ reply }) => reply?.error)).toEqual([0, 0, 0])
    expect(operations(plane).at(-1)).toBe('discard 0+512')
    expect(plane.served(1).indeterminate.count).toBe(0)
  })
})

describe('a failed write in sync', () => {
  test('is answered with its error and listed, widened, until it is overwritten', () => {
    const rig = new Rig()
    const { plane } = rig
    plane.openExport()
    const frontend = plane.connect()
    rig.plan = failing('write', ENOSPC)
    const failed = frontend.write(600, filled(1000, 1))
    plane.settle()
    rig.plan = () => 0
    expect(failed.reply?.error).toBe(ERROR.ENOSPC)
    expect(plane.served(1).indeterminate.list()).toEqual([{ offset: 512, length: 1536 }])
    expect(plane.notices).toContainEqual({
      kind: 'writeFailed',
      exportId: 1,
      errno: ENOSPC,
      range: { offset: 512, length: 1536 },
    })
    frontend.write(512, filled(512, 2))
    plane.settle()
    expect(plane.served(1).indeterminate.list()).toEqual([{ offset: 1024, length: 1024 }])
    // Of what it did not name itself a write knows nothing.
    frontend.write(1100, filled(100, 3))
    plane.settle()
    expect(plane.served(1).indeterminate.list()).toEqual([
      { offset: 1024, length: 76 },
      { offset: 1200, length: 848 },
    ])
    frontend.send({ command: COMMAND.TRIM, offset: 0, length: 4096 })
    plane.settle()
    expect(plane.served(1).indeterminate.count).toBe(2)
    frontend.send({ command: COMMAND.WRITE_ZEROES, offset: 1024, length: 1024 })
    plane.settle()
    expect(plane.served(1).indeterminate.list()).toEqual([])
    expect(plane.notices.some(({ kind }) => kind === 'exportFaulted')).toBe(false)
  })

  test('lets what waits for it run', () => {
    const rig = new Rig()
    const { plane } = rig
    plane.openExport()
    const frontend = plane.connect()
    let failures = 0
    rig.plan = (record) => (record.kind === 'write' && (failures += 1) === 1 ? -EIO : 0)
    const first = frontend.write(0, filled(512, 1))
    const second = frontend.write(0, filled(512, 2))
    plane.settle()
    expect([first.reply?.error, second.reply?.error]).toEqual([ERROR.EIO, 0])
    expect(plane.disk(0, 512)).toEqual(filled(512, 2))
  })

  test('is named by the drain', () => {
    const rig = new Rig()
    const { plane } = rig
    plane.openExport()
    rig.plan = failing('write', EIO)
    plane.connect().write(0, filled(512, 1))
    plane.settle()
    plane.gate(1, 'park')
    const { indeterminate } = plane.order({ kind: 'drain', exportId: 1 })
    expect(indeterminate).toEqual([{ offset: 0, length: 512 }])
  })
})

describe('a read', () => {
  test('that ends within a block is an error, and not tried for ever', () => {
    const { plane } = new Rig()
    plane.openExport()
    const frontend = plane.connect()
    plane.distort = (token, result) => ((token & 7) === 0 && result === 1024 ? 700 : result)
    const whole = frontend.read(0, 1024)
    plane.settle()
    // The first block counts; the second one is then read for itself.
    expect([whole.reply?.error, operations(plane)]).toEqual([0, ['read 0+1024', 'read 512+512']])
    plane.distort = (token, result) => ((token & 7) === 0 ? Math.min(result, 100) : result)
    const read = frontend.read(0, 512)
    const modify = frontend.write(3, filled(3, 1))
    plane.settle()
    expect([read.reply?.error, modify.reply?.error]).toEqual([ERROR.EIO, ERROR.EIO])
  })
})
