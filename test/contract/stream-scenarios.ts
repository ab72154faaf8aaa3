/**
 * The contract's rules about streams, each as a scenario that every engine must pass.
 */

import { deepEqual, equal, ok } from 'node:assert/strict'
import { SEND_PARTS_MAX } from '../../src/engine/contract.ts'
import type { Token } from '../../src/engine/contract.ts'
import { ERRNO } from '../../src/posix/errno.ts'
import { equalBytes, pattern } from './rig.ts'
import type { Client, Rig, Scenario } from './rig.ts'

const KIB = 1024
const MIB = 1024 * KIB
const PEER_GONE: readonly number[] = [-ERRNO.EPIPE, -ERRNO.ECONNRESET]

export const STREAM_SCENARIOS: Readonly<Record<string, Scenario>> = {
  *'a receive completes with what was sent before'(rig) {
    const { stream, client } = rig.connect()
    const sent = pattern(1, 100)
    equal(client.send(sent), 100)
    yield* rig.receiveAll(stream, 4096, 100)
    equalBytes(rig.arena.slice(4096, 4196), sent, 'what was received')
    yield* rig.finish(stream)
  },

  *'a receive waits for what is sent later'(rig) {
    const { stream, client } = rig.connect()
    const token = rig.receive(stream, 0, 4096)
    yield* rig.anotherTurn()
    yield* rig.anotherTurn()
    ok(!rig.completed(token), 'nothing is received before anything is sent')
    client.send(pattern(2, 1))
    equal(yield* rig.one(token), 1)
    yield* rig.finish(stream)
  },

  *'bytes keep their order over many receives'(rig) {
    const { stream, client } = rig.connect()
    const sent = pattern(3, 100_000)
    let given = 0
    let taken = 0
    while (taken < sent.length) {
      given += client.send(sent.subarray(given, given + 30_000))
      taken += yield* rig.one(rig.receive(stream, taken, Math.min(7001, sent.length - taken)))
    }
    equalBytes(rig.arena.slice(0, sent.length), sent, 'what was received')
    yield* rig.finish(stream)
  },

  *'the end of a stream is 0, as often as it is asked'(rig) {
    const { stream, client } = rig.connect()
    client.send(pattern(4, 10))
    client.finish()
    yield* rig.receiveAll(stream, 0, 10)
    equal(yield* rig.one(rig.receive(stream, 0, 100)), 0)
    equal(yield* rig.one(rig.receive(stream, 0, 100)), 0)
    // The other direction still works.
    rig.arena.set(pattern(5, 50), 512)
    const sent = yield* rig.one(rig.send(stream, [512, 50]))
    ok(sent > 0 && sent <= 50)
    equalBytes(client.received(), pattern(5, sent), 'what the client got after it had finished')
    yield* rig.finish(stream)
  },

  *'a send gathers its parts in order'(rig) {
    const { stream, client } = rig.connect()
    rig.arena.set(pattern(6, 256 * KIB))
    const parts: [number, number][] = []
    for (let index = 0; index < SEND_PARTS_MAX; index += 1) parts.push([(SEND_PARTS_MAX - index) * 1000, 1 + index * 3])
    const wanted = Buffer.concat(parts.map(([offset, length]) => rig.arena.slice(offset, offset + length)))
    yield* sendAll(rig, stream, parts, client, wanted)
    yield* rig.finish(stream)
  },

  *'large parts arrive whole'(rig) {
    const { stream, client } = rig.connect()
    rig.arena.set(pattern(7, 2 * MIB))
    const parts: [number, number][] = [
      [MIB, 16],
      [0, 700_001],
      [MIB + 5000, 16],
      [700_001, 300_000],
    ]
    const wanted = Buffer.concat(parts.map(([offset, length]) => rig.arena.slice(offset, offset + length)))
    yield* sendAll(rig, stream, parts, client, wanted)
    yield* rig.finish(stream)
  },

  *'a client that does not read stops its own stream only'(rig) {
    const stuck = rig.connect()
    const other = rig.connect()
    rig.arena.set(pattern(8, 8 * MIB))
    let accepted = 0
    let token = rig.send(stuck.stream, [0, 8 * MIB])
    for (let round = 0; round < 20; round += 1) {
      other.client.send(pattern(round, 64))
      yield* rig.receiveAll(other.stream, 9 * MIB, 64)
      if (!rig.completed(token)) continue
      accepted += rig.result(token)
      ok(accepted < 8 * MIB, 'a socket does not take 8 MiB from a client that does not read')
      token = rig.send(stuck.stream, [accepted, 8 * MIB - accepted])
    }
    ok(!rig.completed(token), 'the send waits')
    let got = 0
    while (got < 8 * MIB) {
      const bytes = stuck.client.received()
      equalBytes(bytes, rig.arena.slice(got, got + bytes.length), `what arrived at ${got}`)
      got += bytes.length
      yield* rig.anotherTurn()
      if (rig.completed(token)) {
        accepted += rig.result(token)
        if (accepted < 8 * MIB) token = rig.send(stuck.stream, [accepted, 8 * MIB - accepted])
      }
    }
    yield* rig.one(token)
    yield* rig.finish(stuck.stream)
    yield* rig.finish(other.stream)
  },

  *'endStream cancels a receive and a blocked send, then completes itself'(rig) {
    const { stream, client } = rig.connect()
    const receive = rig.receive(stream, 12 * MIB, 4096)
    let send = rig.send(stream, [0, 8 * MIB])
    for (let round = 0; round < 10; round += 1) {
      yield* rig.anotherTurn()
      if (rig.completed(send)) send = rig.send(stream, [0, 8 * MIB])
    }
    const end = rig.endStream(stream)
    deepEqual(yield* rig.all(receive, send, end), [-ERRNO.ECANCELED, -ERRNO.ECANCELED, 0])
    equal(rig.order.at(-1), end, 'the end comes last')
    client.received()
    yield* rig.anotherTurn()
    client.received()
    ok(client.ended, 'the client sees the end')
  },

  *'what is asked of a stream that is ending is cancelled'(rig) {
    const { stream } = rig.connect()
    const end = rig.endStream(stream)
    const receive = rig.receive(stream, 0, 4096)
    const send = rig.send(stream, [8192, 100])
    deepEqual(yield* rig.all(receive, send, end), [-ERRNO.ECANCELED, -ERRNO.ECANCELED, 0])
    equal(rig.order.at(-1), end, 'the end comes last')
  },

  *'an idle stream ends'(rig) {
    const { stream, client } = rig.connect()
    yield* rig.anotherTurn()
    yield* rig.finish(stream)
    client.received()
    ok(client.ended, 'the client sees the end')
  },

  *'a stream with unread bytes ends'(rig) {
    const { stream, client } = rig.connect()
    client.send(pattern(9, 10_000))
    yield* rig.anotherTurn()
    equal(yield* rig.one(rig.receive(stream, 0, 1)), 1)
    yield* rig.finish(stream)
    ok(client.send(pattern(9, 1)) <= 1)
  },

  *'a send to a client that is gone fails'(rig) {
    const { stream, client } = rig.connect()
    client.close()
    let result = 0
    for (let round = 0; round < 50 && result >= 0; round += 1) result = yield* rig.one(rig.send(stream, [0, 4096]))
    ok(PEER_GONE.includes(result), `the send fails with EPIPE or ECONNRESET, not ${result}`)
    const again = yield* rig.one(rig.send(stream, [0, 4096]))
    ok(PEER_GONE.includes(again), `and fails again, not ${again}`)
    const received = yield* rig.one(rig.receive(stream, 0, 4096))
    ok(received === 0 || PEER_GONE.includes(received), `a receive then ends or fails, not ${received}`)
    yield* rig.finish(stream)
  },

  *'a client that leaves ends an outstanding receive'(rig) {
    const { stream, client } = rig.connect()
    const token = rig.receive(stream, 0, 4096)
    yield* rig.anotherTurn()
    client.close()
    equal(yield* rig.one(token), 0)
    yield* rig.finish(stream)
  },

  *'receive and send run beside each other'(rig) {
    const { stream, client } = rig.connect()
    const receive = rig.receive(stream, 0, 4096)
    rig.arena.set(pattern(10, 1000), 8192)
    yield* sendAll(rig, stream, [[8192, 1000]], client, pattern(10, 1000))
    ok(!rig.completed(receive), 'the receive still waits')
    client.send(pattern(11, 5))
    ok((yield* rig.one(receive)) > 0)
    yield* rig.finish(stream)
  },

  *'many streams at once'(rig) {
    const streams = Array.from({ length: 100 }, () => rig.connect())
    const tokens = streams.map(({ stream }, index) => rig.receive(stream, index * 4096, 4096))
    yield* rig.anotherTurn()
    for (const [index, { client }] of streams.entries()) client.send(pattern(index, 1))
    deepEqual(
      yield* rig.all(...tokens),
      tokens.map(() => 1),
    )
    for (const index of streams.keys())
      equalBytes(rig.arena.slice(index * 4096, index * 4096 + 1), pattern(index, 1), 'a byte')
    const sends = streams.map(({ stream }, index) => rig.send(stream, [index * 4096, 1]))
    deepEqual(
      yield* rig.all(...sends),
      sends.map(() => 1),
    )
    for (const [index, { client }] of streams.entries()) equalBytes(client.received(), pattern(index, 1), 'an echo')
    const ends: Token[] = streams.map(({ stream }) => rig.endStream(stream))
    deepEqual(
      yield* rig.all(...ends),
      ends.map(() => 0),
    )
  },

  *'streams come and go'(rig) {
    for (let round = 0; round < 300; round += 1) {
      const { stream, client } = rig.connect()
      client.send(pattern(round, 8))
      if (round % 3 === 0) yield* rig.receiveAll(stream, 0, 8)
      const receive = round % 2 === 0 ? rig.receive(stream, 4096, 100) : undefined
      yield* rig.finish(stream)
      ok(receive === undefined || rig.completed(receive), 'nothing stays outstanding on a stream that has ended')
      client.close()
    }
  },
}

