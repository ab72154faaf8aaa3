/**
 * The place in the file system where a Unix socket listens, claimed so that no moment exists in which somebody else
 * could connect who may not, and so that no living daemon loses its socket to a newcomer.
 *
 * 1. A lock on PATH.lock is held for as long as the path is claimed; the kernel frees it when the process dies.
 * 2. Under it, what is found at PATH is left behind only if it is a socket that refuses connections.
 * 3. The new socket is made under a temporary name, given its mode, and then renamed over PATH.
 * 4. PATH is removed in the end only if it is still the socket that was put there.
 */

import {
  chmodSync,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  renameSync,
  statSync,
  unlinkSync,
} from 'node:fs'
import { createConnection } from 'node:net'
import { dirname, join } from 'node:path'
import { SOCKET_PATH_BYTES_MAX } from '../foundation/endpoint.ts'
import { Refusal } from '../foundation/refusal.ts'
import { ERRNO, errnoName } from '../posix/errno.ts'
import { setLock } from '../posix/locks.ts'

const LOCK_MODE = 0o600
const LOCK_ATTEMPTS_MAX = 100

export class SocketPath {
  readonly path: string
  /** Where to listen until `publish`. */
  readonly temporaryPath: string
  readonly #lock: number
  #published: { readonly device: number; readonly inode: number } | undefined

  private constructor(path: string, temporaryPath: string, lock: number) {
    this.path = path
    this.temporaryPath = temporaryPath
    this.#lock = lock
  }

  /** Refuses when the path is too long, or belongs to somebody who lives, or cannot be used. */
  static async claim(path: string): Promise<SocketPath> {
    const temporaryPath = join(dirname(path), `.${Math.random().toString(36).slice(2, 8).padEnd(6, '0')}`)
    const lengthBytes = Math.max(Buffer.byteLength(path), Buffer.byteLength(temporaryPath))
    if (lengthBytes > SOCKET_PATH_BYTES_MAX) {
      throw new Refusal(
        'listen-failed',
        `the path ${path} needs ${lengthBytes} bytes, and a Unix socket's may have ${SOCKET_PATH_BYTES_MAX}`,
      )
    }
    const lock = lockBeside(path)
    try {
      await refuseUnlessStale(path)
      return new SocketPath(path, temporaryPath, lock)
    } catch (error) {
      dropLock(path, lock)
      throw error
    }
  }

  /** The socket at the temporary path gets its mode and takes the path's place. */
  publish(mode: number): void {
    chmodSync(this.temporaryPath, mode)
    const { dev, ino } = statSync(this.temporaryPath)
    renameSync(this.temporaryPath, this.path)
    this.#published = { device: dev, inode: ino }
  }

  /** Removes what was published, and gives the path back. Once. */
  release(): void {
    const published = this.#published
    const found = statOrAbsent(this.path)
    if (found !== undefined && published?.device === found.dev && published.inode === found.ino) removeFile(this.path)
    removeFile(this.temporaryPath)
    dropLock(this.path, this.#lock)
  }
}

/** A lock file may be removed by the one who held it between our opening and our locking it: then it is not the file. */
function lockBeside(path: string): number {
  const lockPath = `${path}.lock`
  for (let attempt = 0; attempt < LOCK_ATTEMPTS_MAX; attempt++) {
    const descriptor = openLock(lockPath)
    const result = setLock(descriptor, 'exclusive', 0n, 0n)
    if (result < 0) {
      closeSync(descriptor)
      const why = result === -ERRNO.EAGAIN || result === -ERRNO.EACCES ? 'another process holds it' : errnoName(-result)
      throw new Refusal('listen-failed', `${path} is in use: the lock ${lockPath} cannot be had (${why})`)
    }
    if (fstatSync(descriptor).ino === statOrAbsent(lockPath)?.ino) return descriptor
    closeSync(descriptor)
  }
  throw new Refusal('listen-failed', `the lock ${lockPath} is being removed all the time`)
}

function openLock(lockPath: string): number {
  try {
    return openSync(lockPath, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, LOCK_MODE)
  } catch (error) {
    throw new Refusal('listen-failed', `the lock ${lockPath} cannot be opened: ${messageOf(error)}`)
  }
}

function dropLock(path: string, lock: number): void {
  // Removed while it is locked: whoever waits for it finds out that the file is another one.
  removeFile(`${path}.lock`)
  closeSync(lock)
}

async function refuseUnlessStale(path: string): Promise<void> {
  const found = statOrAbsent(path)
  if (found === undefined) return
  if (!found.isSocket()) throw new Refusal('listen-failed', `${path} exists and is not a socket`)
  const code = await connectionError(path)
  if (code === 'ECONNREFUSED' || code === 'ENOENT') return
  const why = code === undefined ? 'somebody listens there' : `connecting to it failed with ${code}`
  throw new Refusal('listen-failed', `the socket ${path} is in use: ${why}`)
}

/** The code of the error that a connection attempt ends with; undefined when it succeeds. */
function connectionError(path: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = createConnection(path)
    socket.on('connect', () => {
      socket.destroy()
      resolve(undefined)
    })
    socket.on('error', (error: NodeJS.ErrnoException) => {
      resolve(error.code ?? error.message)
    })
  })
}

function statOrAbsent(path: string): ReturnType<typeof lstatSync> {
  return lstatSync(path, { throwIfNoEntry: false })
}

function removeFile(path: string): void {
  try {
    unlinkSync(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
