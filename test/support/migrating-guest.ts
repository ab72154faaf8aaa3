/**
 * A guest that moves: a small Linux whose whole user land is a writer (guest-writer.c), in an emulated QEMU that is either
 * booted or waits for a migration. The writer's disks are exports; it writes and checks all the time, and knows in its own
 * memory what each block must hold. It is asked over a serial port, which moves with it: each QEMU has its own end.
 */

import { existsSync } from 'node:fs'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { connectQmp } from '../../src/handover/qmp-client.ts'
import { debianKernel } from './debian-kernel.ts'
import { runChecked, startProgram } from './foreign-program.ts'
import type { Program } from './foreign-program.ts'
import { LOAD_MODULES, layInitramfs, packInitramfs } from './initramfs.ts'
import type { Scratch } from './scratch.ts'
import { connectSerialPort } from './virtual-machine.ts'

/** The writer uses this much of each disk. */
export const GUEST_DISK_BYTES = 512 * 4_096

const BOOT_TIMEOUT_MS = 120_000
const WRITER_SOURCE = join(import.meta.dirname, 'guest-writer.c')

export interface GuestSystem {
  readonly kernelPath: string
  readonly initramfsPath: string
  readonly disks: number
}

/** Compiled and packed once; any number of machines boot from it. */
export async function makeGuestSystem(scratch: Scratch, disks: number): Promise<GuestSystem> {
  const kernel = await debianKernel()
  const directory = scratch.directory('guest')
  const content = join(directory, 'initramfs')
  const devices = Array.from({ length: disks }, (_, index) => `/dev/vd${String.fromCharCode(0x61 + index)}`)
  const init = `#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
${LOAD_MODULES}
/bin/busybox stty raw -echo < /dev/ttyS1
for device in ${devices.join(' ')}; do until test -b "$device"; do /bin/busybox sleep 0.1; done; done
exec /bin/writer /dev/ttyS1 ${devices.join(' ')}
`
  await layInitramfs(kernel, content, ['virtio_pci', 'virtio_blk'], init)
  await runChecked('gcc', ['-O2', '-static', '-pthread', '-o', join(content, 'bin/writer'), WRITER_SOURCE])
  const initramfsPath = await packInitramfs(content, join(directory, 'initramfs.cpio'))
  return { kernelPath: kernel.imagePath, initramfsPath, disks }
}

/** What the writer has counted since it was started, wherever it ran. */
export interface WriterCounts {
  readonly writes: number
  readonly reads: number
  /** Blocks that held something else than their last acknowledged write. */
  readonly bad: number
  /** Requests that failed. */
  readonly errors: number
}

/** One QEMU: where the guest is, or where it will be. */
export class GuestMachine {
  readonly program: Program
  readonly monitorPath: string
  readonly #port: Socket
  #heard = ''

