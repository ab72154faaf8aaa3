/**
 * Clients that are lost, many at a time and with requests under way, while others arrive: nobody else notices. The
 * newcomers get the descriptors that the lost ones had, so whoever is careless with a closed descriptor hits them.
 */

import { describe, expect, test } from 'vitest'
import { ENGINES, startDaemon } from '../support/daemon.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { connectFrontend, numberedBlock } from '../support/nbd-frontend.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'

const ROUNDS = 120
const CLIENTS = 6

describe.each(ENGINES)('lost clients, with the %s engine', (engine) => {
  test('a connection that is reset takes no other with it', async () => {
    const scratch = scratchOfTest()
    const image = makeImage(scratch, MEBIBYTE)
    const daemon = await startDaemon(scratch, { engine, exports: [{ name: 'vda', path: image, clients: 'shared' }] })
    const connectAll = () =>
      Promise.all(Array.from({ length: CLIENTS }, () => connectFrontend(scratch, { port: daemon.nbdPort }, 'vda')))
    for (let round = 0; round < ROUNDS; round += 1) {
      const lost = await connectAll()
      for (const frontend of lost) {
        for (let block = 0; block < 4; block += 1) frontend.write(block * 4_096, numberedBlock(round))
        frontend.drop()
      }
      const newcomers = await connectAll()
      for (const frontend of newcomers) {
        expect(await frontend.read(0, 4_096), `round ${round}`).toHaveLength(4_096)
        await frontend.disconnect()
      }
    }
    expect((await daemon.status('vda')).state).toBe('open')
  })
})
