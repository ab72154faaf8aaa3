/**
 * What a blocking thread runs. Calls of all lines are taken in the order in which their messages arrive; each is answered
 * on its own line before the next begins.
 */

import { parentPort, receiveMessageOnPort } from 'node:worker_threads'
import type { MessagePort } from 'node:worker_threads'
import { present } from '../foundation/assert.ts'
import type { BlockingReply, BlockingRequest } from './blocking-port.ts'
import type { ThreadMessage } from './blocking-thread.ts'
import { perform } from './calls.ts'

const parent = present(parentPort, 'the port of a worker thread')
const lines = new Set<MessagePort>()

parent.on('message', (message: ThreadMessage) => {
  if (message.kind === 'line') serve(message.port)
  else leave()
})

function serve(port: MessagePort): void {
  lines.add(port)
  port.on('message', (request: BlockingRequest) => {
    answer(port, request)
  })
  port.on('close', () => {
    lines.delete(port)
  })
}

function answer(port: MessagePort, request: BlockingRequest): void {
  const reply: BlockingReply = { id: request.id, result: perform(request.call) }
  port.postMessage(reply)
}

/** Runs what was asked before, then closes every port: with its last one the thread ends by itself. */
function leave(): void {
  for (const port of lines) {
    let received = receiveMessageOnPort(port)
    while (received !== undefined) {
      answer(port, received.message as BlockingRequest)
      received = receiveMessageOnPort(port)
    }
    port.close()
  }
  parent.close()
}
