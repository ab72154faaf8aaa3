/**
 * No resurrection, on a real parallel block device that keeps its writes: a client loses its connection, or the daemon is
 * killed, with writes in the disk, and the next client writes the same blocks. The old and the new write of a block must
 * never be in the disk at once, so the newer one stays. qemu-nbd serves the same device beside, in the same machine, and
 * overlaps: the rig sees it.
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
/** A block that nobody writes. */
const ELSEWHERE = 1 << 20
/** For the daemon that is started after a kill: threads of the killed one keep its port as long as they are in the disk. */
const SECOND_PORT = 10_810
const MACHINE_PATIENCE_MS = 60_000
const PATIENT = { timeoutMs: MACHINE_PATIENCE_MS }

const scratch = new Scratch()
let witness: ParallelWitness

beforeAll(async () => {
  witness = await startParallelWitness(scratch, { forwardedPorts: [SECOND_PORT] })
})
afterAll(() => scratch.dispose())

function writeBlocks(frontend: NbdFrontend, above: number): SentRequest[] {
  return BLOCKS.map((block) => frontend.write(block * BLOCK_BYTES, numberedBlock(above + block)))
}

function numbersOnDisk(): (number | undefined)[] {
  return BLOCKS.map((block) => blockNumber(witness.readBack(block * BLOCK_BYTES, BLOCK_BYTES)))
}

function numbersAbove(above: number): number[] {
  return BLOCKS.map((block) => above + block)
}

interface Writer {
  readonly client: NbdFrontend
  readonly sent: readonly SentRequest[]
}

/** With four writes in the disk, which keeps them. */
async function writerInFlight(server: MachineServer, above: number): Promise<Writer> {
  await witness.settle(MACHINE_PATIENCE_MS)
  const client = await connectFrontend(scratch, server.address, 'vda')
  witness.holdWrites(true)
  const sent = writeBlocks(client, above)
  await eventually('four writes in the disk', () => witness.log.inDisk().length === BLOCKS.length, PATIENT)
  return { client, sent }
}

/** It writes the same blocks while the old writes are in the disk. */
async function nextWriter(server: MachineServer, above: number): Promise<Writer> {
  const client = await connectFrontend(scratch, server.address, 'vda')
  const sent = writeBlocks(client, above)
  expect(witness.log.inDisk().length, 'the old writes are in the disk').toBeGreaterThanOrEqual(BLOCKS.length)
  return { client, sent }
}

/** The server has taken in whatever was sent before. */
async function untilTakenIn({ client }: Writer): Promise<void> {
  await client.read(ELSEWHERE, BLOCK_BYTES, MACHINE_PATIENCE_MS)
}

/** The disk lets go of everything, and the writes of the next client are answered. */
async function letGo({ client, sent }: Writer): Promise<void> {
  witness.holdWrites(false)
  for (const request of sent) expect((await answerWithin(request, MACHINE_PATIENCE_MS)).error).toBe(0)
  await witness.settle(MACHINE_PATIENCE_MS)
  await client.disconnect()
}

test('the rig sees the hazard: under qemu-nbd old and new writes of a block are in the disk at once', async () => {
  const begunMs = Date.now()
  const command = `qemu-nbd --cache=directsync -f raw -t --shared=8 -b 0.0.0.0 -p ${SERVER_PORT} -x vda ${WITNESS_DEVICE}`
  const server = await startMachineServer(witness.machine, command)
  const { client } = await writerInFlight(server, 1_000)
  client.drop()
  const next = await nextWriter(server, 2_000)
  await untilTakenIn(next)
  await letGo(next)
  expect(witness.log.overlappingPairs(begunMs).length).toBeGreaterThan(0)
  await server.kill('KILL')
})

describe.each(ENGINES)('with the %s engine', (engine) => {
  let server: MachineDaemon

  beforeAll(async () => {
    server = await startMachineDaemon(witness.machine, engine)
    await untilOpen(server)
  })
  afterAll(() => server.kill('KILL'))

  function untilOpen(daemon: MachineDaemon): Promise<unknown> {
    const isOpen = async (): Promise<boolean> => (await daemon.status()).state === 'open'
    return eventually('the export to be open', isOpen, PATIENT)
  }

  test('a lost connection: never two overlapping writes in the disk, and the newer one stays', async () => {
    const begunMs = Date.now()
    const { client, sent } = await writerInFlight(server, 3_000)
    client.drop()
    const next = await nextWriter(server, 4_000)
    await untilTakenIn(next)
    await letGo(next)
    expect(witness.log.overlappingPairs(begunMs)).toEqual([])
    expect(numbersOnDisk()).toEqual(numbersAbove(4_000))
    for (const request of sent) expect(await answerOrNone(request, 0)).toBeUndefined()
  })

  test('a client that still lives when another one writes: what it sends from then on is never written', async () => {
    const begunMs = Date.now()
    const { client, sent } = await writerInFlight(server, 5_000)
    const next = await nextWriter(server, 6_000)
    await untilTakenIn(next)
    const resurrected = client.write(0, numberedBlock(7_000))
    await letGo(next)
    await sleep(500)
    await witness.settle(MACHINE_PATIENCE_MS)
    expect(witness.log.overlappingPairs(begunMs)).toEqual([])
    expect(numbersOnDisk(), 'the newcomer has the disk').toEqual(numbersAbove(6_000))
    expect(await answerOrNone(resurrected, 0), 'nobody told the evicted client that it had written').toBeUndefined()
    for (const request of sent) expect((await answerOrNone(request, 0))?.error ?? 0).toBe(0)
  })

  test('SIGKILL and a start at once: it opens when what the dead daemon left in the disk has landed', async () => {
    const begunMs = Date.now()
    await writerInFlight(server, 8_000)
    await witness.machine.check(`kill -KILL ${server.pid}`)
    const again = await startMachineDaemon(witness.machine, engine, SECOND_PORT)
    try {
      const waiting = { state: 'opening', generation: 0, stateReason: expect.stringContaining('lock') as string }
      expect(await again.status()).toMatchObject(waiting)
      const next = await nextWriter(again, 9_000)
      const parked = async (): Promise<boolean> => (await again.status()).outstanding.bytes > 0
      await eventually('a write of the next client', parked, PATIENT)
      expect(witness.log.overlappingPairs(begunMs)).toEqual([])
      expect(await again.status()).toMatchObject({ generation: 0 })
      await letGo(next)
      expect(witness.log.overlappingPairs(begunMs)).toEqual([])
      expect(numbersOnDisk()).toEqual(numbersAbove(9_000))
      expect(await again.status()).toMatchObject({ state: 'open', generation: 2, clearedBy: 'lock' })
    } finally {
      witness.holdWrites(false)
      await again.kill('KILL')
    }
  })
})
