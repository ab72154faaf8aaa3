/**
 * Linux's kernel as the one that sends again what was not answered: a write is on its way over one connection, the
 * connection is lost, the kernel sends the write again over another, a newer write of the same block is answered, and
 * then the old one arrives or lands. Reads must never go back to the older value. Under qemu-nbd and nbdkit they do: the
 * rig sees the loss. And a mounted file system rides through restarts of the daemon. The machine boots once for all of it.
 */

import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ENGINES, startAgain, startDaemon } from '../support/daemon.ts'
import type { Daemon, DaemonOptions } from '../support/daemon.ts'
import { eventually } from '../support/eventually.ts'
import { runChecked, startProgram } from '../support/foreign-program.ts'
import { Forwarder } from '../support/forwarder.ts'
import { freePort } from '../support/free-port.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { attachKernelClient } from '../support/kernel-client.ts'
import { Scratch } from '../support/scratch.ts'
import { HOST_ADDRESS, startVirtualMachine } from '../support/virtual-machine.ts'
import type { VirtualMachine } from '../support/virtual-machine.ts'
import { startWitnessDisk } from '../support/witness-disk.ts'
import type { WitnessDisk } from '../support/witness-disk.ts'

const PATIENT = { timeoutMs: 90_000 }
/** The kernel sends again after this; as long may what it has sent again be held back. */
const OUR_TIMEOUT_SECONDS = 15
const THEIR_TIMEOUT_SECONDS = 3

const scratch = new Scratch()
let machine: VirtualMachine
let devices = 0

beforeAll(async () => {
  machine = await startVirtualMachine(scratch, { modules: ['nbd', 'ext4', 'crc32c_generic'] })
})
afterAll(() => scratch.dispose())

/** In the machine: a block of one character, past every cache. The processor decides over which connection. */
function write(device: string, character: string, processor = 0): Promise<string> {
  const block = `head -c 4096 /dev/zero | tr '\\0' ${character}`
  return machine.check(
    `${block} | taskset -c ${processor} dd of=${device} bs=4096 count=1 iflag=fullblock oflag=direct`,
    120_000,
  )
}

/** The character that fills the block, over the connection that was not cut. */
function read(device: string): Promise<string> {
  return machine.check(`taskset -c 1 dd if=${device} bs=4096 count=1 iflag=direct | tr -s '12'`)
}

/** The kernel reads as well, whenever it likes. */
function writesInDisk({ log }: WitnessDisk): number {
  return log.inDisk().filter(({ kind }) => kind === 'Write').length
}

function nextIndex(): number {
  devices += 1
  return devices
}

async function startForeign(name: 'qemu-nbd' | 'nbdkit', path: string): Promise<number> {
  const port = await freePort()
  const program =
    name === 'qemu-nbd'
      ? startProgram(scratch, 'qemu-nbd', [
          ...['--format=raw', '--cache=directsync', '--persistent', '--shared=8', '--bind=127.0.0.1'],
          ...['--port', String(port), '--export-name=vda', path],
        ])
      : startProgram(scratch, 'nbdkit', ['-f', '-i', '127.0.0.1', '-p', String(port), '-e', 'vda', 'file', path])
  await program.until('its port', 30_000, () => isListening(port))
  return port
}

/** The kernel is asked, because a connection that only looks could be taken for a client. */
function isListening(port: number): boolean {
  const hexadecimal = port.toString(16).toUpperCase().padStart(4, '0')
  return new RegExp(`:${hexadecimal} [0-9A-F]{8}:0000 0A `, 'u').test(readFileSync('/proc/net/tcp', 'utf8'))
}

describe('a source and a destination, one connection to each, and the source loses its', () => {
  async function attachBoth(source: number, destination: number, seconds: number): Promise<[Forwarder, string]> {
    const forwarder = await Forwarder.start(scratch, [source, destination])
    const device = `/dev/nbd${nextIndex()}`
    const attach = `nbd-client -N vda ${HOST_ADDRESS} ${forwarder.port} ${device} -C 2 -t ${seconds}`
    await machine.check(attach, 120_000)
    return [forwarder, device]
  }

  /** The write is in the disk of the source and stays there; its connection is gone. */
  async function loseInFlight(
    disk: WitnessDisk,
    forwarder: Forwarder,
    device: string,
  ): Promise<{ readonly written: Promise<string> }> {
    disk.holdWrites(true)
    const written = write(device, '1')
    await eventually('the first write in the disk of the source', () => writesInDisk(disk) > 0, PATIENT)
    forwarder.cut(0)
    return { written }
  }

  test.each(['qemu-nbd', 'nbdkit'] as const)('the rig sees the loss under %s', async (name) => {
    const disk = await startWitnessDisk(scratch, { scripted: true })
    const [source, destination] = [await startForeign(name, disk.path), await startForeign(name, disk.backingPath)]
    const [forwarder, device] = await attachBoth(source, destination, THEIR_TIMEOUT_SECONDS)
    const { written } = await loseInFlight(disk, forwarder, device)
    await written
    await write(device, '2', 1)
    expect(await read(device)).toBe('2')
    disk.holdWrites(false)
    await eventually('the disk to be idle', () => writesInDisk(disk) === 0, PATIENT)
    expect(await read(device)).toBe('1')
  })

  test.each(ENGINES)('with the %s engine the older value never comes back', async (engine) => {
    const disk = await startWitnessDisk(scratch, { scripted: true })
    const directory = scratch.directory('records')
    const host = (path: string, options: Partial<DaemonOptions> = {}): Promise<Daemon> =>
      startDaemon(scratch, {
        exports: [{ name: 'vda', path, image_id: 'disk', clients: 'shared' }],
        ownership: 'directory',
        ownershipSettings: [`directory = ${JSON.stringify(directory)}`],
        engine,
        ...options,
      })
    const source = await host(disk.path)
    const destination = await host(disk.backingPath, { standby: true })
    const [forwarder, device] = await attachBoth(source.nbdPort, destination.nbdPort, OUR_TIMEOUT_SECONDS)
    const { written } = await loseInFlight(disk, forwarder, device)
    const sentAgain = async (): Promise<boolean> => (await destination.status('vda')).outstanding.parsed > 0
    await eventually('the first write to be sent again', sentAgain, PATIENT)
    await source.ask('POST', '/exports/vda/close', { early: true })
    await destination.open('vda')
    await eventually('it to be held', async () => (await destination.status('vda')).holds[0]?.waiting === 1, PATIENT)
    disk.holdWrites(false)
    await written
    await write(device, '2', 1)
    expect(writesInDisk(disk)).toBe(0)
    expect((await source.close('vda')).receipt).toMatchObject({ generation: 1, drained: { writes: 1 } })
    for (let look = 0; look < 5; look += 1) expect(await read(device)).toBe('2')
    await machine.check(`nbd-client -d ${device}`)
  })
})

