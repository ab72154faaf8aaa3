/**
 * No resurrection, on a real slow parallel block device: a client loses its connection with writes in the disk, the next
 * client writes the same blocks. The old and the new write of a block must never be in the disk at once, so the newer
 * one stays. qemu-nbd serves the same device beside, in the same machine, and overlaps: the rig sees it.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { ENGINES } from '../support/daemon.ts'
import { eventually } from '../support/eventually.ts'
import { answerOrNone, answerWithin, blockNumber, connectFrontend, numberedBlock } from '../support/nbd-frontend.ts'
import type { NbdFrontend, SentRequest } from '../support/nbd-frontend.ts'
import {
  startMachineDaemon,
  startMachineServer,
  startParallelWitness,
  WITNESS_DEVICE,
} from '../support/parallel-witness.ts'
import type { MachineServer, ParallelWitness } from '../support/parallel-witness.ts'
import { Scratch } from '../support/scratch.ts'

const BLOCKS = [0, 2, 4, 6]
const BLOCK_BYTES = 4_096
const WRITE_DELAY_MS = 1_500
/** For the daemon after the one that was killed: the dead one's port may be taken for as long as its writes run. */
const SECOND_PORT = 10_810

const scratch = new Scratch()
let witness: ParallelWitness
let server: MachineServer | undefined

beforeAll(async () => {
  witness = await startParallelWitness(scratch, { writeDelayMs: WRITE_DELAY_MS, forwardedPorts: [SECOND_PORT] })
})
afterEach(async () => {
  await server?.kill('KILL')
  server = undefined
  await witness.settle(20_000)
})
afterAll(() => scratch.dispose())

function writeBlocks(frontend: NbdFrontend, above: number): SentRequest[] {
  return BLOCKS.map((block) => frontend.write(block * BLOCK_BYTES, numberedBlock(above + block)))
}

function numbersOnDisk(): (number | undefined)[] {
  return BLOCKS.map((block) => blockNumber(witness.readBack(block * BLOCK_BYTES, BLOCK_BYTES)))
}

/** Four old writes in the disk when their connection is lost, four newer ones from the next client. */
async function loseConnection(serving: MachineServer): Promise<{ overlaps: number; old: SentRequest[] }> {
  const begunMs = Date.now()
  const first = await connectFrontend(scratch, serving.address, 'vda')
  const old = writeBlocks(first, 1_000)
  await eventually('four old writes in the disk', () => witness.log.inDisk().length >= BLOCKS.length)
  first.drop()
  const second = await connectFrontend(scratch, serving.address, 'vda')
  for (const sent of writeBlocks(second, 2_000)) expect((await answerWithin(sent, 30_000)).error).toBe(0)
  await witness.settle(20_000)
  second.drop()
  return { overlaps: witness.log.overlappingPairs(begunMs).length, old }
}

test('the rig sees the hazard: under qemu-nbd old and new writes of a block are in the disk at once', async () => {
  const command = `qemu-nbd --cache=directsync -f raw -t --shared=8 -b 0.0.0.0 -p 10809 -x vda ${WITNESS_DEVICE}`
  server = await startMachineServer(witness.machine, command)
  expect((await loseConnection(server)).overlaps).toBeGreaterThan(0)
})

describe.each(ENGINES)('with the %s engine', (engine) => {
  test('a lost connection: never two overlapping writes in the disk, and the newer one stays', async () => {
    server = await startMachineDaemon(witness.machine, engine)
    const { overlaps, old } = await loseConnection(server)
    expect(overlaps).toBe(0)
    expect(numbersOnDisk()).toEqual(BLOCKS.map((block) => 2_000 + block))
    for (const sent of old) expect(await answerOrNone(sent, 0)).toBeUndefined()
  })

  test('bytes of the old connection that were not admitted yet never are', async () => {
    server = await startMachineDaemon(witness.machine, engine)
    const first = await connectFrontend(scratch, server.address, 'vda')
    const old = writeBlocks(first, 3_000)
    await eventually('four old writes in the disk', () => witness.log.inDisk().length >= BLOCKS.length)
    const second = await connectFrontend(scratch, server.address, 'vda')
    const newer = writeBlocks(second, 4_000)
    await sleep(200)
    const resurrected = first.write(0, numberedBlock(5_000))
    for (const sent of newer) expect((await answerWithin(sent, 30_000)).error).toBe(0)
    await witness.settle(20_000)
    expect(numbersOnDisk(), 'the newcomer has the disk').toEqual(BLOCKS.map((block) => 4_000 + block))
    expect((await answerOrNone(resurrected, 0))?.error, 'the evicted client was not told it had written').not.toBe(0)
    for (const sent of old)
      expect((await answerOrNone(sent, 0))?.error ?? 0, 'what was admitted ran to its end').toBe(0)
  })
  test('SIGKILL and a new start: the next daemon waits for what the dead one left in the disk', async () => {
    const begunMs = Date.now()
    server = await startMachineDaemon(witness.machine, engine)
    const first = await connectFrontend(scratch, server.address, 'vda')
    writeBlocks(first, 6_000)
    await eventually('four old writes in the disk', () => witness.log.inDisk().length >= BLOCKS.length)
    await server.kill('KILL')
    server = await startMachineDaemon(witness.machine, engine, SECOND_PORT)
    const second = await connectFrontend(scratch, server.address, 'vda')
    for (const sent of writeBlocks(second, 7_000)) expect((await answerWithin(sent, 30_000)).error).toBe(0)
    await witness.settle(20_000)
    expect(witness.log.overlappingPairs(begunMs)).toEqual([])
    expect(numbersOnDisk()).toEqual(BLOCKS.map((block) => 7_000 + block))
  })
})
