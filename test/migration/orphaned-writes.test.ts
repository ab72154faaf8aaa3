/**
 * No resurrection, on a real slow parallel block device: a client loses its connection with writes in the disk, the next
 * client writes the same blocks. The old and the new write of a block must never be in the disk at once, so the newer
 * one stays. qemu-nbd serves the same device beside, in the same machine, and overlaps: the rig sees it.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ENGINES } from '../support/daemon.ts'
import { eventually } from '../support/eventually.ts'
import { answerOrNone, answerWithin, blockNumber, connectFrontend, numberedBlock } from '../support/nbd-frontend.ts'
import type { NbdFrontend, SentRequest } from '../support/nbd-frontend.ts'
import {
  SERVER_PORT,
  startMachineDaemon,
  startMachineServer,
  startParallelWitness,
  WITNESS_DEVICE,
} from '../support/parallel-witness.ts'
import type { MachineDaemon, MachineServer, ParallelWitness } from '../support/parallel-witness.ts'
import { Scratch } from '../support/scratch.ts'

const BLOCKS = [0, 2, 4, 6]
const BLOCK_BYTES = 4_096
/** Long enough for the next client to come while the old writes are in the disk, however slow the machine is. */
const WRITE_DELAY_MS = 4_000
/** For the daemon that opens after the one that was killed: it has been in standby since before. */
const SECOND_PORT = 10_810

const scratch = new Scratch()
let witness: ParallelWitness

beforeAll(async () => {
  witness = await startParallelWitness(scratch, { writeDelayMs: WRITE_DELAY_MS, forwardedPorts: [SECOND_PORT] })
})
afterAll(() => scratch.dispose())

function writeBlocks(frontend: NbdFrontend, above: number): SentRequest[] {
  return BLOCKS.map((block) => frontend.write(block * BLOCK_BYTES, numberedBlock(above + block)))
}

function numbersOnDisk(): (number | undefined)[] {
  return BLOCKS.map((block) => blockNumber(witness.readBack(block * BLOCK_BYTES, BLOCK_BYTES)))
}

/** A client with four writes in the disk. */
async function clientInFlight(
  server: MachineServer,
  above: number,
): Promise<{ client: NbdFrontend; sent: SentRequest[] }> {
  await witness.settle(20_000)
  const client = await connectFrontend(scratch, server.address, 'vda')
  const sent = writeBlocks(client, above)
  await eventually('four writes in the disk', () => witness.log.inDisk().length === BLOCKS.length)
  return { client, sent }
}

/** The next client writes the same blocks while the old writes are in the disk; all of it is answered. */
async function overwrite(server: MachineServer, above: number): Promise<void> {
  const client = await connectFrontend(scratch, server.address, 'vda')
  const sent = writeBlocks(client, above)
  expect(witness.log.inDisk(), 'the old writes are in the disk').toHaveLength(BLOCKS.length)
  for (const request of sent) expect((await answerWithin(request, 60_000)).error).toBe(0)
  await witness.settle(20_000)
  await client.disconnect()
}

test('the rig sees the hazard: under qemu-nbd old and new writes of a block are in the disk at once', async () => {
  const begunMs = Date.now()
  const command = `qemu-nbd --cache=directsync -f raw -t --shared=8 -b 0.0.0.0 -p ${SERVER_PORT} -x vda ${WITNESS_DEVICE}`
  const server = await startMachineServer(witness.machine, command)
  const { client } = await clientInFlight(server, 1_000)
  client.drop()
  await overwrite(server, 2_000)
  expect(witness.log.overlappingPairs(begunMs).length).toBeGreaterThan(0)
  await server.kill('KILL')
})

describe.each(ENGINES)('with the %s engine', (engine) => {
  let server: MachineDaemon

  beforeAll(async () => {
    server = await startMachineDaemon(witness.machine, engine)
  })
  afterAll(() => server.kill('KILL'))

  test('a lost connection: never two overlapping writes in the disk, and the newer one stays', async () => {
    const begunMs = Date.now()
    const { client, sent } = await clientInFlight(server, 3_000)
    client.drop()
    await overwrite(server, 4_000)
    expect(witness.log.overlappingPairs(begunMs)).toEqual([])
    expect(numbersOnDisk()).toEqual(BLOCKS.map((block) => 4_000 + block))
    for (const request of sent) expect(await answerOrNone(request, 0)).toBeUndefined()
  })

  test('a client that still lives when another one writes: what it sends from then on is never written', async () => {
    const begunMs = Date.now()
    const { client, sent } = await clientInFlight(server, 5_000)
    const taking = overwrite(server, 6_000)
    await sleep(500)
    const resurrected = client.write(0, numberedBlock(7_000))
    await taking
    await sleep(500)
    await witness.settle(20_000)
    expect(witness.log.overlappingPairs(begunMs)).toEqual([])
    expect(numbersOnDisk(), 'the newcomer has the disk').toEqual(BLOCKS.map((block) => 6_000 + block))
    expect(await answerOrNone(resurrected, 0), 'nobody told the evicted client that it had written').toBeUndefined()
    for (const request of sent) expect((await answerOrNone(request, 0))?.error ?? 0).toBe(0)
  })

  test('SIGKILL: whoever opens next waits for what the dead daemon left in the disk', async () => {
    const begunMs = Date.now()
    const next = await startMachineDaemon(witness.machine, engine, { port: SECOND_PORT, standby: true })
    try {
      await clientInFlight(server, 8_000)
      const opening = witness.machine.check(
        `kill -KILL ${server.pid}
         ${next.requestScript('POST', '/exports/vda/open', { timeoutMs: 60_000 })} | tee /run/opened
         grep -q 'HTTP/1.1 200' /run/opened`,
      )
      const [answer] = await Promise.all([opening, overwrite(next, 9_000)])
      expect(answer).toContain('"state":"open"')
      expect(witness.log.overlappingPairs(begunMs)).toEqual([])
      expect(numbersOnDisk()).toEqual(BLOCKS.map((block) => 9_000 + block))
    } finally {
      await next.kill('KILL')
    }
  })
})
