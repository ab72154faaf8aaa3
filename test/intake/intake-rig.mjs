/**
 * A process with one listener from dist/, for the tests that connect to it and kill it. A connection that comes out of
 * the negotiation is adopted by its bare descriptor, read to its end, and answered with what was read: the SHA-256 and
 * the number of all bytes after the negotiation. What happens is printed, one JSON value a line. SIGTERM closes the
 * listener; then the process ends by itself once its connections have.
 *
 * Argument: {"url", "handshakeTimeoutMs"?, "connectionsMax"?, "socketMode"?}
 */

import { createHash } from 'node:crypto'
import { Socket } from 'node:net'
import { ConnectionAllowance } from '../../dist/intake/connection-allowance.js'
import { Listener } from '../../dist/intake/listener.js'

const { url, connectionsMax = 1024, ...options } = JSON.parse(process.argv[2])

const say = (value) => {
  console.log(JSON.stringify(value))
}

const offer = {
  name: 'vda',
  description: 'd'.repeat(3900),
  sizeBytes: 1 << 30,
  transmissionFlags: 0x0c6d,
  preferredBlockBytes: 4096,
  minimumBlockBytes: 1,
}
const catalogue = {
  list: () => [offer],
  offer: (name) =>
    name === 'vda' ? offer : { refused: name === 'gone' ? 'shutdown' : 'unknown', message: `no '${name}' here` },
}

const log = Object.fromEntries(
  ['debug', 'info', 'warn'].map((level) => [
    level,
    (fields, message) => {
      if (level !== 'debug' || message !== 'negotiated') say({ log: level, message, ...fields })
    },
  ]),
)

let transmitting = 0
let closed = false

const onConnection = ({ descriptor, unread, terms, ...connection }) => {
  say({
    adopted: { ...connection, unreadBytes: unread.length, memoryBytes: unread.buffer.byteLength },
    afterClose: closed,
  })
  transmitting += 1
  const hash = createHash('sha256').update(unread)
  let lengthBytes = unread.length
  const socket = new Socket({ fd: descriptor, allowHalfOpen: true })
  socket.on('data', (bytes) => {
    hash.update(bytes)
    lengthBytes += bytes.length
  })
  socket.on('end', () => {
    const answer = Buffer.alloc(40)
    hash.digest().copy(answer)
    answer.writeBigUInt64BE(BigInt(lengthBytes), 32)
    socket.end(answer)
  })
  socket.on('error', (error) => {
    say({ failed: error.message, export: terms.exportName })
  })
  socket.on('close', () => {
    transmitting -= 1
  })
}

const allowance = new ConnectionAllowance(connectionsMax, () => transmitting)
const listener = new Listener({ catalogue, onConnection, log, allowance, ...options })
process.once('SIGTERM', () => {
  void listener.close().then(() => {
    closed = true
    say({ closed: true, negotiating: allowance.negotiating })
  })
})
try {
  await listener.listen(url)
  say({ address: listener.address })
} catch (error) {
  say({ refused: error.code, detail: error.message })
  await listener.close()
}
