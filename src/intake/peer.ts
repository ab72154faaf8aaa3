/**
 * Who is at the other end of an accepted socket: once for people to read, once as an identity that stays the same when
 * the peer reconnects. A TCP peer is its address, a Unix peer its user and process. An identity is good for telling an
 * old connection of a client from a new one; it authenticates nobody.
 */

import type { Socket } from 'node:net'
import { peerCredentials } from '../posix/socket.ts'
import { descriptorOf } from './socket-handover.ts'

export interface Peer {
  /** "127.0.0.1:4711", "[fe80::1]:4711", or "unix:pid=12,uid=0". */
  readonly label: string
  /** "127.0.0.1", or "uid:pid". */
  readonly identity: string
}

/** Undefined when the peer is gone already. */
export function identifyPeer(socket: Socket, scheme: 'unix' | 'tcp'): Peer | undefined {
  return scheme === 'unix' ? identifyProcess(socket) : identifyAddress(socket)
}

function identifyProcess(socket: Socket): Peer | undefined {
  const descriptor = descriptorOf(socket)
  if (descriptor === undefined) return undefined
  const credentials = peerCredentials(descriptor)
  if (typeof credentials === 'number') return undefined
  const { pid, uid } = credentials
  return { label: `unix:pid=${pid},uid=${uid}`, identity: `${uid}:${pid}` }
}

function identifyAddress(socket: Socket): Peer | undefined {
  const { remoteAddress, remotePort } = socket
  if (remoteAddress === undefined || remotePort === undefined) return undefined
  // A socket that listens on :: sees IPv4 peers in this form; the peer is the same one either way.
  const address = remoteAddress.replace(/^::ffff:(?=\d+\.\d+\.\d+\.\d+$)/, '')
  const host = address.includes(':') ? `[${address}]` : address
  return { label: `${host}:${remotePort}`, identity: address }
}