/** Sends until all is accepted while the client reads, and compares what it got. */
function* sendAll(
  rig: Rig,
  stream: number,
  parts: readonly [number, number][],
  client: Client,
  wanted: Uint8Array,
): Generator<() => boolean, void> {
  const got: Uint8Array[] = []
  let accepted = 0
  while (accepted < wanted.length) {
    const token = rig.send(stream, ...skipBytes(parts, accepted))
    while (!rig.completed(token)) {
      got.push(client.received())
      yield* rig.anotherTurn()
    }
    const count = rig.result(token)
    ok(count > 0 && count <= wanted.length - accepted, `a send makes progress, not ${count}`)
    accepted += count
  }
  for (let turns = 0; turns < 1000 && Buffer.concat(got).length < wanted.length; turns += 1) {
    got.push(client.received())
    yield* rig.anotherTurn()
  }
  equalBytes(Buffer.concat(got), wanted, 'what the client got')
}

/** The parts without their first bytes. */
function skipBytes(parts: readonly [number, number][], lengthBytes: number): [number, number][] {
  const left: [number, number][] = []
  let skip = lengthBytes
  for (const [offset, length] of parts) {
    const skipped = Math.min(skip, length)
    skip -= skipped
    if (skipped < length) left.push([offset + skipped, length - skipped])
  }
  return left
}
