/**
 * The daemon's memory is bounded whatever clients do: sixteen connections with sixty-four requests of 1 MiB each, read or
 * not, stay below what the documentation promises. The peak is the kernel's own figure.
 *
 * @module-tag slow
 */

import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { ENGINES, startDaemon } from '../support/daemon.ts'
import type { Daemon } from '../support/daemon.ts'
import { MEBIBYTE, makeImage } from '../support/image.ts'
import { connectFrontend } from '../support/nbd-frontend.ts'
import type { NbdFrontend } from '../support/nbd-frontend.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'

const CONNECTIONS = 16
const REQUESTS = 64
const RESIDENT_MIB_MAX = 200

function peakMebibytes(daemon: Daemon): number {
  const status = readFileSync(`/proc/${daemon.pid}/status`, 'utf8')
  return Number(/VmHWM:\s+(\d+) kB/u.exec(status)?.[1]) / 1024
}

/** Sixty-four reads of 1 MiB on each. */
function readEverything(frontends: readonly NbdFrontend[]): Promise<unknown>[] {
  return frontends.flatMap((frontend) =>
    Array.from({ length: REQUESTS }, (_, index) =>
      frontend.send('READ', { offset: index * MEBIBYTE, length: MEBIBYTE }).reply.catch(() => undefined),
    ),
  )
}

describe.each(ENGINES)('memory, with the %s engine', (engine) => {
  test(`stays below ${RESIDENT_MIB_MAX} MiB, also when clients do not read`, async () => {
    const scratch = scratchOfTest()
    const path = makeImage(scratch, REQUESTS * MEBIBYTE)
    const daemon = await startDaemon(scratch, { engine, exports: [{ name: 'vda', path, clients: 'shared' }] })
    // The threads that looked at the image have left.
    await sleep(2_000)
    const connectAll = (): Promise<NbdFrontend[]> =>
      Promise.all(Array.from({ length: CONNECTIONS }, () => connectFrontend(scratch, daemon.address, 'vda')))

    const readers = await connectAll()
    await Promise.all(readEverything(readers))
    const data = Buffer.alloc(MEBIBYTE, 7)
    for (let round = 0; round < 8; round += 1) {
      await Promise.all(readers.map((frontend, index) => frontend.write(index * MEBIBYTE, data).reply))
    }
    for (const frontend of readers) frontend.drop()

    const deaf = await connectAll()
    for (const frontend of deaf) frontend.stopReading()
    void readEverything(deaf)
    await sleep(1_000)
    expect(peakMebibytes(daemon)).toBeLessThan(RESIDENT_MIB_MAX)

    // What they hold is given back to those who do read.
    const late = await connectFrontend(scratch, daemon.address, 'vda')
    const whole = await late.read(0, 32 * MEBIBYTE, 60_000)
    expect(whole.length).toBe(32 * MEBIBYTE)
    expect(peakMebibytes(daemon)).toBeLessThan(RESIDENT_MIB_MAX)
  })
})
