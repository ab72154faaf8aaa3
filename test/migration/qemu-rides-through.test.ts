/** QEMU with reconnect-delay and the restart of the daemon that serves its disk, on the same host: by SIGTERM, by SIGKILL. */

import { expect, test } from 'vitest'
import { ENGINES, startAgain, startDaemon } from '../support/daemon.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { startQemuMachine } from '../support/qemu-machine.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'

test.each(ENGINES)('QEMU rides through a stop and a crash of the daemon (%s)', async (engine) => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const daemon = await startDaemon(scratch, { engine, ownership: 'directory', exports: [{ name: 'vda', path }] })
  const server = `server.type=unix,server.path=${daemon.nbdPath},export=vda,reconnect-delay=120`
  const machine = await startQemuMachine(scratch, server)
  await machine.disk('write -P 0x11 0 64k')
  expect((await daemon.stop()).status).toBe(0)
  await machine.begin('aio_write -P 0x22 0 64k')
  const second = await startAgain(scratch, daemon)
  expect(await second.status('vda')).toMatchObject({ state: 'open', generation: 2 })
  await machine.settle()
  await machine.disk('read -P 0x22 0 64k')
  await second.kill()
  await machine.begin('aio_write -P 0x33 0 64k')
  const third = await startAgain(scratch, second)
  expect(await third.untilOpen('vda')).toMatchObject({ generation: 3, clearedBy: 'lock' })
  await machine.settle()
  await machine.disk('read -P 0x33 0 64k')
  await machine.disk('read -P 0x00 64k 64k')
  await third.close('vda')
})
