/**
 * The watch that the homes of many records share: how much it asks, that nothing written is missed, and that a directory
 * that does not answer holds up nobody elsewhere.
 */

import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import type { BlockingCall, BlockingResultOf, BlockingRunner } from '../../src/blocking/calls.ts'
import { DirectoryHome } from '../../src/ownership/directory-home.ts'
import { sequenceOf } from '../../src/ownership/home.ts'
import { inlineRunner } from '../blocking/inline-runner.ts'
import { eventually } from '../support/eventually.ts'
import { temporaryDirectory } from '../support/temporary-directory.ts'
import { homesUnder } from './host-rig.ts'
import { draftOf } from './record-samples.ts'

const INTERVAL_MS = 10

/** Runs calls one at a time, as they come, and counts; what `hangs` says is never answered. */
class CountingRunner implements BlockingRunner {
  readonly calls: BlockingCall[] = []
  outstandingMost = 0
  hangs: (call: BlockingCall) => boolean = () => false
  #outstanding = 0

  async run<C extends BlockingCall>(call: C): Promise<BlockingResultOf<C['kind']>> {
    this.calls.push(call)
    this.#outstanding += 1
    this.outstandingMost = Math.max(this.outstandingMost, this.#outstanding)
    if (this.hangs(call)) return new Promise(() => undefined)
    await sleep(1)
    this.#outstanding -= 1
    return inlineRunner.run(call)
  }
}

function homesIn(directory: string, runner: BlockingRunner, count: number): DirectoryHome[] {
  const watch = DirectoryHome.watchBy(runner)
  const homeOf = homesUnder(directory, { runner, watch })
  return Array.from({ length: count }, (_, index) => homeOf(`image-${index}`))
}

test('idle, it lists the folders of one directory by a few calls, one after the other', async () => {
  const runner = new CountingRunner()
  const directory = temporaryDirectory()
  const writer = homesUnder(directory)('image-7')
  await writer.compareAndSwap(0, draftOf())
  const heard: string[] = []
  const homes = homesIn(directory, runner, 100)
  for (const [index, home] of homes.entries()) {
    home.watch((newest) => heard.push(`image-${index} ${sequenceOf(newest)}`), INTERVAL_MS)
  }
  await eventually('everybody to hear how it is', () => heard.length === 100)
  expect(heard).toContain('image-7 1')
  runner.calls.length = 0
  runner.outstandingMost = 0
  await eventually('three looks', () => runner.calls.length >= 12)
  expect(new Set(runner.calls.map(({ kind }) => kind))).toEqual(new Set(['highestNames']))
  expect(runner.outstandingMost).toBe(1)
  const looks = runner.calls.flatMap((call) => (call.kind === 'highestNames' ? [call.paths] : []))
  expect(looks.slice(0, 4).flat().length).toBe(100)
  await writer.compareAndSwap(1, draftOf())
  await eventually('the change to be told', () => heard.includes('image-7 2'))
  expect(heard).toHaveLength(101)
  for (const home of homes) await home.close()
  const calls = runner.calls.length
  await sleep(10 * INTERVAL_MS)
  expect(runner.calls.length).toBeLessThanOrEqual(calls + 1)
})

test('what is written right after a look, or twice within a tick of the clock, is told all the same', async () => {
  const directory = temporaryDirectory()
  const [home] = homesIn(directory, inlineRunner, 1)
  const writer = homesUnder(directory)('image-0')
  let told = -1
  const end = home?.watch((newest) => {
    told = sequenceOf(newest)
  }, 1)
  let sequence = 0
  for (let round = 0; round < 100; round += 1) {
    for (let each = 0; each <= round % 3; each += 1) {
      await writer.compareAndSwap(sequence, draftOf())
      sequence += 1
    }
    await eventually(`record ${sequence} to be told`, () => told === sequence, { intervalMs: 1 })
  }
  end?.()
})

test('a directory that does not answer holds up nobody whose records are elsewhere', async () => {
  const runner = new CountingRunner()
  const [dead, alive] = [temporaryDirectory(), temporaryDirectory()]
  const watch = DirectoryHome.watchBy(runner)
  const homeAt = (directory: string): DirectoryHome => homesUnder(directory, { runner, watch })('vda')
  runner.hangs = (call) => call.kind === 'highestNames' && call.paths.some((path) => path.startsWith(dead))
  const heard: number[] = []
  homeAt(dead).watch(() => undefined, INTERVAL_MS)
  homeAt(alive).watch((newest) => heard.push(sequenceOf(newest)), INTERVAL_MS)
  await eventually('the look that hangs', () => runner.calls.some((call) => runner.hangs(call)))
  const writer = homesUnder(alive)('vda')
  await writer.compareAndSwap(0, draftOf())
  await eventually('the record to be told', () => heard.includes(1))
  expect(runner.calls.filter((call) => runner.hangs(call))).toHaveLength(1)
})

test('a directory that was not there yet is looked at again, and so is what could not be read', async () => {
  const directory = join(temporaryDirectory(), 'mounted-later')
  const [home] = homesIn(directory, inlineRunner, 1)
  const heard: string[] = []
  const end = home?.watch((newest) => heard.push(newest.kind), INTERVAL_MS)
  await sleep(5 * INTERVAL_MS)
  expect(heard).toEqual([])
  mkdirSync(directory)
  await eventually('that there is no record', () => heard.includes('absent'))
  await homesUnder(directory)('image-0').compareAndSwap(0, draftOf())
  await eventually('the record', () => heard.includes('record'))
  end?.()
})
