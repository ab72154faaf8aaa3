/**
 * The orchestrator dies by SIGKILL at each of its steps, and is run again: the second run completes the handover, or
 * reports it, under a writer whose every block is checked at the end. The points are enumerated from the source, so that
 * a new step without a kill fails here.
 *
 * @module-tag slow
 */

import { readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { Daemon } from '../support/daemon.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { VerifiedWriter } from '../support/verified-writer.ts'
import { handOverByProgram, startEnd, startPairOverLink } from './handover-rig.ts'

const ON_THE_WAY = [
  ...['begun', 'looked', 'checked', 'standby', 'before closing', 'closing', 'closed'],
  ...['before opening', 'opened', 'verified'],
]
const EARLY = ['handed early', 'drained']
const ON_THE_WAY_BACK = ['way back', 'brought back']
/** Passed only where several disks are taken back. */
const OF_GROUPS = ['destination closed']
const KILLED = 137

const killAt = (point: string) => ({ INTERLOCKD_FAULT_POINT: `handover: ${point}:kill` })

test('every point is known here', () => {
  const folder = join(import.meta.dirname, '../../src/handover')
  const texts = readdirSync(folder).map((name) => readFileSync(join(folder, name), 'utf8'))
  const points = texts.flatMap((text) => [
    ...[...text.matchAll(/faultPoint\('handover: ([^']+)'\)/gu)].map(([, point = '']) => point),
    ...[...text.matchAll(/#reached\('([^']+)'\)/gu)].map(([, point = '']) => point),
  ])
  expect([...new Set(points)].sort()).toEqual([...ON_THE_WAY, ...EARLY, ...ON_THE_WAY_BACK, ...OF_GROUPS].sort())
})

test('killed at each step there and back, run again it completes, and no block is lost', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const fault = join(scratch.directory('fault'), 'armed')
  const environment = { INTERLOCKD_FAULT_POINT: fault }
  let source = await startEnd(scratch, path, { environment })
  let destination = await startEnd(scratch, path, { environment, standby: true })
  const writer = new VerifiedWriter(scratch, 256, 8)
  await writer.moveTo(source.address)
  let generation = 1
  const points = [...ON_THE_WAY.map((point) => [point] as const), ...EARLY.map((point) => [point, '--early'] as const)]
  for (const [point, ...further] of points) {
    await writer.progress(20)
    // Or the close may be over before anybody has seen that it was handed over early.
    if (further.length > 0) writeFileSync(fault, 'close: synced:sleep=5000')
    const killed = await handOverByProgram(source, destination, further, killAt(point))
    expect(killed.status, point).toBe(KILLED)
    expect(await openOf(source, destination), point).toBeLessThanOrEqual(1)
    const again = await handOverByProgram(source, destination, further)
    generation += 1
    expect(again, point).toMatchObject({ status: 0, result: { ending: { kind: 'handedOver', generation } } })
    expect((await destination.status('vda')).state, point).toBe('open')
    expect((await source.status('vda')).state, point).not.toBe('open')
    await writer.moveTo(destination.address)
    ;[source, destination] = [destination, source]
  }
  await writer.progress(20)
  await writer.settle()
  expect(writer.badBlocks(path)).toEqual([])
})

test('a destination that refuses: brought back, the guest notices nothing; killed on the way back it is brought back by the next run', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const { source, destination, cutLink } = await startPairOverLink(scratch, path)
  const writer = new VerifiedWriter(scratch, 256, 8)
  await writer.moveTo(source.address)
  // It was there when the destination looked, and is not when it is to be opened.
  cutLink()
  const refused = await handOverByProgram(source, destination)
  expect(refused).toMatchObject({
    status: 1,
    result: { ending: { kind: 'broughtBack', generation: 2, failure: { step: 'open', code: 'image-missing' } } },
  })
  await writer.progress(50)
  for (const point of ON_THE_WAY_BACK) {
    expect((await handOverByProgram(source, destination, [], killAt(point))).status, point).toBe(KILLED)
    const again = await handOverByProgram(source, destination)
    expect(again, point).toMatchObject({ status: 1, result: { ending: { kind: 'broughtBack' } } })
    expect((await source.status('vda')).state, point).toBe('open')
    await writer.progress(50)
  }
  await writer.settle()
  expect(writer.badBlocks(path)).toEqual([])
})

async function openOf(...daemons: readonly Daemon[]): Promise<number> {
  const states = await Promise.all(daemons.map(async (daemon) => (await daemon.status('vda')).state))
  return states.filter((state) => state === 'open').length
}
