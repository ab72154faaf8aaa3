/**
 * The server that everybody has: reads requests, writes them, answers, and knows nothing of any other host. It stands in
 * for every NBD server without an interlock in `npm run demo -- --without-interlock`. The protocol is the project's own;
 * what is missing is everything else: no gate, no ledger, no record, no close.
 *
 * Usage: server-without-interlock SOCKET IMAGE
 */

import { openSync, fstatSync, readSync, writeSync } from 'node:fs'
import { createServer } from 'node:net'
import type { Socket } from 'node:net'
import { NBD_CMD_DISC, NBD_CMD_READ, NBD_CMD_WRITE } from '../src/nbd/constants.ts'
import { DEFAULT_NEGOTIATION_LIMITS, Negotiation } from '../src/nbd/negotiation.ts'
import { servedAbilities, transmissionFlags } from '../src/nbd/transmission-flags.ts'

const [, , socketPath = '', imagePath = ''] = process.argv
const image = openSync(imagePath, 'rs+')
const sizeBytes = fstatSync(image).size

const catalogue = {
  list: () => [{ name: 'vda', description: '' }],
  offer: (name: string) => ({
    name,
    description: '',
    sizeBytes,
    transmissionFlags: transmissionFlags(servedAbilities(false, false)),
    preferredBlockBytes: 4096,
    minimumBlockBytes: 1,
  }),
}

createServer(serve).listen(socketPath, () => {
  console.log(JSON.stringify({ msg: 'ready' }))
})

function serve(socket: Socket): void {
  const negotiation = new Negotiation(catalogue, DEFAULT_NEGOTIATION_LIMITS)
  let pending: Buffer = Buffer.alloc(0)
  let transmitting = false
  const follow = (decisions: ReturnType<Negotiation['receive']>): void => {
    for (const decision of decisions) {
      if (decision.kind === 'send') socket.write(decision.bytes)
      if (decision.kind === 'close') socket.end()
      if (decision.kind === 'transmission') {
        transmitting = true
        pending = Buffer.from(decision.unread)
      }
    }
  }
  socket.write(negotiation.greeting())
  socket.on('error', () => undefined)
  socket.on('data', (bytes) => {
    if (transmitting) pending = Buffer.concat([pending, bytes])
    else follow(negotiation.receive(bytes))
    if (transmitting) pending = answerAll(socket, pending)
  })
}

/** Serves every whole request; returns what is left. */
function answerAll(socket: Socket, bytes: Buffer): Buffer {
  let rest = bytes
  while (rest.length >= 28) {
    const command = rest.readUInt16BE(6)
    const offset = Number(rest.readBigUInt64BE(16))
    const length = rest.readUInt32BE(24)
    const payload = command === NBD_CMD_WRITE ? length : 0
    if (rest.length < 28 + payload) break
    if (command === NBD_CMD_DISC) {
      socket.end()
      break
    }
    const reply = Buffer.alloc(16 + (command === NBD_CMD_READ ? length : 0))
    reply.writeUInt32BE(0x67446698, 0)
    rest.copy(reply, 8, 8, 16)
    if (command === NBD_CMD_WRITE) writeSync(image, rest, 28, length, offset)
    if (command === NBD_CMD_READ) readSync(image, reply, 16, length, offset)
    socket.write(reply)
    rest = rest.subarray(28 + payload)
  }
  return rest
}