describe('one server, and the first write is still unread in the old connection', () => {
  /** What is read when the old bytes have been delivered. */
  async function afterLateDelivery(port: number): Promise<string> {
    const forwarder = await Forwarder.start(scratch, [port])
    const { device } = await attachKernelClient(machine, {
      port: forwarder.port,
      exportName: 'vda',
      index: nextIndex(),
      timeoutSeconds: THEIR_TIMEOUT_SECONDS,
    })
    // The connection is the writer's.
    await write(device, '0')
    forwarder.stall(0)
    const first = write(device, '1')
    await eventually('the first write on its way', () => forwarder.keptBytes(0) > 4_096, PATIENT)
    forwarder.cutClient(0)
    await first
    await write(device, '2')
    expect(await read(device)).toBe('2')
    forwarder.deliver(0)
    await sleep(1_500)
    return read(device)
  }

  test.each(['qemu-nbd', 'nbdkit'] as const)('the rig sees the loss under %s', async (name) => {
    expect(await afterLateDelivery(await startForeign(name, makeImage(scratch, MEBIBYTE)))).toBe('1')
  })

  test.each(ENGINES)('with the %s engine the older value never comes back', async (engine) => {
    const path = makeImage(scratch, MEBIBYTE)
    const daemon = await startDaemon(scratch, { engine, exports: [{ name: 'vda', path }] })
    expect(await afterLateDelivery(daemon.nbdPort)).toBe('2')
    await daemon.close('vda')
    expect(readFileSync(path).subarray(0, 4_096).toString('latin1')).toBe('2'.repeat(4_096))
  })
})

/** What a mounted file system does not survive unnoticed. */
const TROUBLE = 'I/O error|EXT4-fs (error|warning)|Aborting journal|Remounting filesystem|hung task'

test.each(ENGINES)('a mounted file system rides through a stop and a crash of the daemon (%s)', async (engine) => {
  const pieces = 24
  const path = makeImage(scratch, 32 * MEBIBYTE)
  const daemon = await startDaemon(scratch, { engine, ownership: 'directory', exports: [{ name: 'vda', path }] })
  const { device } = await attachKernelClient(machine, {
    port: daemon.nbdPort,
    exportName: 'vda',
    index: nextIndex(),
    timeoutSeconds: THEIR_TIMEOUT_SECONDS,
  })
  await machine.check(
    `seq 100000 | head -c ${pieces * 8_192} > /run/content
     dmesg --clear
     mkfs.ext4 -q -E nodiscard ${device} && mkdir -p /mnt/vda && mount ${device} /mnt/vda`,
    120_000,
  )
  const before = (await daemon.status('vda')).totals.writes
  // Each piece is durable before the next one is begun.
  const writing = machine.check(
    `for piece in $(seq 0 ${pieces - 1}); do
       dd if=/run/content of=/mnt/vda/content bs=8192 count=1 skip=$piece seek=$piece conv=notrunc,fsync
     done`,
    300_000,
  )
  const someWritten = (host: Daemon, above: number): Promise<boolean> =>
    eventually('some writes', async () => (await host.status('vda')).totals.writes >= above + 5, PATIENT)
  await someWritten(daemon, before)
  expect((await daemon.stop()).status).toBe(0)
  const second = await startAgain(scratch, daemon)
  expect(await second.status('vda')).toMatchObject({ state: 'open', generation: 2, clearedBy: null })
  await someWritten(second, 0)
  await second.kill()
  const third = await startAgain(scratch, second)
  expect(await third.untilOpen('vda')).toMatchObject({ generation: 3, clearedBy: 'lock' })
  await someWritten(third, 0)
  await writing
  await machine.check(
    `umount /mnt/vda && mount -o ro ${device} /mnt/vda
     cmp /run/content /mnt/vda/content
     umount /mnt/vda && e2fsck -f -n ${device}
     if dmesg | grep -E '${TROUBLE}'; then exit 1; fi`,
    120_000,
  )
  await third.close('vda')
  await runChecked('e2fsck', ['-f', '-n', path])
})
