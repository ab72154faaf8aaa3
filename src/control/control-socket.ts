/**
 * A listening Unix socket that appears at its path complete or not at all: bound under a temporary name, given its mode,
 * then linked to the path. Linking fails where something is already, so nobody's living socket is ever replaced. A dead
 * one (nobody accepts) is first moved aside and asked once more there: whoever came in between is found alive and put
 * back. On close the path is removed only if it is still ours.
 */

import { randomBytes } from 'node:crypto'
import { chmod, link, lstat, mkdir, rename, unlink } from 'node:fs/promises'
import { createConnection } from 'node:net'
import type { Server } from 'node:net'
import { dirname, join } from 'node:path'
import { SOCKET_PATH_BYTES_MAX } from '../foundation/endpoint.ts'

const SOCKET_MODE = 0o660

/** Why a socket cannot be made there; for the operator. */
export class ListenFailure extends Error {
  override readonly name = 'ListenFailure'
}

/** Undoes the listening at the path. */
export type RemoveSocket = () => Promise<void>

export async function listenOnSocket(server: Server, path: string): Promise<RemoveSocket> {
  const folder = dirname(path)
  await mkdir(folder, { recursive: true, mode: 0o755 })
  const temporary = temporaryNameIn(folder)
  await bind(server, temporary)
  try {
    await chmod(temporary, SOCKET_MODE)
    await publish(temporary, path)
    const { ino, dev } = await lstat(path)
    return async () => {
      const found = await lstat(path).catch(() => undefined)
      if (found?.ino === ino && found.dev === dev) await unlinkIfThere(path)
    }
  } finally {
    await unlinkIfThere(temporary)
  }
}

async function bind(server: Server, path: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(path, () => {
      server.removeListener('error', reject)
      resolve()
    })
  })
}

async function publish(temporary: string, path: string): Promise<void> {
  try {
    await link(temporary, path)
    return
  } catch (error) {
    if (errorCode(error) !== 'EEXIST') throw error
  }
  await removeDeadSocket(path)
  try {
    await link(temporary, path)
  } catch (error) {
    if (errorCode(error) !== 'EEXIST') throw error
    throw new ListenFailure(`${path}: another process began to listen there at the same time`)
  }
}

async function removeDeadSocket(path: string): Promise<void> {
  const found = await lstat(path).catch(() => undefined)
  if (found === undefined) return
  if (!found.isSocket()) throw new ListenFailure(`${path}: something that is not a socket is there`)
  if (await isAlive(path)) throw new ListenFailure(`${path}: another process listens there`)
  const aside = temporaryNameIn(dirname(path))
  try {
    await rename(path, aside)
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return
    throw error
  }
  if (await isAlive(aside)) {
    await link(aside, path)
    await unlinkIfThere(aside)
    throw new ListenFailure(`${path}: another process began to listen there at the same time`)
  }
  await unlinkIfThere(aside)
}

/** Only a refused connection proves that nobody listens; anything else counts as alive. */
async function isAlive(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection(path)
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', (error) => {
      const code = errorCode(error)
      resolve(code !== 'ECONNREFUSED' && code !== 'ENOENT')
    })
  })
}

function temporaryNameIn(folder: string): string {
  const name = join(folder, `.${randomBytes(4).toString('hex')}`)
  if (Buffer.byteLength(name) <= SOCKET_PATH_BYTES_MAX) return name
  throw new ListenFailure(`${folder}: the path is too long for a socket and its temporary name`)
}

async function unlinkIfThere(path: string): Promise<void> {
  try {
    await unlink(path)
  } catch (error) {
    if (errorCode(error) !== 'ENOENT') throw error
  }
}

function errorCode(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined
}
