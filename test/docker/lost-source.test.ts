/**
 * A source that is lost: killed with writes in the kernel, cut off from the network while it lives on, or told to end at
 * once. The disk is taken over by a fence, and what the lost host had left never lands on top of something newer.
 */

import { dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import { PROJECT } from '../support/controlled-daemon.ts'
import { eventually } from '../support/eventually.ts'
import { answerOrNone, blockNumber, connectFrontend, NBD_ERRORS, numberedBlock } from '../support/nbd-frontend.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { BLOCK_BYTES, blockOf, engineOfRun, recordAt, startPair } from './host-pair.ts'
import { RECORD_FOLDER, startSlowDisk } from './slow-disk.ts'

const SLOW_MS = 4_000
const KILLED = 137

test('killed with writes in flight, taken over by stopping its container: the old writes land before any newer one', async () => {
  const scratch = scratchOfTest()
  const engine = engineOfRun()
  const disk = await startSlowDisk(scratch, { writeDelayMs: SLOW_MS })
  const { source, destination, folder } = await startPair(scratch, {
    source: { ...disk.slow, words: [...disk.slow.words, '--restart', 'always'] },
    destination: (lost) => ({
      ...disk.slow,
      settings: [
        ...disk.slow.settings,
        '[fence]',
        'command = ["node", "/fence-container.mjs"]',
        '[fence.options]',
        'socket = "/run/engine.sock"',
        '[fence.plugs]',
        `source = "${lost.name}"`,
      ],
      words: [
        ...disk.slow.words,
        ...['--volume', `${engine.socketPath}:/run/engine.sock`],
        ...['--volume', `${join(PROJECT, 'docker/fence-container.mjs')}:/fence-container.mjs:ro`],
      ],
    }),
  })
  const old = await connectFrontend(scratch, await source.address(), 'vda')
  for (const block of [0, 1]) old.write(block * BLOCK_BYTES, numberedBlock(1))
  await source.untilInFlight('vda', 2)
  await eventually('a write in the disk', () => disk.witness.log.inDisk().length > 0)
  await source.kill()
  expect(await destination.api('POST', '/exports/vda/open', {})).toMatchObject({ body: { code: 'held-by-other' } })
  const opened = await destination.open('vda', { takeover: true, timeoutMs: 60_000 })
  expect(disk.witness.log.inDisk()).toEqual([])
  expect(opened).toMatchObject({ state: 'open', generation: 2, clearedBy: 'fence' })
  expect(await source.inspect('{{.State.Running}} {{.State.Restarting}}')).toBe('false false')
  const fresh = await connectFrontend(scratch, await destination.address(), 'vda')
  const writes = old.shadowRing.length
  expect(writes).toBe(2)
  await Promise.all(fresh.reissue(old).map(({ reply }) => reply))
  for (const block of [0, 1])
    await fresh.request('WRITE', { offset: block * BLOCK_BYTES, data: numberedBlock(2) }, 60_000)
  expect(disk.witness.log.inDisk()).toEqual([])
  for (const block of [0, 1]) expect(blockNumber(blockOf(disk.witness.backingPath, block))).toBe(2)
  const report = { plug: source.name, exitStatus: 0, output: `container ${source.name} is off\n` }
  const record = await recordAt(join(folder, RECORD_FOLDER))
  expect(record).toMatchObject({
    generation: 2,
    holder: { name: 'destination' },
    cleared: { by: 'fence', fence: report },
  })
})

test('cut off, taken over, and back again: it cannot write a byte', async () => {
  const scratch = scratchOfTest()
  const engine = engineOfRun()
  const subnet = `10.${100 + Math.floor(Math.random() * 100)}.${Math.floor(Math.random() * 256)}`
  const address = `${subnet}.10`
  const { source, destination, image, network } = await startPair(scratch, {
    network: ['--subnet', `${subnet}.0/24`],
    source: { words: ['--ip', address] },
    destination: (lost) => ({
      settings: [
        '[fence]',
        'command = ["sh", "/fence-by-asking.sh"]',
        '[fence.plugs]',
        'source = "/run/source/control.sock"',
      ],
      words: [
        ...['--volume', `${dirname(lost.controlPath)}:/run/source`],
        ...['--volume', `${join(PROJECT, 'test/docker/fence-by-asking.sh')}:/fence-by-asking.sh:ro`],
      ],
    }),
  })
  const process = await source.inspect('{{.State.Pid}} {{.RestartCount}}')
  const old = await connectFrontend(scratch, await source.address(), 'vda')
  await old.request('WRITE', { offset: 0, data: numberedBlock(1) })
  await engine.ask(['network', 'disconnect', network, source.name])
  // These wait in the client's kernel, which sends them again and again until somebody takes them.
  const late = [0, 1].map((block) => old.write(block * BLOCK_BYTES, numberedBlock(2)))
  expect(await destination.open('vda', { takeover: true })).toMatchObject({ generation: 2, clearedBy: 'fence' })
  const fresh = await connectFrontend(scratch, await destination.address(), 'vda')
  for (const block of [0, 1]) await fresh.request('WRITE', { offset: block * BLOCK_BYTES, data: numberedBlock(3) })
  await engine.ask(['network', 'connect', '--ip', address, network, source.name])
  const answers = await Promise.all(late.map((sent) => answerOrNone(sent, 60_000)))
  expect(answers.map((answer) => answer?.error)).toEqual([NBD_ERRORS.ESHUTDOWN, NBD_ERRORS.ESHUTDOWN])
  await expect(connectFrontend(scratch, { host: address, port: 10_809 }, 'vda')).rejects.toThrow(/./u)
  expect(await source.status('vda')).toMatchObject({ state: 'fenced' })
  expect(await source.api('POST', '/exports/vda/open', {})).toMatchObject({
    status: 409,
    body: { code: 'held-by-other' },
  })
  expect(await source.inspect('{{.State.Pid}} {{.RestartCount}}')).toBe(process)
  for (const block of [0, 1]) expect(blockNumber(blockOf(image, block))).toBe(3)
})

test('a container whose disk does not answer ends at the second signal, and has not said that it is closed', async () => {
  const scratch = scratchOfTest()
  const disk = await startSlowDisk(scratch, { writeDelayMs: SLOW_MS * 5 })
  const { source, folder } = await startPair(scratch, { source: disk.slow, destination: () => disk.below })
  const old = await connectFrontend(scratch, await source.address(), 'vda')
  old.write(0, numberedBlock(1))
  await eventually('a write in the disk', () => disk.witness.log.inDisk().length > 0)
  const { engine, name } = source
  await engine.ask(['kill', '--signal', 'TERM', name])
  await eventually('the close', async () => (await source.status('vda')).state === 'closing')
  await engine.ask(['kill', '--signal', 'TERM', name])
  expect(await source.exitStatus()).toBe(KILLED)
  expect(disk.witness.log.inDisk()).toHaveLength(1)
  expect(await recordAt(join(folder, RECORD_FOLDER))).toMatchObject({ generation: 1, receipt: null })
})
