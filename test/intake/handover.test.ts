/**
 * A connection leaves Node's hands while its client keeps sending. Whatever the client sent after the option that ended
 * the negotiation is read either by Node or by whoever adopts the descriptor: all of it, in order, and nothing twice.
 */

import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { join } from 'node:path'
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import * as wire from '../nbd/handshake-script.ts'
import { eventually } from '../support/eventually.ts'
import { SeededRandom } from '../support/seeded-random.ts'
import { temporaryDirectory } from '../support/temporary-directory.ts'
import { DESCRIPTION_BYTES, readToEnd, startIntake } from './intake-process.ts'
import type { IntakeProcess } from './intake-process.ts'

const ROUNDS = 1000
const CLIENTS_AT_ONCE = 4
const TIMEOUT_MS = 180_000
const FLOOD_BYTES_MAX = 160_000

const noise = Buffer.alloc(FLOOD_BYTES_MAX)
const noiseRandom = new SeededRandom(20_060_731)
for (let at = 0; at < noise.length; at++) noise[at] = noiseRandom.between(0, 255)

interface Script {
  readonly bytes: Buffer
  /** The greeting and all replies. */
  readonly answerBytes: number
  /** The client does not read until it has sent what it could, so that the last reply cannot be flushed at once. */
  readonly reluctant: boolean
}

/** So many questions, in one piece of 64 KiB with the end, that their answers fit no socket's buffers. */
const QUESTIONS = 1000

function negotiationScript(random: SeededRandom): Script {
  const flags = wire.clientFlags(3)
  if (random.chance(0.2)) {
    const bytes = Buffer.concat([flags, wire.option(wire.EXPORT_NAME, Buffer.from('vda'))])
    return { bytes, answerBytes: 18 + 10, reluctant: false }
  }
  const go = wire.option(wire.GO, wire.infoData('vda', [3]))
  const goBytes = 18 + (20 + 12) + (20 + 14) + 20
  if (random.chance(0.9)) return { bytes: Buffer.concat([flags, go]), answerBytes: goBytes, reluctant: false }
  const question = wire.option(wire.INFO, wire.infoData('vda', [1, 2, 3]))
  const questions = Array.from({ length: QUESTIONS }, () => question)
  const questionBytes = 20 + 12 + (20 + 2 + 3) + (20 + 2 + DESCRIPTION_BYTES) + (20 + 14) + 20
  const answerBytes = goBytes + QUESTIONS * questionBytes
  return { bytes: Buffer.concat([flags, ...questions, go]), answerBytes, reluctant: true }
}

/** Sends the negotiation and a flood behind it in random pieces, waiting for nothing; compares what arrived. */
async function flood(intake: IntakeProcess, random: SeededRandom): Promise<void> {
  const script = negotiationScript(random)
  const start = random.between(0, 1000)
  const flooded = noise.subarray(start, start + random.between(0, FLOOD_BYTES_MAX - 1000))
  const sent = Buffer.concat([script.bytes, flooded])
  const pieceBytesMax = random.pick([200, 5000, 70_000, sent.length])
  const pause = random.pick([0, 0.1, 1])

  const socket = await intake.connect()
  const reluctance = script.reluctant ? sleep(random.between(1, 10)) : Promise.resolve()
  const answered = reluctance.then(() => readToEnd(socket))
  for (let at = 0; at < sent.length;) {
    const end = Math.min(sent.length, at + (script.reluctant ? sent.length : random.between(1, pieceBytesMax)))
    if (!socket.write(sent.subarray(at, end))) await once(socket, 'drain')
    else if (random.chance(pause)) await turn()
    at = end
  }
  socket.end()
  const heard = await answered
  const digest = createHash('sha256').update(flooded).digest()
  expect(heard.length).toBe(script.answerBytes + 40)
  expect(heard.subarray(-40, -8).toString('hex')).toBe(digest.toString('hex'))
  expect(Number(heard.readBigUInt64BE(heard.length - 8))).toBe(flooded.length)
}

async function rounds(intake: IntakeProcess, seed: number): Promise<void> {
  let next = 0
  const client = async (): Promise<void> => {
    while (next < ROUNDS) {
      const round = next++
      try {
        await flood(intake, new SeededRandom(seed + round))
      } catch (error) {
        throw new Error(`round ${round} of seed ${seed} failed`, { cause: error })
      }
    }
  }
  await Promise.all(Array.from({ length: CLIENTS_AT_ONCE }, client))
  // What it says travels another way than what it answers, and may be later.
  const said = await eventually('all adoptions', () => {
    const lines = intake.said('adopted')
    return lines.length === ROUNDS && lines
  })
  const adopted = said.map((line) => line['adopted'] as { unreadBytes: number; memoryBytes: number })
  // The rounds mean nothing if the client never managed to be early, or was early every time.
  expect(adopted.filter(({ unreadBytes }) => unreadBytes > 0).length).toBeGreaterThan(ROUNDS / 10)
  // What is handed on does not drag a pool along, and is bounded whatever the client does.
  for (const { unreadBytes, memoryBytes } of adopted) expect(memoryBytes).toBe(unreadBytes)
  expect(Math.max(...adopted.map(({ unreadBytes }) => unreadBytes))).toBeLessThan(256 * 1024)
  expect(intake.said('failed')).toEqual([])
}

describe('handing a socket over while it is flooded', () => {
  it(`loses nothing in ${ROUNDS} rounds over TCP`, { timeout: TIMEOUT_MS }, async () => {
    await rounds(await startIntake({ url: 'tcp:127.0.0.1:0' }), Date.now() % 1_000_000_000)
  })

  it(`loses nothing in ${ROUNDS} rounds over a Unix socket`, { timeout: TIMEOUT_MS }, async () => {
    const url = `unix:${join(temporaryDirectory('intake'), 'nbd.sock')}`
    await rounds(await startIntake({ url }), Date.now() % 1_000_000_000)
  })
})
