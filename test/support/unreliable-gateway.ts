/**
 * A forwarder before an etcd member that loses what a test wants to be lost: an answer to something that was carried out,
 * or requests on their way. Everything else passes through, streams too.
 */

import { createServer, request } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text as readText } from 'node:stream/consumers'
import type { Scratch } from './scratch.ts'

export type Fate =
  | 'pass'
  /** It is carried out, and nobody hears of it. */
  | 'loseAnswer'
  | 'loseRequest'
  /** Nothing happens, and nobody is told. */
  | 'swallow'

export interface UnreliableGateway {
  readonly endpoint: string
  /** What becomes of each request; asked when it has arrived. */
  fate: (path: string, body: string) => Fate
  /** Happens between a loss and its being noticed. */
  meanwhile: () => Promise<void>
  /** Of what was forwarded. */
  readonly forwarded: string[]
}

export async function startUnreliableGateway(scratch: Scratch, target: string): Promise<UnreliableGateway> {
  const server = createServer((incoming, outgoing) => {
    void forward(gateway, target, incoming, outgoing)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  scratch.defer('unreliable gateway', () => {
    server.closeAllConnections()
    server.close()
  })
  const { port } = server.address() as AddressInfo
  const gateway: UnreliableGateway = {
    endpoint: `http://127.0.0.1:${port}`,
    fate: () => 'pass',
    meanwhile: () => Promise.resolve(),
    forwarded: [],
  }
  return gateway
}

async function forward(
  gateway: UnreliableGateway,
  target: string,
  incoming: IncomingMessage,
  outgoing: ServerResponse,
): Promise<void> {
  const path = incoming.url ?? '/'
  const body = await readText(incoming)
  const fate = gateway.fate(path, body)
  if (fate === 'swallow') return
  if (fate === 'loseRequest') {
    outgoing.destroy()
    return
  }
  gateway.forwarded.push(path)
  const { authorization } = incoming.headers
  const headers = { 'content-type': 'application/json', ...(authorization !== undefined && { authorization }) }
  const onward = request(new URL(path, target), { method: 'POST', agent: false, headers }, (answer) => {
    if (fate === 'pass') {
      outgoing.writeHead(answer.statusCode ?? 500, answer.headers)
      answer.pipe(outgoing)
      return
    }
    void readText(answer)
      .then(() => gateway.meanwhile())
      .finally(() => outgoing.destroy())
  })
  onward.on('error', () => outgoing.destroy())
  outgoing.on('close', () => onward.destroy())
  onward.end(body)
}
