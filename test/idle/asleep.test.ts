/**
 * An idle daemon sleeps: with an export open, its record watched and clients connected that ask for nothing, its threads
 * together wake a few times a second. How often is the kernel's own count of the times a thread went to sleep by itself.
 */

import { readFileSync, readdirSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { ENGINES, startDaemon } from '../support/daemon.ts'
import { MEBIBYTE, makeImage } from '../support/image.ts'
import { connectFrontend } from '../support/nbd-frontend.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'

const CONNECTIONS = 4
const LOOK_MS = 4_000
/** The watch of the record is one look a second and the worker's clock four; a clock of 10 ms would be two hundred. */
const WAKES_PER_SECOND_MAX = 60

/** How often the threads of a process went to sleep until now, those that have ended left out. */
function sleeps(pid: number): number {
  let total = 0
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    const status = readFileSync(`/proc/${pid}/task/${thread}/status`, 'utf8')
    total += Number(/^voluntary_ctxt_switches:\s+(\d+)$/mu.exec(status)?.[1])
  }
  return total
}

describe.each(ENGINES)('an idle daemon, with the %s engine', (engine) => {
  test('sleeps', { timeout: 60_000 }, async () => {
    const scratch = scratchOfTest()
    const path = makeImage(scratch, MEBIBYTE)
    const daemon = await startDaemon(scratch, { engine, exports: [{ name: 'vda', path, clients: 'shared' }] })
    for (let index = 0; index < CONNECTIONS; index += 1) await connectFrontend(scratch, daemon.address, 'vda')
    // What the start needed has come to rest, and threads that are not kept have left.
    await sleep(4_000)
    const before = sleeps(daemon.pid)
    await sleep(LOOK_MS)
    const wakesPerSecond = ((sleeps(daemon.pid) - before) / LOOK_MS) * 1_000
    expect(wakesPerSecond).toBeGreaterThan(0)
    expect(wakesPerSecond).toBeLessThan(WAKES_PER_SECOND_MAX)
  })
})
