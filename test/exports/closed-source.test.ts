/**
 * A source after its close, until its guest is elsewhere: it keeps its connections and parks what they send, because the
 * migration may still be cancelled. When another host has opened, nobody waits for that any more: they are cut, and whoever
 * comes then is told who has taken over.
 */

import { expect, test } from 'vitest'
import { ENGINES } from '../support/daemon.ts'
import { eventually } from '../support/eventually.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { answerOrNone, connectFrontend, NegotiationRefused } from '../support/nbd-frontend.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { ERR_SHUTDOWN } from '../nbd/handshake-script.ts'
import { BLOCK, newestOf, startHost } from './ownership-rig.ts'

/** Long enough for a source that cuts too early to have done so. */
const STAYS_MS = 1_500

test.each(ENGINES)('its connections stay until another host opens, and are then cut (%s)', async (engine) => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const source = await startHost(scratch, path, { engine })
  const destination = await startHost(scratch, path, { engine, standby: true })
  const frontend = await connectFrontend(scratch, source.address, 'vda')
  await frontend.request('WRITE', { offset: 0, data: BLOCK })
  const refusedGo = (): Promise<unknown> =>
    connectFrontend(scratch, source.address, 'vda').then(
      () => 'accepted',
      (error: unknown) => (error instanceof NegotiationRefused ? [error.type, error.message] : error),
    )

  await source.close('vda')
  expect(await refusedGo()).toEqual([ERR_SHUTDOWN, 'the export is closed'])
  const parked = frontend.write(0, Buffer.alloc(BLOCK.length))
  expect(await answerOrNone(parked, STAYS_MS)).toBeUndefined()
  expect(frontend.isOpen).toBe(true)

  await destination.open('vda')
  await eventually('the end of the connection', () => !frontend.isOpen)
  expect(await answerOrNone(parked, 0), 'its guest sends it again elsewhere').toBeUndefined()
  const { name, host } = newestOf(path).holder
  expect(host).toBe((await destination.status('vda')).holder?.host)
  expect(await refusedGo()).toEqual([ERR_SHUTDOWN, `the export is closed: opened by ${name} (${host})`])

  const fresh = await connectFrontend(scratch, destination.address, 'vda')
  expect((await fresh.read(0, BLOCK.length)).equals(BLOCK)).toBe(true)
})