  constructor(program: Program, monitorPath: string, port: Socket) {
    this.program = program
    this.monitorPath = monitorPath
    this.#port = port
    port.on('error', () => undefined)
    port.setEncoding('latin1').on('data', (text: string) => (this.#heard += text))
  }

  /** As `interlockctl migrate-qemu` wants it. */
  get monitorUrl(): string {
    return `unix:${this.monitorPath}`
  }

  /** What the writer said on this machine about blocks that are bad. */
  get complaints(): string[] {
    return this.#heard.split('\n').filter((line) => line.startsWith('bad:'))
  }

  async ready(): Promise<void> {
    await this.#line(/^ready$/mu, BOOT_TIMEOUT_MS)
  }

  /** Whether its processors run; of one that has ended they do not. */
  async runs(): Promise<boolean> {
    if (!this.program.running) return false
    const answer = await askMonitor(this.monitorPath, 'query-status')
    return (answer as { readonly running: boolean }).running
  }

  /** So many threads for each disk work from now on. */
  async setDepth(depth: number): Promise<void> {
    await this.#ask(`depth ${depth}`, /^depth (\d+)$/mu)
  }

  async counts(): Promise<WriterCounts> {
    const [, writes, reads, bad, errors] = await this.#ask('count', /^count (\d+) (\d+) (\d+) (\d+)$/mu)
    return { writes: Number(writes), reads: Number(reads), bad: Number(bad), errors: Number(errors) }
  }

  /** Reads and compares every block with nothing else going on, and resumes. */
  async check(): Promise<{ readonly blocks: number; readonly bad: number; readonly errors: number }> {
    const [, blocks, bad, errors] = await this.#ask('check', /^checked (\d+) (\d+) (\d+)$/mu)
    return { blocks: Number(blocks), bad: Number(bad), errors: Number(errors) }
  }

  async #ask(command: string, answer: RegExp): Promise<RegExpExecArray> {
    this.#heard = this.#heard
      .split('\n')
      .filter((line) => line.startsWith('bad:'))
      .map((line) => `${line}\n`)
      .join('')
    this.#port.write(`${command}\n`)
    return this.#line(answer, 60_000)
  }

  #line(pattern: RegExp, timeoutMs: number): Promise<RegExpExecArray> {
    return this.program.until(
      `line ${String(pattern)} of the guest`,
      timeoutMs,
      () => pattern.exec(this.#heard) ?? false,
    )
  }
}

/**
 * An emulated processor can write to a page at the very moment when QEMU marks it as sent, and that write is lost: seen as
 * a guest that crashes after a move, whatever serves its disk. So here nearly all of the memory is sent once the guest
 * stands still. It writes to its disks until then all the same.
 */
async function copyOnceStopped(monitorPath: string): Promise<void> {
  await askMonitor(monitorPath, 'migrate-set-parameters', { 'max-bandwidth': 1_048_576, 'downtime-limit': 2_000_000 })
}

async function askMonitor(path: string, command: string, commandArguments: object = {}): Promise<unknown> {
  const outcome = await connectQmp({ scheme: 'unix', path }, 60_000)
  if (!outcome.ok) throw new Error(outcome.problem.detail)
  const answer = await outcome.value.execute(command, { ...commandArguments }, 60_000)
  outcome.value.close()
  if (!answer.ok) throw new Error(answer.problem.detail)
  return answer.value
}

export interface GuestMachineOptions {
  /** Members of -blockdev that name each disk's server, such as `server.type=unix,server.path=…,export=vda`. */
  readonly disks: readonly string[]
  /** Waits, paused, for a migration to arrive here. Without it the guest boots. */
  readonly incoming?: string
}

export async function startGuestMachine(
  scratch: Scratch,
  system: GuestSystem,
  options: GuestMachineOptions,
): Promise<GuestMachine> {
  const directory = scratch.directory('guest-machine')
  const monitorPath = join(directory, 'qmp.sock')
  const portPath = join(directory, 'writer.sock')
  const program = startProgram(scratch, 'qemu-system-x86_64', [
    ...[
      '-accel',
      'tcg',
      '-machine',
      'pc',
      '-cpu',
      'qemu64',
      '-m',
      '192',
      '-nodefaults',
      '-display',
      'none',
      '-no-reboot',
    ],
    ...['-chardev', 'stdio,id=console,signal=off', '-serial', 'chardev:console'],
    ...['-chardev', `socket,id=writer,path=${portPath},server=on,wait=off`, '-serial', 'chardev:writer'],
    ...['-kernel', system.kernelPath, '-initrd', system.initramfsPath],
    ...['-append', 'console=ttyS0 quiet panic=-1 loglevel=4 mitigations=off no_timer_check'],
    ...options.disks.flatMap((server, index) => [
      ...['-blockdev', `driver=nbd,node-name=disk${index},cache.direct=on,reconnect-delay=60,${server}`],
      ...['-device', `virtio-blk-pci,drive=disk${index},id=virtio${index},write-cache=on`],
    ]),
    ...['-qmp', `unix:${monitorPath},server=on,wait=off`],
    ...(options.incoming === undefined ? [] : ['-incoming', options.incoming, '-S']),
  ])
  await program.until('monitor of QEMU', 20_000, () => existsSync(monitorPath))
  await copyOnceStopped(monitorPath)
  const port = await connectSerialPort(program, portPath)
  scratch.defer('serial port of the guest', () => {
    port.destroy()
  })
  const machine = new GuestMachine(program, monitorPath, port)
  if (options.incoming === undefined) await machine.ready()
  return machine
}
