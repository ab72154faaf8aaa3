/**
 * Whether a daemon stays as it is under load that never ends: requests of 4 KiB at a steady depth, over connections that
 * come and go in every way a connection can go. Its resident memory and its open descriptors are looked at once a second
 * and at the end, when every client is gone.
 *
 * The clients are ours and live in this process: what is measured is the server's process, and rates say nothing here.
 */

import { readdirSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Daemon, EngineName } from '../support/daemon.ts'
import { startDaemon } from '../support/daemon.ts'
import { eventually } from '../support/eventually.ts'
import { connectFrontend } from '../support/nbd-frontend.ts'
import type { NbdFrontend } from '../support/nbd-frontend.ts'
import { Scratch } from '../support/scratch.ts'
import { SeededRandom } from '../support/seeded-random.ts'
import { EXPORT_NAME } from './contender.ts'
import { usageOf } from './process-usage.ts'
import { median } from './statistics.ts'

export interface Soak {
  readonly engine: EngineName
  readonly seconds: number
  readonly requests: number
  /** Connections that came and went. */
  readonly connections: number
  /** Open descriptors of the daemon: before the first client, and after the last. */
  readonly descriptorsBefore: number
  readonly descriptorsAfter: number
  /** Medians of the second, and of the last, tenth of the time: the first tenth warms up. */
  readonly residentEarlyBytes: number
  readonly residentLateBytes: number
  readonly residentPeakBytes: number
}

const CONNECTIONS = 4
const DEPTH_EACH = 16
const BLOCK_BYTES = 4096
const REQUESTS_PER_CONNECTION = { least: 50, most: 2_000 }
const WAYS_TO_GO = ['disconnect', 'drop', 'drop with requests in flight'] as const
const LOOK_EVERY_MS = 1_000

export async function measureSoak(
  scratch: Scratch,
  engine: EngineName,
  image: { readonly path: string; readonly sizeBytes: number },
  seconds: number,
): Promise<Soak> {
  const daemon = await startDaemon(scratch, {
    engine,
    exports: [{ name: EXPORT_NAME, path: image.path, clients: 'shared' }],
  })
  // Threads that looked at the image leave by and by; a connection that is over has been seen once.
  await (await connectFrontend(scratch, daemon.address, EXPORT_NAME)).disconnect()
  await sleep(LOOK_EVERY_MS)
  const descriptorsBefore = descriptorsOf(daemon)
  const until = performance.now() + seconds * 1000
  const loads = Array.from({ length: CONNECTIONS }, (_, index) => new ChangingClient(daemon, image.sizeBytes, index))
  const looks: number[] = []
  const looking = (async () => {
    while (performance.now() < until) {
      await sleep(Math.min(LOOK_EVERY_MS, (seconds * 1000) / 20))
      looks.push(usageOf(daemon.pid).residentBytes)
    }
  })()
  await Promise.all([...loads.map((load) => load.run(until)), looking])
  const tenth = Math.max(1, Math.floor(looks.length / 10))
  const descriptorsAfter = await settledDescriptors(daemon, descriptorsBefore)
  return {
    engine,
    seconds,
    requests: loads.reduce((sum, load) => sum + load.requests, 0),
    connections: loads.reduce((sum, load) => sum + load.connections, 0),
    descriptorsBefore,
    descriptorsAfter,
    residentEarlyBytes: median(looks.slice(tenth, 2 * tenth)),
    residentLateBytes: median(looks.slice(-tenth)),
    residentPeakBytes: usageOf(daemon.pid).residentPeakBytes,
  }
}

/** One connection after another, each with a few hundred requests and an end of its own. */
class ChangingClient {
  requests = 0
  connections = 0
  readonly #daemon: Daemon
  readonly #blocks: number
  readonly #random: SeededRandom
  readonly #data = Buffer.alloc(BLOCK_BYTES, 0x5a)

  constructor(daemon: Daemon, sizeBytes: number, seed: number) {
    this.#daemon = daemon
    this.#blocks = Math.floor(sizeBytes / BLOCK_BYTES)
    this.#random = new SeededRandom(seed)
  }

  async run(until: number): Promise<void> {
    while (performance.now() < until) {
      const life = new Scratch()
      try {
        const frontend = await connectFrontend(life, this.#daemon.address, EXPORT_NAME)
        this.connections += 1
        await this.#live(frontend, until)
      } finally {
        await life.dispose()
      }
    }
  }

  async #live(frontend: NbdFrontend, until: number): Promise<void> {
    const { least, most } = REQUESTS_PER_CONNECTION
    const way = this.#random.pick(WAYS_TO_GO)
    let left = this.#random.between(least, most)
    const lane = async (): Promise<void> => {
      while (left > 0 && performance.now() < until) {
        left -= 1
        await this.#request(frontend)
        this.requests += 1
      }
    }
    await Promise.all(Array.from({ length: DEPTH_EACH }, lane))
    if (way === 'disconnect') {
      await frontend.disconnect()
      return
    }
    if (way === 'drop with requests in flight') {
      for (let count = 0; count < DEPTH_EACH; count += 1) void this.#request(frontend)
    }
    frontend.drop()
    await frontend.ended
  }

  #request(frontend: NbdFrontend): Promise<unknown> {
    const offset = this.#random.between(0, this.#blocks - 1) * BLOCK_BYTES
    if (this.#random.chance(0.5)) return frontend.send('READ', { offset, length: BLOCK_BYTES }).reply
    return frontend.write(offset, this.#data).reply
  }
}

function descriptorsOf(daemon: Daemon): number {
  return readdirSync(`/proc/${daemon.pid}/fd`).length
}

/** What is still open once it no longer falls to what it was before. */
async function settledDescriptors(daemon: Daemon, before: number): Promise<number> {
  const isBack = (): boolean => descriptorsOf(daemon) <= before
  await eventually('descriptors of clients that are gone to be closed', isBack).catch(() => undefined)
  return descriptorsOf(daemon)
}
