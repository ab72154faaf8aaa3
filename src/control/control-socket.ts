/**
 * A control server's Unix socket: the folder is made when it is not there, the path is claimed and published as every
 * socket of this program is (a lock beside it, a temporary name, a rename), and only owner and group may connect.
 */

import { mkdir } from 'node:fs/promises'
import type { Server } from 'node:net'
import { dirname } from 'node:path'
import { SocketPath } from '../intake/socket-path.ts'

const SOCKET_MODE = 0o660

/** Undoes the listening at the path. */
export type RemoveSocket = () => void

/** Rejects with a Refusal where the path belongs to somebody who lives, and with the system's error otherwise. */
export async function listenOnSocket(server: Server, path: string): Promise<RemoveSocket> {
  await mkdir(dirname(path), { recursive: true, mode: 0o755 })
  const place = await SocketPath.claim(path)
  try {
    await bind(server, place.temporaryPath)
    place.publish(SOCKET_MODE)
  } catch (error) {
    place.release()
    throw error
  }
  return () => {
    place.release()
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
