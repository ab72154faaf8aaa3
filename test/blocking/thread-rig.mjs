/**
 * A process with blocking threads, for the tests that start and kill it. It runs the scenario named by its first argument
 * against dist/ and prints what it saw, one JSON value a line.
 */

import { execFileSync } from 'node:child_process'
import { closeSync, constants, openSync, readdirSync } from 'node:fs'
import { performance } from 'node:perf_hooks'
import { setInterval, setTimeout } from 'node:timers'
import { Worker } from 'node:worker_threads'
import { BlockingPool } from '../../dist/blocking/blocking-pool.js'
import { BlockingThread } from '../../dist/blocking/blocking-thread.js'

const say = (value) => {
  console.log(JSON.stringify(value))
}

const outcomeOf = (promise) =>
  promise.then(
    (result) => ({ result }),
    (error) => ({ rejected: error.name }),
  )

const threadCount = () => readdirSync('/proc/self/task').length

async function until(isTrue) {
  const deadlineMs = performance.now() + 30_000
  while (!isTrue() && performance.now() < deadlineMs) await new Promise((resolve) => setTimeout(resolve, 10))
}

/** So many calls that hang: opened for writing only, a FIFO without a reader does. */
function openFifo(pool, path, count) {
  execFileSync('mkfifo', [path])
  const call = { kind: 'open', path, flags: constants.O_WRONLY, mode: 0 }
  return Array.from({ length: count }, () => pool.run(call))
}

/** How many threads a pool has started beside its first one for calls that are over at once: on a busy machine, some. */
async function startedInABurst() {
  const pool = new BlockingPool('burst', 8)
  const list = () => pool.run({ kind: 'removeFile', path: '/nonexistent/file' })
  await list()
  const before = threadCount()
  await Promise.all([list(), list(), list()])
  const started = threadCount() - before
  await pool.close()
  return started
}

