/**
 * A QEMU whose disk is an export, driven over QMP: it negotiates and reads the first sector when it starts, as the
 * destination of a migration does, and its own block layer can be told to read and write. Its processor never starts.
 */

import { existsSync } from 'node:fs'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { startProgram } from './foreign-program.ts'
import type { Program } from './foreign-program.ts'
import type { Scratch } from './scratch.ts'

export interface QmpEvent {
  readonly event: string
  readonly data: Readonly<Record<string, unknown>>
}

type Answered = { readonly return: unknown } | { readonly error: { readonly class: string; readonly desc: string } }

export class QemuMachine {
  readonly program: Program
  readonly events: QmpEvent[] = []
  readonly #monitor: Socket
  readonly #waiting = new Map<number, (answered: Answered) => void>()
  #commands = 0
  #heard = ''

  constructor(program: Program, monitor: Socket) {
    this.program = program
    this.#monitor = monitor
    monitor.on('error', () => undefined)
    monitor.setEncoding('utf8').on('data', (text: string) => {
      this.#hear(text)
    })
  }

  /** One QMP command, and what it returned. */
  async command<T = unknown>(
    name: string,
    commandArguments: Readonly<Record<string, unknown>> = {},
    timeoutMs = 20_000,
  ): Promise<T> {
    this.#commands += 1
    const id = this.#commands
    const answer = new Promise<Answered>((resolve) => this.#waiting.set(id, resolve))
    this.#monitor.write(`${JSON.stringify({ execute: name, arguments: commandArguments, id })}\n`)
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => {
        reject(new Error(`QEMU did not answer ${name} within ${timeoutMs} ms; ${this.program.said}`))
      }, timeoutMs)
    })
    try {
      const answered = await Promise.race([answer, late])
      if ('error' in answered) throw new Error(`QEMU refused ${name}: ${answered.error.desc}`)
      return answered.return as T
    } finally {
      clearTimeout(timer)
    }
  }

  /** Starts a qemu-io command on the machine's disk. The asynchronous ones ("aio_write") are not done when it returns. */
  async begin(line: string): Promise<void> {
    const path = '/machine/peripheral/disk/virtio-backend'
    const said = await this.command<string>('human-monitor-command', { 'command-line': `qemu-io -d ${path} "${line}"` })
    if (said !== '') throw new Error(`QEMU refused ${line}: ${said}`)
  }

  /** Runs a synchronous qemu-io command and returns what it said. A failure or a pattern that is not there rejects. */
  async disk(line: string): Promise<string> {
    const before = this.program.stdout.length
    await this.begin(line)
    const said = await this.program.until(`end of ${line}`, 30_000, () => {
      const text = this.program.stdout.slice(before)
      return /\d+ ops;|failed/u.test(text) && text
    })
    if (said.includes('failed')) throw new Error(`QEMU's disk: ${line}: ${said}`)
    return said
  }

  /** Waits for everything that was begun; a request that failed rejects. */
  async settle(): Promise<void> {
    await this.begin('aio_flush')
    if (/failed|error/iu.test(this.program.stdout)) throw new Error(this.program.said)
  }

  #hear(text: string): void {
    this.#heard += text
    for (let end = this.#heard.indexOf('\n'); end >= 0; end = this.#heard.indexOf('\n')) {
      const message = JSON.parse(this.#heard.slice(0, end)) as Partial<QmpEvent> & { id?: number } & Answered
      this.#heard = this.#heard.slice(end + 1)
      if (message.event !== undefined) this.events.push({ event: message.event, data: message.data ?? {} })
      if (message.id === undefined) continue
      this.#waiting.get(message.id)?.(message)
      this.#waiting.delete(message.id)
    }
  }
}

/** `blockdev` are the members of -blockdev that name the server, such as `server.type=unix,server.path=…,export=vda`. */
export async function startQemuMachine(scratch: Scratch, blockdev: string): Promise<QemuMachine> {
  const monitorPath = join(scratch.directory('qemu'), 'qmp.sock')
  const program = startProgram(scratch, 'qemu-system-x86_64', [
    ...['-accel', 'tcg', '-S', '-m', '64', '-nodefaults', '-display', 'none'],
    ...['-blockdev', `driver=nbd,node-name=node,cache.direct=on,${blockdev}`],
    ...['-device', 'virtio-blk-pci,drive=node,id=disk,write-cache=on'],
    ...['-qmp', `unix:${monitorPath},server=on,wait=off`],
  ])
  await program.until('monitor of QEMU', 20_000, () => existsSync(monitorPath))
  const monitor = connect(monitorPath)
  scratch.defer('monitor of QEMU', () => {
    monitor.destroy()
  })
  const machine = new QemuMachine(program, monitor)
  await machine.command('qmp_capabilities')
  return machine
}
