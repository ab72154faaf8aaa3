/**
 * Two hosts over one image for tests of ownership: real daemons with state directories of their own, the record read from
 * its files, and refusals as the problem documents that an operator gets.
 */

import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import type { OwnershipRecord } from '../../src/ownership/home.ts'
import type { Daemon, DaemonOptions } from '../support/daemon.ts'
import { startDaemon } from '../support/daemon.ts'
import type { Scratch } from '../support/scratch.ts'

export const BLOCK = Buffer.alloc(4096, 0xab)

/** A daemon that serves the image as `vda`, with its record beside it. */
export function startHost(scratch: Scratch, path: string, options: Partial<DaemonOptions> = {}): Promise<Daemon> {
  const exports = [{ name: 'vda', path }]
  return startDaemon(scratch, { exports, ownership: 'directory', engine: 'file', tcp: false, ...options })
}

/** Oldest first. */
export function recordsOf(path: string): OwnershipRecord[] {
  const folder = `${path}.interlock`
  const names = readdirSync(folder).filter((name) => name.endsWith('.json'))
  return names.sort().map((name) => JSON.parse(readFileSync(join(folder, name), 'utf8')) as OwnershipRecord)
}

export function newestOf(path: string): OwnershipRecord {
  const newest = recordsOf(path).at(-1)
  if (newest === undefined) throw new Error('there is no record')
  return newest
}

/** The problem with which a verb is refused; the test fails where it is not. */
export async function refusal(daemon: Daemon, verb: string, body: object = {}): Promise<Record<string, unknown>> {
  const { status, body: problem } = await daemon.api('POST', `/exports/vda/${verb}`, body)
  expect(status).toBeGreaterThanOrEqual(400)
  return problem as Record<string, unknown>
}
