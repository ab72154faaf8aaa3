/**
 * A handover whose records cannot be reached for a while: it asks again for as long as its patience lasts, and then says
 * what it was, with nothing changed.
 *
 * @module-tag slow
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { passingPlace } from '../exports/ownership-rig.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { handOverByProgram, startEnd, startHandover } from './handover-rig.ts'

test('records that are away for a moment delay a handover; where they stay away nothing is begun', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const { place, leave, comeBack } = await passingPlace(scratch)
  const where = { ownership: place.ownership, ownershipSettings: place.settings }
  const source = await startEnd(scratch, path, where)
  const destination = await startEnd(scratch, path, { standby: true, ...where })

  await leave()
  const lost = await handOverByProgram(source, destination, ['--patience', '500ms'])
  expect(lost).toMatchObject({ status: 1, result: { ending: { kind: 'unclear' } } })
  expect(await source.status('vda')).toMatchObject({ state: 'open', generation: 1 })
  const waiting = startHandover(scratch, source, destination, ['--patience', '60s'])
  await sleep(2_000)
  expect(waiting.running, waiting.said).toBe(true)
  await comeBack()
  expect((await waiting.exited).status, waiting.said).toBe(0)
  expect((await destination.status('vda')).state).toBe('open')
})
