/**
 * What stops an export from inside the data plane: a failure after which nobody can say what is on the disk, and the shared
 * generation that the main thread takes away. What was not submitted is refused, and nothing more is written.
 */

import { describe, expect, test } from 'vitest'
import { COMMAND, ERROR, filled } from '../support/simulated-frontend.ts'
import { Rig, failing, operations } from './executor-rig.ts'

const EIO = 5

describe('what fences an export', () => {
  test('a failed write in writeback', () => {
    const rig = new Rig()
    const { plane } = rig
    plane.openExport(1, { durability: 'writeback' })
    const frontend = plane.connect()
    rig.plan = failing('write', EIO)
    const failed = frontend.write(0, filled(512, 1))
    plane.settle()
    const after = frontend.read(0, 512)
    plane.settle()
    expect([failed.reply?.error, after.reply?.error]).toEqual([ERROR.EIO, ERROR.ESHUTDOWN])
    expect(plane.notices).toContainEqual({ kind: 'exportFaulted', exportId: 1, errno: EIO, during: 'write' })
  })

  test('a failed sync, and everything that waited for it fails and is listed', () => {
    const rig = new Rig()
    const { plane } = rig
    plane.openExport()
    const frontend = plane.connect()
    rig.plan = failing('sync', EIO)
    const trim = frontend.send({ command: COMMAND.TRIM, offset: 0, length: 512 })
    const held = frontend.write(0, filled(512, 1))
    plane.settle()
    expect([trim.reply?.error, held.reply?.error]).toEqual([ERROR.EIO, ERROR.ESHUTDOWN])
    expect(plane.notices).toContainEqual({ kind: 'exportFaulted', exportId: 1, errno: EIO, during: 'sync' })
    expect(plane.served(1).indeterminate.list()).toEqual([{ offset: 0, length: 512 }])
    expect(operations(plane)).toEqual(['discard 0+512', 'sync'])
  })

  test('once: the sync after a failed one is no proof', () => {
    const rig = new Rig()
    const { plane } = rig
    plane.openExport(1, { durability: 'writeback' })
    const frontend = plane.connect()
    frontend.write(0, filled(512, 1))
    plane.settle()
    rig.plan = failing('sync', EIO)
    expect(plane.order({ kind: 'sync', exportId: 1 }).errno).toBe(EIO)
    const flush = frontend.send({ command: COMMAND.FLUSH })
    plane.settle()
    rig.plan = () => 0
    expect(flush.reply?.error).not.toBe(0)
    expect(plane.order({ kind: 'sync', exportId: 1 }).errno).toBe(EIO)
  })

  test('never a failed read', () => {
    const rig = new Rig()
    const { plane } = rig
    plane.openExport(1, { durability: 'writeback' })
    const frontend = plane.connect()
    rig.plan = failing('read', EIO)
    const read = frontend.read(0, 512)
    const modify = frontend.write(3, filled(3, 1))
    plane.settle()
    rig.plan = () => 0
    const write = frontend.write(0, filled(512, 1))
    plane.settle()
    expect([read, modify, write].map(({ reply }) => reply?.error)).toEqual([ERROR.EIO, ERROR.EIO, 0])
    expect(plane.notices).toEqual([])
  })

  test('does not fence the generation after it, nor the export beside it', () => {
    const rig = new Rig()
    const { plane } = rig
    plane.openExport(1, { durability: 'writeback' })
    plane.openExport(2, { durability: 'writeback' })
    const [one, two] = [plane.connect(1), plane.connect(2)]
    rig.plan = failing('write', EIO)
    one.write(0, filled(512, 1))
    plane.settle()
    rig.plan = () => 0
    const beside = two.write(0, filled(512, 2))
    plane.order({ kind: 'drain', exportId: 1 })
    plane.order({ kind: 'detachFile', exportId: 1 })
    plane.order(plane.attachFileOrder({ exportId: 1, generation: 2 }))
    plane.setCell(1, 2)
    plane.gate(1, 'admit')
    const next = one.write(0, filled(512, 3))
    plane.settle()
    expect([beside.reply?.error, next.reply?.error]).toEqual([0, 0])
    plane.gate(1, 'park')
    expect(plane.order({ kind: 'drain', exportId: 1 }).indeterminate).toEqual([])
  })
})

describe('the shared generation', () => {
  test('stops what was not submitted, and answers it NBD_ESHUTDOWN', () => {
    const { plane } = new Rig()
    plane.openExport()
    const frontend = plane.connect()
    plane.engine.setDiskFrozen(true)
    const submitted = frontend.write(0, filled(512, 1))
    const held = frontend.write(0, filled(512, 2))
    plane.settle()
    plane.setCell(1, 0)
    const late = frontend.write(512, filled(512, 3))
    plane.settle()
    plane.engine.setDiskFrozen(false)
    plane.settle()
    expect([submitted, held, late].map(({ reply }) => reply?.error)).toEqual([0, ERROR.ESHUTDOWN, ERROR.ESHUTDOWN])
    expect(operations(plane)).toEqual(['write 0+512'])
  })

  test('stops a read-modify-write between its steps, and a WRITE_ZEROES between its ends', () => {
    const { plane } = new Rig()
    plane.openExport()
    const frontend = plane.connect()
    const modify = frontend.write(5, filled(5, 1))
    const zeroes = frontend.send({ command: COMMAND.WRITE_ZEROES, offset: 1000, length: 2000 })
    plane.onDisk = () => {
      plane.setCell(1, 0)
    }
    plane.settle()
    expect([modify.reply?.error, zeroes.reply?.error]).toEqual([ERROR.ESHUTDOWN, ERROR.ESHUTDOWN])
    expect(operations(plane)).toEqual(['read 0+512', 'zero 1024+1536', 'read 512+512'])
    // What was begun and not ended is not known.
    expect(plane.served(1).indeterminate.list()).toEqual([{ offset: 512, length: 2560 }])
  })

  test('of another number stops everything too, and reads go on', () => {
    const { plane } = new Rig()
    plane.openExport()
    plane.setCell(1, 7)
    const frontend = plane.connect()
    const write = frontend.write(0, filled(512, 1))
    const read = frontend.read(0, 512)
    plane.settle()
    expect([write.reply?.error, read.reply?.error]).toEqual([ERROR.ESHUTDOWN, 0])
  })
})
