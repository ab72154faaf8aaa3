/**
 * A network in which a test decides what arrives: connections to one port are passed on, the first to the first server,
 * the second to the second, and any later ones to the last. What a client sends can be kept on its way, delivered later,
 * also after the client's side of the connection was cut: the server then still finds it in its socket.
 */

import { connect, createServer } from 'node:net'
import type { Socket } from 'node:net'
import type { Scratch } from './scratch.ts'

interface Passage {
  readonly client: Socket
  readonly server: Socket
  /** What the client has sent since it was stalled; null where it is passed on. */
  kept: Buffer[] | null
}

export class Forwarder {
  readonly port: number
  readonly #passages: Passage[]

  private constructor(port: number, passages: Passage[]) {
    this.port = port
    this.#passages = passages
  }

  static async start(scratch: Scratch, serverPorts: readonly number[]): Promise<Forwarder> {
    const passages: Passage[] = []
    const server = createServer((client) => {
      const port = serverPorts[Math.min(passages.length, serverPorts.length - 1)]
      if (port === undefined) throw new Error('a forwarder needs a server')
      passages.push(pass(client, connect({ host: '127.0.0.1', port })))
    })
    await new Promise<void>((resolve) => {
      server.listen(0, '127.0.0.1', resolve)
    })
    scratch.defer('forwarder', () => {
      server.close()
      for (const passage of passages) {
        passage.client.destroy()
        passage.server.destroy()
      }
    })
    const address = server.address()
    if (address === null || typeof address === 'string') throw new Error('a TCP listener has no port')
    return new Forwarder(address.port, passages)
  }

  get connectionsCount(): number {
    return this.#passages.length
  }

  /** From now on nothing that the client sends on its connection of this number arrives. */
  stall(connection: number): void {
    this.#passage(connection).kept ??= []
  }

  keptBytes(connection: number): number {
    return (this.#passage(connection).kept ?? []).reduce((sum, bytes) => sum + bytes.length, 0)
  }

  /** The client loses the connection; the server does not know. */
  cutClient(connection: number): void {
    this.#passage(connection).client.resetAndDestroy()
  }

  /** Both ends lose it. */
  cut(connection: number): void {
    const { client, server } = this.#passage(connection)
    client.resetAndDestroy()
    server.resetAndDestroy()
  }

  /** What was kept arrives now, whoever has sent it. */
  deliver(connection: number): void {
    const passage = this.#passage(connection)
    for (const bytes of passage.kept ?? []) passage.server.write(bytes)
    passage.kept = null
  }

  #passage(connection: number): Passage {
    const passage = this.#passages[connection]
    if (passage === undefined) throw new Error(`there was no connection ${connection}`)
    return passage
  }
}

function pass(client: Socket, server: Socket): Passage {
  const passage: Passage = { client, server, kept: null }
  client.setNoDelay(true)
  server.setNoDelay(true)
  client.on('error', () => undefined)
  server.on('error', () => undefined)
  client.on('data', (bytes) => {
    if (passage.kept === null) server.write(bytes)
    else passage.kept.push(bytes)
  })
  server.on('data', (bytes) => client.write(bytes))
  // While something is kept, the server is not told that its client has gone.
  client.on('close', () => {
    if (passage.kept === null) server.destroy()
  })
  server.on('close', () => client.destroy())
  return passage
}
