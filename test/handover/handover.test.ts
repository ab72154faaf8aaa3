/**
 * A handover between two real daemons, while somebody writes: plain, early, looked at before, asked for again when it is
 * finished, and refused where it must not be begun.
 */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { rehearse } from '../../src/handover/index.ts'
import type { TimelineDocument } from '../../src/handover/index.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { VerifiedWriter } from '../support/verified-writer.ts'
import { diskOf, handOverByProgram, startEnd } from './handover-rig.ts'

test('there and back under a writer: dry run, plain, again, early, and no block is lost', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, 4 * MEBIBYTE)
  const one = await startEnd(scratch, path)
  const two = await startEnd(scratch, path, { standby: true })
  const writer = new VerifiedWriter(scratch, 1024, 8)
  await writer.moveTo(one.address)
  await writer.progress(50)

  const rehearsed = await rehearse(diskOf(one, two))
  expect(rehearsed).toMatchObject({ standing: { kind: 'start' }, preflight: { ready: true, sameImage: 'record' } })
  expect((await one.status('vda')).state).toBe('open')

  const files = [join(scratch.directory('timeline'), 't.json'), join(scratch.directory('timeline'), 't.svg')] as const
  const plain = await handOverByProgram(
    one,
    two,
    files.flatMap((file) => ['--timeline', file]),
  )
  expect(plain).toMatchObject({ status: 0, result: { ending: { kind: 'handedOver', generation: 2, already: false } } })
  expect((await one.status('vda')).state).toBe('closed')
  await writer.moveTo(two.address)
  await writer.progress(50)
  const timeline = JSON.parse(readFileSync(files[0], 'utf8')) as TimelineDocument
  const steps = timeline.moments.map(({ step }) => step)
  const wanted = ['begun', 'looked', 'checked', 'standby', 'closing', 'closed', 'opening', 'opened', 'verified']
  expect(steps.filter((step) => step !== 'first answer')).toEqual(wanted)
  expect(timeline.parts.map(({ name }) => name)).toEqual(['drain', 'sync', 'record'])
  expect(timeline.samples.some(({ end, outstanding }) => end === 'source' && outstanding.parsed >= 0)).toBe(true)
  expect(readFileSync(files[1], 'utf8')).toContain('generation 2 is open at the destination')

  const again = await handOverByProgram(one, two)
  expect(again).toMatchObject({ status: 0, result: { ending: { kind: 'handedOver', generation: 2, already: true } } })

  const early = await handOverByProgram(two, one, ['--early'])
  expect(early).toMatchObject({ status: 0, result: { ending: { kind: 'handedOver', generation: 3, draining: false } } })
  await writer.moveTo(one.address)
  await writer.progress(50)
  await writer.settle()
  expect(writer.badBlocks(path)).toEqual([])
})
