/**
 * A TCP port of the loopback that was free a moment ago, for programs that cannot choose one themselves. It is not
 * reserved: use it at once.
 */

import { createServer } from 'node:net'

export async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', resolve)
  })
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('a TCP listener has no port')
  await new Promise((resolve) => server.close(resolve))
  return address.port
}
