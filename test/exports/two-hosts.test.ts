/**
 * Two hosts, one image, one record: daemons with state directories of their own that reach the same bytes by different
 * paths, so that neither sees the other's locks and nothing but the record stands between them. They race 500
 * times for each home of records, or as often as INTERLOCKD_TEST_RACES says, several pairs beside each other; half of the openings are stopped
 * (SIGSTOP), between two steps or at any moment, and wake up early or late. Each has a client whose write is parked until
 * its host has the image: the one that has not must never write.
 *
 * @module-tag slow
 */

import { closeSync, openSync, readFileSync, readSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import type { OwnershipRecord } from '../../src/ownership/home.ts'
import { PRUNED_AT_ONCE, RECORDS_KEPT } from '../../src/ownership/directory-home.ts'
import { startDaemon } from '../support/daemon.ts'
import type { ApiAnswer, Daemon } from '../support/daemon.ts'
import { eventually } from '../support/eventually.ts'
import { MEBIBYTE } from '../support/image.ts'
import { answerOrNone, answerWithin, blockNumber, connectFrontend, numberedBlock } from '../support/nbd-frontend.ts'
import type { NbdFrontend, SentRequest } from '../support/nbd-frontend.ts'
import type { Scratch } from '../support/scratch.ts'
import { SeededRandom } from '../support/seeded-random.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { startWitnessDisk } from '../support/witness-disk.ts'
import { placeApart } from './ownership-rig.ts'

const ROUNDS = Number(process.env['INTERLOCKD_TEST_RACES'] ?? 500)
/** Each with an image and a record of its own. A race waits more than it works. */
const PAIRS = 2
/** For machines that have much else to do. */
const PATIENCE_MS = 900_000
/** As many fault points are passed on the way through an opening, and through a close. */
const POINTS = 13
const LATE_MS = 40
const LOOK_MS = 4
/** As long does an opening take, more or less. */
const OPENING_MS = 15
const BLOCK_BYTES = 4_096

class Racer {
  readonly daemon: Daemon
  readonly #scratch: Scratch
  readonly #faultPath: string
  #frontend: NbdFrontend | null = null
  parked: SentRequest | null = null
  /** What the parked write says. */
  number = 0

  constructor(scratch: Scratch, daemon: Daemon, faultPath: string) {
    this.daemon = daemon
    this.#scratch = scratch
    this.#faultPath = faultPath
  }

  async park(number: number): Promise<void> {
    this.#frontend?.drop()
    this.#frontend = await connectFrontend(this.#scratch, this.daemon.address, 'vda')
    this.number = number
    this.parked = this.#frontend.write(0, numberedBlock(number))
  }

  stopAt(fault: string): void {
    writeFileSync(this.#faultPath, `${fault}:stop`)
  }

  stop(): void {
    this.daemon.program.signal('SIGSTOP')
  }

  get isStopped(): boolean {
    if (!this.daemon.program.running) return false
    return /^State:\s+T/mu.test(readFileSync(`/proc/${this.daemon.pid}/status`, 'utf8'))
  }

  wake(): void {
    this.daemon.program.signal('SIGCONT')
  }

  /** One that is stopped meanwhile is asked for longer. */
  open(timeoutMs = 60_000): Promise<ApiAnswer> {
    return this.daemon.api('POST', '/exports/vda/open', {}, timeoutMs)
  }

  /** What it had parked has been written; the image goes back. */
  async rest(): Promise<void> {
    await this.daemon.close('vda')
    await this.daemon.ask('POST', '/exports/vda/standby', {})
  }
}

interface Race {
  readonly racers: readonly [Racer, Racer]
  readonly newest: () => Promise<OwnershipRecord>
  readonly onDisk: () => number | undefined
}

async function startRace(): Promise<Race> {
  const scratch = scratchOfTest()
  const disk = await startWitnessDisk(scratch, { sizeBytes: MEBIBYTE })
  const { ownership, settings, home } = placeApart(scratch)
  const records = home('disk')
  const start = async (path: string): Promise<Racer> => {
    const faultPath = join(scratch.directory('fault'), 'fault')
    const daemon = await startDaemon(scratch, {
      exports: [{ name: 'vda', path, image_id: 'disk' }],
      ownership,
      ownershipSettings: settings,
      engine: 'file',
      standby: true,
      tcp: false,
      environment: { INTERLOCKD_FAULT_POINT: faultPath },
    })
    return new Racer(scratch, daemon, faultPath)
  }
  return {
    racers: [await start(disk.backingPath), await start(disk.path)],
    newest: async () => {
      const found = await records.readNewest()
      if (found.kind !== 'record') throw new Error('there is no record')
      return found.record
    },
    onDisk: () => blockNumber(firstBlockOf(disk.backingPath)),
  }
}

function firstBlockOf(path: string): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES)
  const file = openSync(path, 'r')
  readSync(file, block, 0, BLOCK_BYTES, 0)
  closeSync(file)
  return block
}

