/**
 * The setting of the hazard itself: a guest of Xen is saved with many writes in slow disks and restored over other daemons.
 * `xl save` does not wait for the writes, and blkfront sends every one of them again where the guest goes on; the guest then
 * writes newer data over them, and an old write that landed late would take their place. The disks say in which order they
 * landed. Under qemu-nbd, on the same journey, the old writes win.
 *
 * @module-tag slow
 */

import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Scratch } from '../support/scratch.ts'
import type { HeldDiskWrite } from '../support/held-disk.ts'
import {
  APART_BYTES,
  BESIDE,
  DEVICES,
  MOVING,
  NEWER,
  OUR_WAYS,
  WAITING,
  WAITING_FIRST,
  WRITES,
  WRITES_OF_QEMU,
} from './move-rig.ts'
import { moveGuest, numbersOnDisk, oldOnDisk } from './move-rig.ts'
import type { Move, Way } from './move-rig.ts'

const scratch = new Scratch()
let move: Move

beforeAll(async () => {
  move = await moveGuest(scratch)
}, 900_000)
afterAll(() => scratch.dispose())

const NEWER_EVERYWHERE = Array.from({ length: WRITES }, () => NEWER)

/** The writes that came to the disk by this way with this number, in the order of their blocks. */
function writesBy(way: Way, host: string, number: number): HeldDiskWrite[] {
  return move.disks[way].writes
    .filter((write) => write.way === host && write.number === number && write.offset < WRITES * APART_BYTES)
    .sort((one, other) => one.offset - other.offset)
}

const blocks = (first: number, count: number): number[] =>
  Array.from({ length: count }, (_, index) => (first + index) * APART_BYTES)

/** Writes by the source of which the destination had begun another one of the same block before they landed. */
function overtaken(way: Way): HeldDiskWrite[] {
  const { writes } = move.disks[way]
  return writes.filter(
    (old) =>
      old.way === 'source' &&
      writes.some(({ way: by, offset, begun }) => by === 'destination' && offset === old.offset && begun < old.landed),
  )
}

describe.each(OUR_WAYS)('a disk that is handed over: %s', (way) => {
  test(`all of its ${WRITES} writes are in flight when the guest has been saved, and are sent again after the restore`, () => {
    const { outstanding } = move.atSave[way]
    expect(outstanding.submitted).toBeGreaterThanOrEqual(WRITES)
    const { writes } = move.atEnd[way].totals
    if (way === 'killed') {
      // MOVING and NEWER.
      expect(writes).toBe(2 * WRITES)
      return
    }
    expect(writesBy(way, 'destination', MOVING).map(({ offset }) => offset)).toEqual(blocks(0, WRITES))
  })

  test('no block is ever old', () => {
    expect(overtaken(way)).toEqual([])
    expect(numbersOnDisk(move.disks[way])).toEqual(NEWER_EVERYWHERE)
    expect(move.read[way]).toEqual(NEWER_EVERYWHERE)
  })
})

test('the rig sees the loss: under qemu-nbd old writes land on top of newer ones that were answered', () => {
  expect(move.qemuInFlightAtSave).toBe(WRITES)
  expect(writesBy('qemu', 'destination', MOVING)).toHaveLength(WRITES)
  expect(overtaken('qemu').length).toBeGreaterThanOrEqual(WRITES_OF_QEMU)
  expect(oldOnDisk(move.disks.qemu)).toBeGreaterThanOrEqual(WRITES_OF_QEMU)
  expect(move.read.qemu.filter((number) => number === MOVING)).toHaveLength(oldOnDisk(move.disks.qemu))
})

test('plain: nothing opens while the writes are in the disk; the receipt says that all of them were drained', () => {
  expect(move.whileHeld.plain.state).toBe('standby')
  const { drained, aborted, generation } = move.receipts.plain
  expect({ writes: drained.writes, aborted }).toEqual({ writes: WRITES, aborted: [] })
  expect(move.atEnd.plain.generation).toBe(generation + 1)
})

test('unsubmitted aborted: what the receipt names never reached the disk of the source, and is sent again', () => {
  const { drained, aborted } = move.receipts.aborted
  expect(drained.writes).toBe(WRITES + WAITING)
  const dropped = blocks(WAITING_FIRST, WAITING)
  expect(aborted.map(({ offset }) => offset).sort((one, other) => one - other)).toEqual(dropped)
  const numbered = move.disks.aborted.writes.filter(
    ({ number, offset }) => number === MOVING && dropped.includes(offset),
  )
  expect(numbered.map(({ way }) => way)).toEqual(dropped.map(() => 'destination'))
})

test('early: the guest goes on while the disk of the source has its writes, and only those blocks wait', () => {
  expect(move.whileHeld.early).toMatchObject({ state: 'open', outstanding: { held: WRITES } })
  expect(move.whileHeld.early.holds).toHaveLength(WRITES)
  expect(move.saidWhileHeld).toContain(`${DEVICES.early} answered ${BESIDE} ${NEWER} 0`)
  expect(move.saidWhileHeld).not.toContain(`${DEVICES.early} answered 0 ${MOVING}`)
  expect(move.receipts.early.drained.writes).toBe(WRITES)
  expect(move.atEnd.early.holds).toEqual([])
})

test('killed: the next daemon of the host opens by the lock, once what the dead one left in the kernel has landed', () => {
  expect(move.whileHeld.killed.state).toBe('opening')
  expect(move.atEnd.killed).toMatchObject({ state: 'open', clearedBy: 'lock' })
})
