/**
 * A disk that several hosts share, and whose way from one of them can be as slow as a test likes: an NBD server in memory
 * that is mounted once for each host, so that the kernel of this machine puts nothing in order between them. What comes by
 * a way that is held lands when the test lets it go; what comes by another passes at once. It keeps a history of every
 * write, in the order of its own doing.
 *
 * A mount gives the disk a few writes at once, so of many that are in flight the disk itself sees some, and the others
 * wait in the kernel. Negotiation is just what nbdfuse asks for.
 */

import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import type { Server, Socket } from 'node:net'
import { join } from 'node:path'
import { runChecked, runProgram, startProgram } from './foreign-program.ts'
import { blockNumber, COMMANDS } from './nbd-frontend.ts'
import {
  OPTION_GO,
  OPTION_MAGIC,
  OPTION_REPLY_MAGIC,
  REPLY_ACK,
  REPLY_INFO,
  REPLY_UNSUPPORTED,
  REQUEST_MAGIC,
  SIMPLE_REPLY_MAGIC,
} from './nbd-numbers.ts'
import type { Scratch } from './scratch.ts'

export interface HeldDiskWrite {
  /** The way that it came: the export name of its connection. */
  readonly way: string
  readonly offset: number
  /** What the block says; undefined when it is not one number throughout. */
  readonly number: number | undefined
  /** Places in the history: when it came, and when its bytes landed. Infinity while it is held back. */
  readonly begun: number
  landed: number
}

/** So many bytes of a connection. */
type Take = (length: number) => Promise<Buffer<ArrayBuffer>>

interface HeldWrite {
  readonly write: HeldDiskWrite
  readonly land: () => void
}

/** HAS_FLAGS, SEND_FLUSH, SEND_FUA, CAN_MULTI_CONN: with one connection only, nbdfuse reads nothing while it writes. */
const TRANSMISSION_FLAGS = 0x10d
const EINVAL = 22
const IN_FLIGHT_MAX = 1_000

export class HeldDisk {
  readonly content: Buffer
  readonly writes: HeldDiskWrite[] = []
  readonly #server: Server
  readonly #held: HeldWrite[] = []
  readonly #waysHeld = new Set<string>()
  #steps = 0

