/**
 * The contract's rules about files, about turns and about waking, each as a scenario that every engine must pass.
 */

import { deepEqual, equal, ok } from 'node:assert/strict'
import { WRITE_DURABLE, ZERO_MAY_PUNCH } from '../../src/engine/contract.ts'
import { ERRNO } from '../../src/posix/errno.ts'
import { equalBytes, IMAGE_BYTES, pattern } from './rig.ts'
import type { Scenario } from './rig.ts'

const BLOCK = 4096

export const DISK_SCENARIOS: Readonly<Record<string, Scenario>> = {
  *'what was written is on the image and is read back'(rig) {
    const { file, descriptor } = rig.openImage()
    const bytes = pattern(1, 16 * BLOCK)
    rig.arena.set(bytes, 5 * BLOCK)
    yield* rig.writeAll(file, 7 * BLOCK, 5 * BLOCK, bytes.length)
    equalBytes(rig.imageBytes().slice(7 * BLOCK, 23 * BLOCK), bytes, 'the image')
    yield* rig.readAll(file, 7 * BLOCK, 100 * BLOCK, bytes.length)
    equalBytes(rig.arena.slice(100 * BLOCK, 116 * BLOCK), bytes, 'what was read')
    yield* rig.remove(file, descriptor)
  },

  *'a large transfer arrives whole'(rig) {
    const { file, descriptor } = rig.openImage()
    const bytes = pattern(2, IMAGE_BYTES)
    rig.arena.set(bytes)
    yield* rig.writeAll(file, 0, 0, bytes.length)
    yield* rig.readAll(file, 0, 2 * IMAGE_BYTES, bytes.length)
    equalBytes(rig.arena.slice(2 * IMAGE_BYTES, 3 * IMAGE_BYTES), bytes, 'what was read')
    yield* rig.remove(file, descriptor)
  },

  *'a durable write is durable on a file that is not so by itself'(rig) {
    const { file, descriptor } = rig.openImage({ durable: false, readOnly: false })
    rig.arena.set(pattern(3, BLOCK))
    equal(yield* rig.one(rig.write(file, 0, 0, BLOCK, WRITE_DURABLE)), BLOCK)
    equalBytes(rig.imageBytes().slice(0, BLOCK), pattern(3, BLOCK), 'the image')
    yield* rig.remove(file, descriptor)
  },

  *'a misaligned operation completes with EINVAL'(rig) {
    const { file, descriptor } = rig.openImage()
    const tokens = [
      rig.read(file, 100, 0, BLOCK),
      rig.read(file, 0, BLOCK, 100),
      rig.read(file, 0, 2 * BLOCK + 1, BLOCK),
      rig.write(file, 100, 4 * BLOCK, BLOCK),
      rig.write(file, 0, 6 * BLOCK, 100),
    ]
    deepEqual(
      yield* rig.all(...tokens),
      tokens.map(() => -ERRNO.EINVAL),
    )
    yield* rig.remove(file, descriptor)
  },

  *'a read behind the end is 0'(rig) {
    const { file, descriptor } = rig.openImage()
    equal(yield* rig.one(rig.read(file, IMAGE_BYTES, 0, BLOCK)), 0)
    equal(yield* rig.one(rig.read(file, IMAGE_BYTES - BLOCK, 0, 2 * BLOCK)), BLOCK)
    yield* rig.remove(file, descriptor)
  },

  *'sync completes with 0, also when nothing is dirty'(rig) {
    const { file, descriptor } = rig.openImage({ durable: false, readOnly: false })
    const first = rig.token()
    rig.engine.sync(file, first)
    equal(yield* rig.one(first), 0)
    yield* rig.writeAll(file, 0, 0, BLOCK)
    const second = rig.token()
    rig.engine.sync(file, second)
    equal(yield* rig.one(second), 0)
    yield* rig.remove(file, descriptor)
  },

  *'zero makes zeroes, with and without a hole'(rig) {
    const { file, descriptor } = rig.openImage()
    rig.arena.fill(0xee, 0, 8 * BLOCK)
    yield* rig.writeAll(file, 0, 0, 8 * BLOCK)
    const kept = rig.token()
    const punched = rig.token()
    rig.engine.zero(file, kept, BLOCK, BLOCK, 0)
    rig.engine.zero(file, punched, 4 * BLOCK, 2 * BLOCK, ZERO_MAY_PUNCH)
    deepEqual(yield* rig.all(kept, punched), [0, 0])
    const wanted = new Uint8Array(8 * BLOCK)
      .fill(0xee)
      .fill(0, BLOCK, 2 * BLOCK)
      .fill(0, 4 * BLOCK, 6 * BLOCK)
    equalBytes(rig.imageBytes().slice(0, 8 * BLOCK), wanted, 'the image')
    yield* rig.remove(file, descriptor)
  },

  *'discard leaves the neighbours alone'(rig) {
    const { file, descriptor } = rig.openImage()
    rig.arena.fill(0xdd, 0, 4 * BLOCK)
    yield* rig.writeAll(file, 0, 0, 4 * BLOCK)
    const token = rig.token()
    rig.engine.discard(file, token, BLOCK, 2 * BLOCK)
    equal(yield* rig.one(token), 0)
    const image = rig.imageBytes()
    equalBytes(image.slice(0, BLOCK), new Uint8Array(BLOCK).fill(0xdd), 'the block before')
    equalBytes(image.slice(3 * BLOCK, 4 * BLOCK), new Uint8Array(BLOCK).fill(0xdd), 'the block behind')
    yield* rig.remove(file, descriptor)
  },

  *'a write to a file opened for reading fails'(rig) {
    const { file, descriptor } = rig.openImage({ durable: false, readOnly: true })
    equal(yield* rig.one(rig.write(file, 0, 0, BLOCK)), -ERRNO.EBADF)
    equal(yield* rig.one(rig.read(file, 0, 0, BLOCK)), BLOCK)
    yield* rig.remove(file, descriptor)
  },

  *'thousands of operations wait their turn'(rig) {
    const { file, descriptor } = rig.openImage()
    const blocks = IMAGE_BYTES / BLOCK
    rig.arena.set(pattern(4, IMAGE_BYTES))
    const writes = Array.from({ length: blocks }, (_, index) => rig.write(file, index * BLOCK, index * BLOCK, BLOCK))
    deepEqual(
      yield* rig.all(...writes),
      writes.map(() => BLOCK),
    )
    equalBytes(rig.imageBytes(), pattern(4, IMAGE_BYTES), 'the image')
    const reads = Array.from({ length: 3000 }, (_, index) =>
      rig.read(file, (index % blocks) * BLOCK, IMAGE_BYTES + index * BLOCK, BLOCK),
    )
    deepEqual(
      yield* rig.all(...reads),
      reads.map(() => BLOCK),
    )
    for (const index of [0, 1, 1023, 1024, 2999]) {
      const at = IMAGE_BYTES + index * BLOCK
      const from = (index % blocks) * BLOCK
      equalBytes(rig.arena.slice(at, at + BLOCK), pattern(4, IMAGE_BYTES).slice(from, from + BLOCK), `read ${index}`)
    }
    yield* rig.remove(file, descriptor)
  },

  *'one turn sees several completions'(rig) {
    const { file, descriptor } = rig.openImage()
    const before = rig.turns.length
    const tokens = Array.from({ length: 256 }, (_, index) => rig.read(file, index * BLOCK, index * BLOCK, BLOCK))
    yield* rig.all(...tokens)
    ok(Math.max(...rig.turns.slice(before)) > 1, 'at least one turn saw more than one completion')
    yield* rig.remove(file, descriptor)
  },

  *'disk and streams do not wait for each other'(rig) {
    const { file, descriptor } = rig.openImage()
    const { stream, client } = rig.connect()
    const receive = rig.receive(stream, 0, BLOCK)
    for (let round = 1; round < 20; round += 1) yield* rig.writeAll(file, round * BLOCK, round * BLOCK, BLOCK)
    ok(!rig.completed(receive), 'the receive still waits')
    client.send(pattern(5, 3))
    ok((yield* rig.one(receive)) > 0)
    yield* rig.finish(stream)
    yield* rig.remove(file, descriptor)
  },

  *'files come and go'(rig) {
    for (let round = 0; round < 50; round += 1) {
      const { file, descriptor } = rig.openImage()
      equal(yield* rig.one(rig.read(file, 0, 0, BLOCK)), BLOCK)
      yield* rig.remove(file, descriptor)
    }
  },

  *'a removed file is let go while others are busy'(rig) {
    const busy = rig.openImage()
    const { stream } = rig.connect()
    const receive = rig.receive(stream, 0, BLOCK)
    const leaving = rig.openImage()
    const writes = Array.from({ length: 64 }, (_, index) => rig.write(busy.file, index * BLOCK, BLOCK, BLOCK))
    equal(yield* rig.one(rig.read(leaving.file, 0, 512 * BLOCK, BLOCK)), BLOCK)
    yield* rig.remove(leaving.file, leaving.descriptor)
    yield* rig.all(...writes)
    yield* rig.remove(busy.file, busy.descriptor)
    const end = rig.endStream(stream)
    deepEqual(yield* rig.all(receive, end), [-ERRNO.ECANCELED, 0])
  },

  *'the first turn comes without being asked for'(rig) {
    deepEqual(rig.turns, [0])
    yield () => true
  },

  *'wake inside a turn makes another turn'(rig) {
    for (let round = 0; round < 100; round += 1) yield* rig.anotherTurn()
    ok(rig.turns.length >= 101)
  },

  *'another thread wakes an engine that has nothing to do'(rig) {
    for (const delayMs of [0, 1, 30, 5, 60, 0]) yield* rig.sleep(delayMs)
    deepEqual(new Set(rig.turns), new Set([0]))
  },
}
