/** Starts the rig, speaks with it, and understands what it says. Every socket made here ends with the running test. */

import { once } from 'node:events'
import { createConnection } from 'node:net'
import type { NetConnectOpts, Socket } from 'node:net'
import { fileURLToPath } from 'node:url'
import { onTestFinished } from 'vitest'
import { spawnNode } from '../support/child-process.ts'
import type { Program } from '../support/foreign-program.ts'

const RIG = fileURLToPath(new URL('intake-rig.mjs', import.meta.url))

/** Of the one export that the rig offers; long, so that questions have long answers. */
export const DESCRIPTION_BYTES = 3900

export interface RigOptions {
  readonly url: string
  readonly handshakeTimeoutMs?: number
  readonly connectionsMax?: number
  readonly socketMode?: number
}

export type Said = Readonly<Record<string, unknown>>

export class IntakeProcess {
  readonly program: Program
  readonly address: string

  constructor(program: Program, address: string) {
    this.program = program
    this.address = address
  }

  /** Everything said so far that has this member. */
  said(member: string): Said[] {
    return linesOf(this.program).filter((line) => member in line)
  }

  connect(): Promise<Socket> {
    return this.connectTo(this.address)
  }

  async connectTo(address: string): Promise<Socket> {
    const socket = createConnection({ ...whereOf(address), allowHalfOpen: true })
    socket.on('error', () => undefined)
    onTestFinished(() => {
      socket.destroy()
    })
    await once(socket, 'connect')
    return socket
  }
}

export async function startIntake(options: RigOptions): Promise<IntakeProcess> {
  const program = spawnNode(RIG, [JSON.stringify(options)])
  const line = await program.until('an address', 10_000, () =>
    linesOf(program).find((said) => 'address' in said && !('log' in said)),
  )
  return new IntakeProcess(program, line['address'] as string)
}

/** For a rig that is expected not to listen: what it was refused with. */
export async function refusalOfIntake(
  options: RigOptions,
): Promise<{ readonly refused: string; readonly detail: string }> {
  const { stdout } = await spawnNode(RIG, [JSON.stringify(options)]).exited
  const line = stdout.split('\n').find((text) => text.includes('"refused"'))
  if (line === undefined) throw new Error(`the rig was not refused; it said: ${stdout}`)
  return JSON.parse(line) as { refused: string; detail: string }
}

/** All that the peer sends from now on, until it ends the connection or resets it. Called before that can happen. */
export async function readToEnd(socket: Socket): Promise<Buffer> {
  if (socket.readableEnded || socket.closed) throw new Error('the connection has ended already')
  const pieces: Buffer[] = []
  socket.on('data', (bytes: Buffer) => pieces.push(bytes))
  await new Promise<void>((resolve) => {
    socket.once('end', resolve)
    socket.once('close', () => {
      resolve()
    })
  })
  return Buffer.concat(pieces)
}

function linesOf(program: Program): Said[] {
  const complete = program.stdout.slice(0, program.stdout.lastIndexOf('\n') + 1)
  return complete.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line) as Said]))
}

function whereOf(address: string): NetConnectOpts {
  if (address.startsWith('unix:')) return { path: address.slice('unix:'.length) }
  const colon = address.lastIndexOf(':')
  return { host: address.slice('tcp:'.length, colon).replace(/[[\]]/g, ''), port: Number(address.slice(colon + 1)) }
}
