/**
 * Takes a connected socket out of Node's hands as a bare descriptor, with every byte that Node has read and nobody has
 * consumed. All of it happens in one synchronous block, because the peer may be sending all the while:
 *
 * 1. The descriptor is duplicated, so that destroying Node's socket neither closes the connection nor tells the peer.
 * 2. Reading stops: in the stream, and in the handle below it.
 * 3. What the stream holds is read to the end. This may start the handle again, but no byte arrives before the event
 *    loop turns, and by then
 * 4. the socket is destroyed.
 *
 * Only when all that was written has been flushed: what Node still holds to be written would be lost.
 */

import type { Socket } from 'node:net'
import { assert } from '../foundation/assert.ts'
import { duplicateDescriptor } from '../posix/descriptor.ts'

/** The part of node:net that has no public name; tested against each version of Node that is supported. */
interface HandleOfSocket {
  readonly fd: number
  readStop(): number
}

export interface ReleasedSocket {
  readonly descriptor: number
  /** In the order in which they came. */
  readonly pieces: readonly Uint8Array[]
}

/** The descriptor below the socket, which stays the socket's; undefined when it is closed. */
export function descriptorOf(socket: Socket): number | undefined {
  const handle = handleOf(socket)
  return handle === undefined || handle.fd < 0 ? undefined : handle.fd
}

/**
 * The caller owns the descriptor from here on, and Node's socket is destroyed whatever the outcome. A negative errno
 * when there is no descriptor to be had, as when this process has too many; 0 when the connection is closed already.
 * Listeners of 'data' must be gone, for they would see the pieces as well.
 */
export function releaseSocket(socket: Socket): ReleasedSocket | number {
  assert(socket.writableLength === 0, 'all that was written is flushed')
  assert(socket.listenerCount('data') === 0, 'nobody else reads')
  const handle = handleOf(socket)
  if (handle === undefined || handle.fd < 0) return 0
  const descriptor = duplicateDescriptor(handle.fd)
  socket.pause()
  handle.readStop()
  const pieces: Uint8Array[] = []
  for (let piece = readPiece(socket); piece !== null; piece = readPiece(socket)) pieces.push(piece)
  socket.destroy()
  return descriptor < 0 ? descriptor : { descriptor, pieces }
}

function handleOf(socket: Socket): HandleOfSocket | undefined {
  return (socket as unknown as { readonly _handle: HandleOfSocket | null })._handle ?? undefined
}

function readPiece(socket: Socket): Uint8Array | null {
  return socket.read() as Uint8Array | null
}
