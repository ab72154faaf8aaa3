/**
 * A TCP port of the loopback that nobody listens on, for programs that cannot be told to take any. Our own daemon can
 * (port 0), and should. Another process may take the port in between: that is rare, and seen at once.
 */

import { once } from 'node:events'
import { createServer } from 'node:net'

export async function freePort(): Promise<number> {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new Error('a TCP server has no port')
  return address.port
}
