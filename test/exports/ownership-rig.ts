/**
 * Two hosts over one image for tests of ownership: real daemons with state directories of their own, their records, and
 * refusals as the problem documents that an operator gets. The records lie beside the image, unless whoever runs the tests
 * has put them elsewhere: the same tests run over every home.
 */

import { readdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { DirectoryHome } from '../../src/ownership/directory-home.ts'
import type { OwnershipRecord, RecordHome } from '../../src/ownership/home.ts'
import { inlineRunner } from '../blocking/inline-runner.ts'
import type { Daemon, DaemonOptions } from '../support/daemon.ts'
import { startDaemon } from '../support/daemon.ts'
import type { Scratch } from '../support/scratch.ts'

export const BLOCK = Buffer.alloc(4096, 0xab)

/** Where records of images lie, by the id of the image. */
export interface RecordPlace {
  readonly ownership: 'directory' | 'etcd'
  /** Further lines of [ownership]. */
  readonly settings: readonly string[]
  /** Oldest first, read by other means than ours. */
  records(imageId: string): OwnershipRecord[]
  /** Of these the last, if there is any. */
  newest(imageId: string): OwnershipRecord | undefined
  home(imageId: string): RecordHome
  /** What is no record becomes the newest. */
  spoil(imageId: string): void
  /** As if nobody had ever opened it. */
  forget(imageId: string): void
}

export interface RecordPlaces {
  /** Of an image without a declared id, which is exported as `vda`. */
  ofImage(realPath: string): RecordPlace
  /** One of its own. */
  apart(scratch: Scratch): RecordPlace
}

const NO_RECORD = '{"format":"interlockd-record","version":1'

function folderPlace(settings: readonly string[], folderOf: (imageId: string) => string): RecordPlace {
  const records = (imageId: string): OwnershipRecord[] => {
    const folder = folderOf(imageId)
    const names = readdirSync(folder).filter((name) => name.endsWith('.json'))
    return names.sort().flatMap((name) => recordIn(join(folder, name)))
  }
  return {
    ownership: 'directory',
    settings,
    records,
    newest: (imageId) => records(imageId).at(-1),
    home: (imageId) => DirectoryHome.at(inlineRunner, folderOf(imageId)),
    spoil: (imageId) => {
      const next = String((records(imageId).at(-1)?.sequence ?? 0) + 1).padStart(16, '0')
      writeFileSync(join(folderOf(imageId), `${next}.json`), NO_RECORD)
    },
    forget: (imageId) => {
      rmSync(folderOf(imageId), { recursive: true })
    },
  }
}

/** What a test has spoiled is no record. */
function recordIn(file: string): OwnershipRecord[] {
  const text = readFileSync(file, 'utf8')
  return text.startsWith(NO_RECORD) ? [] : [JSON.parse(text) as OwnershipRecord]
}

const directories: RecordPlaces = {
  ofImage: (realPath) => folderPlace([], () => `${realPath}.interlock`),
  apart: (scratch) => {
    const directory = scratch.directory('records')
    return folderPlace([`directory = ${JSON.stringify(directory)}`], (imageId) => join(directory, imageId))
  },
}

let places = directories

/** Called before the tests run, by a file that runs them over another home. */
export function keepRecordsIn(elsewhere: RecordPlaces): void {
  places = elsewhere
}

export function placeApart(scratch: Scratch): RecordPlace {
  return places.apart(scratch)
}

export function placeOf(path: string): RecordPlace {
  return places.ofImage(realpathSync(path))
}

/** A daemon that serves the image as `vda`, with its record where the records are. */
export function startHost(scratch: Scratch, path: string, options: Partial<DaemonOptions> = {}): Promise<Daemon> {
  const exports = [{ name: 'vda', path }]
  const { ownership, settings } = placeOf(path)
  const shared =
    options.ownership === undefined
      ? { ownership, ownershipSettings: [...settings, ...(options.ownershipSettings ?? [])] }
      : {}
  return startDaemon(scratch, { exports, engine: 'file', tcp: false, ...options, ...shared })
}

/** Oldest first. */
export function recordsOf(path: string): OwnershipRecord[] {
  return placeOf(path).records('vda')
}

export function homeOf(path: string): RecordHome {
  return placeOf(path).home('vda')
}

export function newestOf(path: string): OwnershipRecord {
  const newest = placeOf(path).newest('vda')
  if (newest === undefined) throw new Error('there is no record')
  return newest
}

/** The problem with which a verb is refused; the test fails where it is not. */
export async function refusal(daemon: Daemon, verb: string, body: object = {}): Promise<Record<string, unknown>> {
  const { status, body: problem } = await daemon.api('POST', `/exports/vda/${verb}`, body)
  expect(status).toBeGreaterThanOrEqual(400)
  return problem as Record<string, unknown>
}