const scenarios = {
  /** Calls one after the other, and several at once: answered in order. */
  async order(path) {
    const thread = new BlockingThread('order')
    const answers = []
    const calls = [
      { kind: 'createFile', path, bytes: Buffer.from('content'), mode: 0o600 },
      { kind: 'createFile', path, bytes: Buffer.from('other'), mode: 0o600 },
      { kind: 'link', existingPath: path, createdPath: `${path}.2` },
      { kind: 'removeFile', path },
      { kind: 'readFile', path: `${path}.2`, lengthBytesMax: 100 },
      { kind: 'readFile', path: `${path}.2`, lengthBytesMax: 6 },
      { kind: 'readFile', path, lengthBytesMax: 100 },
      {
        kind: 'inTurn',
        calls: [
          { kind: 'renameFile', path: `${path}.2`, renamedPath: path },
          { kind: 'removeFile', path: `${path}.2` },
          { kind: 'removeFile', path },
        ],
      },
      {
        kind: 'each',
        calls: [
          { kind: 'readLink', path: `${path}.2` },
          { kind: 'readTexts', paths: [path] },
        ],
      },
      { kind: 'removeFile', path },
    ]
    const all = calls.map(async (call, index) => {
      const result = await thread.run(call)
      answers.push(index)
      return result instanceof Uint8Array ? Buffer.from(result).toString() : result
    })
    say({ outstanding: thread.outstanding })
    say({ results: await Promise.all(all), answers, outstanding: thread.outstanding })
    await thread.close()
    say({ afterClose: await outcomeOf(thread.run({ kind: 'removeFile', path })) })
  },

  /** What was asked before `close` is done before the thread is gone. */
  async close(directory) {
    const thread = new BlockingThread('close')
    const creations = Array.from({ length: 50 }, (_, index) =>
      thread.run({ kind: 'createFile', path: `${directory}/${index}`, bytes: new Uint8Array(1), mode: 0o600 }),
    )
    await thread.close()
    say({ results: await Promise.all(creations) })
  },

  /** A worker uses a line of its own while the main thread is not there to help. */
  async line() {
    const thread = new BlockingThread('line')
    await thread.run({ kind: 'listDirectory', path: '/' })
    const port = thread.connectBlockingThread()
    const done = new Int32Array(new SharedArrayBuffer(4))
    const worker = new Worker(new URL('./line-worker.mjs', import.meta.url), {
      workerData: { port, done },
      transferList: [port],
      trackUnmanagedFds: false,
    })
    const answered = new Promise((resolve) => worker.once('message', resolve))
    say({ whileMainSlept: Atomics.wait(done, 0, 0, 20_000) })
    say(await answered)
    await thread.close()
  },

  /** A bug in the thread rejects what is outstanding and everything later. */
  async death() {
    const thread = new BlockingThread('death')
    const port = thread.connectBlockingThread()
    const lineClosed = new Promise((resolve) => port.once('close', () => resolve(true)))
    const doomed = [thread.run({ kind: 'no such call' }), thread.run({ kind: 'listDirectory', path: '/' })]
    say({ doomed: await Promise.all(doomed.map(outcomeOf)), lineClosed: await lineClosed })
    say({ later: await outcomeOf(thread.run({ kind: 'listDirectory', path: '/' })) })
    say({ failure: thread.failure?.name })
    await thread.close()
  },

  /** A pool replaces a thread that died, and starts no other for calls that need not wait for it. */
  async pool() {
    const pool = new BlockingPool('pool', 2)
    const list = () => outcomeOf(pool.run({ kind: 'removeFile', path: '/nonexistent/file' }))
    say({ doomed: await outcomeOf(pool.run({ kind: 'no such call' })) })
    const results = await Promise.all([list(), list(), list()])
    await until(() => pool.busyCount === 0)
    say({ results, afterwards: pool.busyCount })
    await pool.close()
    say({ fewest: Math.min(await startedInABurst(), await startedInABurst(), await startedInABurst()) })
  },

  /** Calls that hang get a thread each, up to the bound, and the one that found none is made once there is one. */
  async poolBound(fifoPath) {
    const pool = new BlockingPool('pool', 2)
    const stuck = openFifo(pool, fifoPath, 3)
    await until(() => pool.busyCount === 2)
    const before = threadCount()
    await new Promise((resolve) => setTimeout(resolve, 100))
    say({ busy: pool.busyCount, more: threadCount() - before })
    const reader = openSync(fifoPath, constants.O_RDONLY | constants.O_NONBLOCK)
    say({ released: (await Promise.all(stuck)).every((descriptor) => descriptor >= 0) })
    closeSync(reader)
    await pool.close()
  },

  /** A call that hangs has none of the pool's other calls behind it, however many come at once. */
  async poolStuck(fifoPath) {
    const pool = new BlockingPool('pool', 2)
    const [stuck] = openFifo(pool, fifoPath, 1)
    const calls = Array.from({ length: 20 }, () => pool.run({ kind: 'listDirectory', path: '/' }))
    const answered = await Promise.all(calls)
    say({ answered: answered.length, busy: pool.busyCount })
    // Long enough for threads to leave that are not kept.
    await new Promise((resolve) => setTimeout(resolve, 1_500))
    const before = threadCount()
    await pool.run({ kind: 'listDirectory', path: '/' })
    say({ startedLater: threadCount() - before })
    const reader = openSync(fifoPath, constants.O_RDONLY | constants.O_NONBLOCK)
    say({ released: (await stuck) >= 0 })
    closeSync(reader)
    await pool.close()
  },

  /** Threads that a moment needed leave, although calls never cease; and a close finishes what waits. */
  async poolRetires(fifoPath) {
    const pool = new BlockingPool('pool', 8)
    const before = threadCount()
    const list = () => pool.run({ kind: 'listDirectory', path: '/' })
    const stuck = openFifo(pool, fifoPath, 8)
    await until(() => pool.busyCount === 8)
    const many = threadCount() - before
    const reader = openSync(fifoPath, constants.O_RDONLY | constants.O_NONBLOCK)
    await Promise.all(stuck)
    closeSync(reader)
    const deadlineMs = performance.now() + 30_000
    while (threadCount() - before > 2 && performance.now() < deadlineMs) {
      await list()
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    say({ many: many >= 8, few: threadCount() - before <= 2 })
    const last = Array.from({ length: 64 }, list)
    await pool.close()
    say({ finished: (await Promise.all(last)).length })
  },

  /** An idle thread keeps no process alive. */
  async idle() {
    const thread = new BlockingThread('idle')
    await thread.run({ kind: 'listDirectory', path: '/' })
    say('idle')
  },

  /** A call that hangs delays neither the main thread nor another blocking thread. */
  async stuck(callText) {
    const call = JSON.parse(callText)
    const stuck = new BlockingThread('stuck')
    const other = new BlockingThread('other')
    process.on('SIGUSR2', () => say('alive'))
    void stuck.run(call).then(() => say('answered'))
    for (let round = 0; round < 20; round += 1) await other.run({ kind: 'listDirectory', path: '/' })
    say({ otherAnswered: 20, stuckOutstanding: stuck.outstanding })
    setInterval(() => undefined, 1000)
  },

  /** What a thread costs, in bytes of resident memory. */
  async memory() {
    const first = new BlockingThread('first')
    await first.run({ kind: 'listDirectory', path: '/' })
    const before = process.memoryUsage().rss
    const threads = Array.from({ length: 4 }, (_, index) => new BlockingThread(`thread ${index}`))
    for (const thread of threads) await thread.run({ kind: 'listDirectory', path: '/' })
    say({ bytesEach: (process.memoryUsage().rss - before) / threads.length })
  },
}

const [scenario, argument] = process.argv.slice(2)
await scenarios[scenario](argument)