  constructor(sizeBytes: number) {
    this.content = Buffer.alloc(sizeBytes)
    this.#server = createServer((socket) => {
      socket.setNoDelay(true)
      serve(this, socket).catch(() => socket.destroy())
    })
  }

  get port(): number {
    const address = this.#server.address()
    if (address === null || typeof address === 'string') throw new Error('the disk does not listen')
    return address.port
  }

  /** Whatever comes by this way stays in the disk, until it is released. */
  hold(way: string): void {
    this.#waysHeld.add(way)
  }

  get held(): readonly HeldDiskWrite[] {
    return this.#held.map(({ write }) => write)
  }

  /** What is held back lands now, and nothing more is held. */
  release(): void {
    this.#waysHeld.clear()
    for (const { land } of this.#held.splice(0)) land()
  }

  /** The number that the block at the offset holds now. */
  numberAt(offset: number): number | undefined {
    return blockNumber(this.content.subarray(offset, offset + 4_096))
  }

  async listen(): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject)
      this.#server.listen(0, '127.0.0.1', resolve)
    })
  }

  close(): void {
    this.#server.close()
  }

  /** Takes a write in; `answer` is called when it has landed. Used by the connections. */
  take(way: string, offset: number, data: Buffer, answer: () => void): void {
    const write: HeldDiskWrite = {
      way,
      offset,
      number: blockNumber(data),
      begun: (this.#steps += 1),
      landed: Number.POSITIVE_INFINITY,
    }
    this.writes.push(write)
    const land = (): void => {
      data.copy(this.content, offset)
      write.landed = this.#steps += 1
      answer()
    }
    if (this.#waysHeld.has(way)) this.#held.push({ write, land })
    else land()
  }
}

export interface SharedDisk {
  readonly disk: HeldDisk
  /** The image as the host has it that reaches the disk by this way. */
  mount(way: string): Promise<string>
}

/** It listens on this machine's loopback, and is gone with the scratch. */
export async function startHeldDisk(scratch: Scratch, sizeBytes: number): Promise<SharedDisk> {
  const disk = new HeldDisk(sizeBytes)
  await disk.listen()
  scratch.defer('disk that holds writes back', () => {
    disk.close()
  })
  return { disk, mount: (way) => mountDisk(scratch, disk, way) }
}

async function mountDisk(scratch: Scratch, disk: HeldDisk, way: string): Promise<string> {
  const directory = join(scratch.directory('held-disk'), way)
  mkdirSync(directory)
  const bridge = startProgram(scratch, 'nbdfuse', [directory, `nbd://127.0.0.1:${disk.port}/${way}`])
  scratch.defer(`mount ${directory}`, async () => {
    const polite = await runProgram('fusermount3', ['-u', directory])
    if (polite.status !== 0) await runProgram('fusermount3', ['-u', '-z', directory])
    await bridge.stop('SIGKILL', 0)
  })
  const path = join(directory, 'nbd')
  await bridge.until('mount of nbdfuse', 30_000, () => existsSync(path))
  await allowInFlight(scratch, directory)
  return path
}

/** The kernel keeps whoever gives a mount more than a dozen requests at once waiting; a disk takes more. */
async function allowInFlight(scratch: Scratch, mountPath: string): Promise<void> {
  const control = scratch.directory('fuse-control')
  const { stdout } = await runChecked('findmnt', ['--noheadings', '--output', 'MAJ:MIN', mountPath])
  await runChecked('mount', ['-t', 'fusectl', 'none', control])
  try {
    const connection = stdout.trim().replace(/^.*:/u, '')
    writeFileSync(join(control, connection, 'max_background'), String(IN_FLIGHT_MAX))
  } finally {
    await runChecked('umount', [control])
  }
}

async function serve(disk: HeldDisk, socket: Socket): Promise<void> {
  const take = reader(socket)
  const way = await negotiate(disk, socket, take)
  for (;;) {
    const header = await take(28)
    if (header.readUInt32BE(0) !== REQUEST_MAGIC) throw new Error('a request without its magic number')
    const cookie = header.subarray(8, 16)
    const offset = Number(header.readBigUInt64BE(16))
    const length = header.readUInt32BE(24)
    const answer = (error = 0, data: Buffer = Buffer.alloc(0)): void => {
      const reply = Buffer.alloc(16)
      reply.writeUInt32BE(SIMPLE_REPLY_MAGIC, 0)
      reply.writeUInt32BE(error, 4)
      cookie.copy(reply, 8)
      if (!socket.destroyed) socket.write(Buffer.concat([reply, data]))
    }
    switch (header.readUInt16BE(6)) {
      case COMMANDS.READ:
        answer(0, disk.content.subarray(offset, offset + length))
        break
      case COMMANDS.WRITE:
        disk.take(way, offset, await take(length), answer)
        break
      case COMMANDS.FLUSH:
        answer()
        break
      case COMMANDS.DISC:
        socket.end()
        return
      default:
        answer(EINVAL)
    }
  }
}

/** Returns the name of the export. */
async function negotiate(disk: HeldDisk, socket: Socket, take: Take): Promise<string> {
  socket.write(Buffer.concat([Buffer.from('NBDMAGICIHAVEOPT'), Buffer.from([0, 3])]))
  await take(4)
  for (;;) {
    const header = await take(16)
    if (header.readBigUInt64BE(0) !== OPTION_MAGIC) throw new Error('an option without its magic number')
    const option = header.readUInt32BE(8)
    const data = await take(header.readUInt32BE(12))
    const reply = (type: number, payload = Buffer.alloc(0)): void => {
      const head = Buffer.alloc(20)
      head.writeBigUInt64BE(OPTION_REPLY_MAGIC, 0)
      head.writeUInt32BE(option, 8)
      head.writeUInt32BE(type, 12)
      head.writeUInt32BE(payload.length, 16)
      socket.write(Buffer.concat([head, payload]))
    }
    if (option !== OPTION_GO) {
      reply(REPLY_UNSUPPORTED)
      continue
    }
    const information = Buffer.alloc(12)
    information.writeBigUInt64BE(BigInt(disk.content.length), 2)
    information.writeUInt16BE(TRANSMISSION_FLAGS, 10)
    reply(REPLY_INFO, information)
    reply(REPLY_ACK)
    return data.toString('utf8', 4, 4 + data.readUInt32BE(0))
  }
}

/** Rejects when the connection has ended before so much came. */
function reader(socket: Socket): Take {
  const parts = socket[Symbol.asyncIterator]() as AsyncIterator<Buffer>
  let heard = Buffer.alloc(0)
  return async (length) => {
    while (heard.length < length) {
      const part = await parts.next()
      if (part.done === true) throw new Error('the connection has ended')
      heard = Buffer.concat([heard, part.value])
    }
    const bytes = Buffer.from(heard.subarray(0, length))
    heard = heard.subarray(length)
    return bytes
  }
}