/** Wakes whoever is stopped, after a while: a short one, or one in which the other host gets far. */
async function keepWaking(racers: readonly Racer[], random: SeededRandom, ended: AbortSignal): Promise<number> {
  let stops = 0
  const over = (): boolean => ended.aborted
  await Promise.all(
    racers.map(async (racer) => {
      while (!over()) {
        if (racer.isStopped) {
          stops += 1
          await sleep(random.chance(0.7) ? random.between(0, 3) : LATE_MS)
          racer.wake()
        }
        await sleep(LOOK_MS)
      }
    }),
  )
  return stops
}

/** Half of the openings are stopped: at one of their steps, or at any moment. */
function disturb(racer: Racer, random: SeededRandom): void {
  if (random.chance(0.5)) return
  if (random.chance(0.7)) racer.stopAt(`*@${random.between(1, POINTS)}`)
  else setTimeout(() => racer.stop(), random.between(0, OPENING_MS))
}

/** One round after the other, until all have been run; how often each has won, and how often one was stopped. */
async function runRaces(rounds: number, random: SeededRandom): Promise<{ wins: readonly number[]; stops: number }> {
  const race = await startRace()
  const { racers } = race
  const ended = new AbortController()
  const waking = keepWaking(racers, random, ended.signal)
  const wins = [0, 0]
  try {
    for (const [index, racer] of racers.entries()) await racer.park(index + 1)
    for (let round = 1; round <= rounds; round += 1) {
      for (const racer of racers) disturb(racer, random)
      const won = await runRace(race, round, `round ${round} of seed ${random.seed}`)
      wins[won] = (wins[won] ?? 0) + 1
    }
  } finally {
    ended.abort()
  }
  return { wins, stops: await waking }
}

/** The index of the one that has won. */
async function runRace({ racers, newest, onDisk }: Race, round: number, where: string): Promise<0 | 1> {
  const answers = await Promise.all(racers.map((racer) => racer.open()))
  expect(answers.map(({ status }) => status).sort(), where).toEqual([200, 409])
  const won = answers[0]?.status === 200 ? 0 : 1
  const record = await newest()
  const { host } = record.holder
  expect(answers[won]?.body, where).toMatchObject({ state: 'open', generation: round, holder: { host } })
  expect(answers[1 - won]?.body, where).toMatchObject({ code: 'held-by-other', holder: { host }, generation: round })
  const [winner, loser] = [racers[won], racers[won === 0 ? 1 : 0]]
  if (winner.parked === null || loser.parked === null) throw new Error('each has a write parked')
  expect((await answerWithin(winner.parked, 20_000)).error, where).toBe(0)
  expect(record, where).toMatchObject({ state: 'open', generation: round })
  expect(onDisk(), where).toBe(winner.number)
  expect(await answerOrNone(loser.parked, 0), where).toBeUndefined()
  await winner.rest()
  expect(onDisk(), where).toBe(winner.number)
  await winner.park(2 * round + won + 1)
  return won
}

test(
  `two hosts that open at once, ${ROUNDS} times: never two holders, and whoever has not won writes nothing`,
  async () => {
    const seed = Date.now() % 1_000_000
    const rounds = Math.ceil(ROUNDS / PAIRS)
    const seeds = Array.from({ length: PAIRS }, (_, index) => seed + index)
    const pairs = await Promise.all(seeds.map((each) => runRaces(rounds, new SeededRandom(each))))
    const stops = pairs.reduce((sum, pair) => sum + pair.stops, 0)
    const wins = pairs.map((pair) => pair.wins.join(' and ')).join(', ')
    console.log(`${PAIRS} pairs of ${rounds} rounds, seeds from ${seed}: won ${wins} times, stopped ${stops} times`)
    expect(Math.min(...pairs.flatMap((pair) => pair.wins))).toBeGreaterThan(0)
    expect(stops).toBeGreaterThan(ROUNDS / 10)
  },
  PATIENCE_MS,
)

test.each(['open: claimed', 'record: written', 'open: before opening is recorded'])(
  'an opener that sleeps at "%s" through the life of the record it has read wakes up to nothing',
  async (fault) => {
    const { racers, newest, onDisk } = await startRace()
    const [sleeper, other] = racers
    await sleeper.park(1)
    sleeper.stopAt(fault)
    const opening = sleeper.open(600_000)
    await eventually('the sleep', () => sleeper.isStopped)
    // Until what the sleeper would write after has been pruned: its number is free again.
    do {
      await other.daemon.open('vda')
      await other.daemon.close('vda')
    } while ((await newest()).sequence <= RECORDS_KEPT + PRUNED_AT_ONCE + 2)
    await other.daemon.ask('POST', '/exports/vda/standby', {})
    await other.park(2)
    expect((await other.open()).status).toBe(200)
    if (other.parked !== null) await answerWithin(other.parked, 20_000)
    const before = await newest()
    sleeper.wake()
    expect((await opening).status).toBe(409)
    expect(await newest()).toEqual(before)
    expect(onDisk()).toBe(2)
    if (sleeper.parked !== null) expect(await answerOrNone(sleeper.parked, 300)).toBeUndefined()
    // And what it has left behind stands in nobody's way.
    await other.rest()
    expect(await sleeper.daemon.open('vda')).toMatchObject({ generation: before.generation + 1 })
  },
)
