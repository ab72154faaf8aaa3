/**
 * Two hosts over one image for tests of ownership: real daemons with state directories of their own, their records, and
 * refusals as the problem documents that an operator gets. The records lie beside the image, unless whoever runs the tests
 * has put them elsewhere: the same tests run over every home.
 */

import {
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { DirectoryHome } from '../../src/ownership/directory-home.ts'
import type { OwnershipRecord, RecordHome } from '../../src/ownership/home.ts'
import { inlineRunner } from '../blocking/inline-runner.ts'
import type { Daemon, DaemonOptions } from '../support/daemon.ts'
import { startDaemon } from '../support/daemon.ts'
import type { Scratch } from '../support/scratch.ts'
import { mountFreezable } from './freezable.ts'

export const BLOCK = Buffer.alloc(4096, 0xab)

export type HomeName = 'directory' | 'etcd'

/** Where records of images lie, by the id of the image. */
export interface RecordPlace {
  readonly ownership: HomeName
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

/** Where the records of `vda` can be kept from being written, and those of others go on. */
export interface StallingPlace {
  readonly place: RecordPlace
  stall(stalled: boolean): Promise<void>
}

/** One that can go out of everybody's reach, and come back with what it had. */
export interface PassingPlace {
  readonly place: RecordPlace
  leave(): Promise<void>
  comeBack(): Promise<void>
}

export interface RecordPlaces {
  readonly ownership: HomeName
  /** Of an image without a declared id, which is exported as `vda`. */
  ofImage(realPath: string): RecordPlace
  /** One of its own. */
  apart(scratch: Scratch): RecordPlace
  /** One whose bytes are in that directory, of whichever disk. */
  within(scratch: Scratch, directory: string): Promise<RecordPlace>
  stalling(scratch: Scratch): Promise<StallingPlace>
  passing(scratch: Scratch): Promise<PassingPlace>
}

/** As a crash of the disk, or a hand, leaves it. */
export const NO_RECORD = '{"format":"interlockd-record","version":1'

function folderPlace(settings: readonly string[], folderOf: (imageId: string) => string): RecordPlace {
  const records = (imageId: string): OwnershipRecord[] => {
    const folder = folderOf(imageId)
    const names = readdirSync(folder).filter((name) => name.endsWith('.json'))
    const texts = names.sort().map((name) => readUnlessPruned(join(folder, name)))
    return recordsIn(texts.filter((text) => text !== null))
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

/** A daemon that records something just now may remove what is old. */
function readUnlessPruned(path: string): string | null {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw error
  }
}

/** What a test has spoiled is no record. */
export function recordsIn(texts: readonly string[]): OwnershipRecord[] {
  return texts.filter((text) => text !== NO_RECORD).map((text) => JSON.parse(text) as OwnershipRecord)
}

function folderPlaceIn(directory: string): RecordPlace {
  return folderPlace([`directory = ${JSON.stringify(directory)}`], (imageId) => join(directory, imageId))
}

const directories: RecordPlaces = {
  ownership: 'directory',
  ofImage: (realPath) => folderPlace([], () => `${realPath}.interlock`),
  apart: (scratch) => folderPlaceIn(scratch.directory('records')),
  within: (_scratch, directory) => Promise.resolve(folderPlaceIn(directory)),
  stalling: async (scratch) => {
    const directory = scratch.directory('records')
    const fileSystem = await mountFreezable(scratch)
    symlinkSync(fileSystem.path, join(directory, 'vda'))
    return { place: folderPlaceIn(directory), stall: (stalled) => fileSystem.freeze(stalled) }
  },
  passing: (scratch) => {
    const directory = scratch.directory('records')
    const away = join(scratch.directory('away'), 'records')
    const leave = (): Promise<void> => {
      renameSync(directory, away)
      writeFileSync(directory, '')
      return Promise.resolve()
    }
    const comeBack = (): Promise<void> => {
      unlinkSync(directory)
      renameSync(away, directory)
      return Promise.resolve()
    }
    return Promise.resolve({ place: folderPlaceIn(directory), leave, comeBack })
  },
}

let places = directories

/** Called before the tests run, by a file that runs them over another home. */
export function keepRecordsIn(elsewhere: RecordPlaces): void {
  places = elsewhere
}

/** For tests that share what they do between the homes. */
export function homeOfRecords(): HomeName {
  return places.ownership
}

export function placeApart(scratch: Scratch): RecordPlace {
  return places.apart(scratch)
}

/** In what is on that disk alone. */
export function placeWithin(scratch: Scratch, directory: string): Promise<RecordPlace> {
  return places.within(scratch, directory)
}

export function stallingPlace(scratch: Scratch): Promise<StallingPlace> {
  return places.stalling(scratch)
}

export function passingPlace(scratch: Scratch): Promise<PassingPlace> {
  return places.passing(scratch)
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

/** As another host would that had opened the next generation. */
export async function openElsewhere(path: string): Promise<void> {
  const { sequence, imageId, image, generation, holder } = newestOf(path)
  const thief = { ...holder, host: 'f'.repeat(32), openToken: 'f'.repeat(32), name: 'thief' }
  const draft = { imageId, image, generation: generation + 1, state: 'open', holder: thief } as const
  const rest = { closeReason: null, receipt: null, draining: [], intent: null, cleared: null }
  expect((await homeOf(path).compareAndSwap(sequence, { ...draft, ...rest })).won).toBe(true)
}

/** The problem with which a verb is refused; the test fails where it is not. */
export async function refusal(daemon: Daemon, verb: string, body: object = {}): Promise<Record<string, unknown>> {
  const { status, body: problem } = await daemon.api('POST', `/exports/vda/${verb}`, body)
  expect(status).toBeGreaterThanOrEqual(400)
  return problem as Record<string, unknown>
}

export async function adopt(daemon: Daemon, ...flags: string[]): Promise<void> {
  const { status, stderr } = await daemon.ctl(['adopt', 'vda', ...flags])
  expect([status, stderr]).toEqual([0, ''])
}

export async function refusedToAdopt(daemon: Daemon, ...flags: string[]): Promise<{ code: string; detail: string }> {
  const { status, stderr } = await daemon.ctl(['adopt', 'vda', ...flags])
  expect(status).toBe(3)
  return JSON.parse(stderr) as { code: string; detail: string }
}
