/** Uses the line it was given, and tells the main thread, which sleeps, only when all of it is done. */

import { parentPort, workerData } from 'node:worker_threads'
import { BlockingPort } from '../../dist/blocking/blocking-port.js'

const line = new BlockingPort(workerData.port)
const results = []
for (let round = 0; round < 10; round += 1) {
  const descriptor = await line.run({ kind: 'open', path: '/etc/passwd', flags: 0, mode: 0 })
  results.push(await line.run({ kind: 'close', descriptor }))
}
parentPort.postMessage({ results })
Atomics.store(workerData.done, 0, 1)
Atomics.notify(workerData.done, 0)
line.close()
