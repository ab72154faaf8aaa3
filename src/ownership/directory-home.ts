/**
 * The record as an append-only log of numbered files in a directory that every host sees: `IMAGE.interlock/` beside the
 * image's real path, or one folder per image id in a directory of its own. The highest number is the newest record.
 *
 *     written and fsynced under a unique name ─▶ link(2) to the next number ─▶ directory fsynced ─▶ directory listed
 *
 * 1. link(2) never replaces, also on NFS: of two that link the same number one wins. After EEXIST the nonce in the file
 *    says whose it is, because a lost reply is no lost race.
 * 2. A number above one's own means lost, however late one wakes up: numbers may have been pruned in between.
 * 3. An unreadable newest record is neither skipped nor repaired here. The newest `RECORDS_KEPT` are never removed.
 * 4. That there is no record is said of a directory of records only where it is the one that it was (records-directory.ts).
 *
 * One call at a time, or several on one thread, so that a dead file server costs one thread. There is no watching by the
 * kernel: it would not see what other hosts do, and setting it up can hang the thread that asks. The directory is listed
 * again and again instead, by a watch that all homes of a daemon share.
 */

import { randomBytes } from 'node:crypto'
import { dirname, join } from 'node:path'
import type { BlockingRunner } from '../blocking/calls.ts'
import { assert, present } from '../foundation/assert.ts'
import { Refusal } from '../foundation/refusal.ts'
import { ERRNO, errnoName } from '../posix/errno.ts'
import { DirectoryWatch } from './directory-watch.ts'
import { RECORD_VERSION } from './home.ts'
import type { Newest, OwnershipRecord, RecordDraft, RecordHome, SwapOutcome } from './home.ts'
import { decodeRecord, encodeRecord, RECORD_BYTES_MAX } from './record-format.ts'
import type { RecordsDirectory } from './records-directory.ts'
import { runSteps } from './steps.ts'

/** As many of the newest records stay, for operators and for whoever links late. */
export const RECORDS_KEPT = 64
export const FOLDER_SUFFIX = '.interlock'
const ASIDE_SUFFIX = '.unreadable'
const NUMBER_DIGITS = 16
const RECORD_NAME = /^(?!0{16})(\d{16})\.json$/
const TEMPORARY_NAME = /^\.(\d{16})\.[0-9a-f]{32}$/
const FILE_MODE = 0o600
const FOLDER_MODE = 0o700
/** So many are removed at once, on one way to the thread; fewer than that stay for now, beside those that are kept. */
export const PRUNED_AT_ONCE = 16
const VANISHED_MAX = 16

/** Beside the image, or in a directory that must exist. */
export type DirectoryPlace =
  | { readonly kind: 'beside' }
  | { readonly kind: 'under'; readonly directory: RecordsDirectory; readonly imageId: string }

interface Written {
  readonly linked: boolean
  readonly names: readonly string[]
}

export class DirectoryHome implements RecordHome {
  readonly kind = 'directory'
  readonly shared = true
  readonly #runner: BlockingRunner
  #folder: string | null
  /** Null where the folder lies on the file system of the image itself, which is there with it. */
  readonly #directory: RecordsDirectory | null
  readonly #watch: DirectoryWatch
  readonly #watches = new Set<() => void>()
  #turn: Promise<unknown> = Promise.resolve()

  constructor(runner: BlockingRunner, place: DirectoryPlace, watch = DirectoryHome.watchBy(runner)) {
    this.#runner = runner
    this.#watch = watch
    this.#directory = place.kind === 'under' ? place.directory : null
    this.#folder = place.kind === 'under' ? join(place.directory.path, place.imageId) : null
    this.beside = place.kind === 'beside'
  }

  /** Whether it lies beside the image, wherever that is. */
  readonly beside: boolean

  /** For all homes whose records are looked at by the same threads. */
  static watchBy(runner: BlockingRunner): DirectoryWatch {
    return new DirectoryWatch(runner, RECORD_NAME)
  }

  /** The home in that very folder. For tools that look at a log without an image. */
  static at(runner: BlockingRunner, folder: string): DirectoryHome {
    const home = new DirectoryHome(runner, { kind: 'beside' })
    home.#folder = folder
    return home
  }

  locate(realPath: string): void {
    if (this.beside) this.#folder = `${realPath}${FOLDER_SUFFIX}`
  }

  describe(): string {
    return this.#folder ?? `beside the image, which was not found yet`
  }

  readNewest(): Promise<Newest> {
    return this.#exclusively(() => this.#readNewest())
  }

  compareAndSwap(expected: number, draft: RecordDraft): Promise<SwapOutcome> {
    return this.#exclusively(() => this.#swap(expected, draft))
  }

  /** All records that are left, oldest first. */
  readAll(): Promise<readonly Newest[]> {
    return this.#exclusively(async () => {
      const records: Newest[] = []
      for (const number of numbersIn((await this.#list()) ?? [])) {
        const one = await this.#read(number)
        if (one !== null) records.push(one)
      }
      if (records.length === 0) await this.#directory?.demandSame()
      return records
    })
  }

  /** A second name, which is no record's; a thing that cannot have one (a directory) stays where it is: nothing prunes it. */
  setAside(sequence: number): Promise<string> {
    return this.#exclusively(async () => {
      const path = this.#pathOf(sequence)
      const aside = `${path}${ASIDE_SUFFIX}`
      const linked = await this.#runner.run({ kind: 'link', existingPath: path, createdPath: aside })
      if (linked === -ERRNO.EPERM) return path
      if (linked < 0 && linked !== -ERRNO.EEXIST) throw failure('link', aside, linked)
      await this.#makeDurable(this.#place())
      return aside
    })
  }

  watch(listener: (newest: Newest) => void, intervalMs: number): () => void {
    const unfollow = this.#watch.follow(this.#place(), intervalMs, { read: () => this.readNewest(), tell: listener })
    const end = (): void => {
      unfollow()
      this.#watches.delete(end)
    }
    this.#watches.add(end)
    return end
  }

  async close(): Promise<void> {
    for (const end of this.#watches) end()
    await this.#turn
  }

  async #readNewest(): Promise<Newest> {
    // The newest can vanish between list and read only when 64 newer ones were written meanwhile.
    const path = this.#place()
    const asked = { kind: 'readHighest', path, names: RECORD_NAME, lengthBytesMax: RECORD_BYTES_MAX } as const
    for (let attempt = 0; attempt < VANISHED_MAX; attempt++) {
      const found = await this.#runner.run(asked)
      if (typeof found === 'number') await this.#refuseUnlessMissing(path, found)
      if (found === null || typeof found === 'number') {
        await this.#directory?.demandSame()
        return { kind: 'absent' }
      }
      const newest = this.#newestOf(numberOf(found.name), found.content)
      if (newest !== null) return newest
    }
    throw new Refusal('record-io', `the records in ${this.describe()} change faster than they can be read`)
  }

  /** Null where it is gone. */
  async #read(number: number): Promise<Newest | null> {
    const path = this.#pathOf(number)
    return this.#newestOf(number, await this.#runner.run({ kind: 'readFile', path, lengthBytesMax: RECORD_BYTES_MAX }))
  }

  /** Null where it is gone. */
  #newestOf(number: number, bytes: Uint8Array | number): Newest | null {
    const path = this.#pathOf(number)
    if (bytes === -ERRNO.ENOENT) return null
    if (bytes === -ERRNO.EFBIG || bytes === -ERRNO.EISDIR) {
      return { kind: 'unreadable', sequence: number, detail: `${path} is no record: ${errnoName(bytes)}` }
    }
    if (typeof bytes === 'number') throw failure('read', path, bytes)
    const decoded = decodeRecord(bytes, number)
    if (typeof decoded !== 'string') return { kind: 'record', record: decoded.record }
    return { kind: 'unreadable', sequence: number, detail: `${path}: ${decoded}` }
  }

  async #swap(expected: number, draft: RecordDraft): Promise<SwapOutcome> {
    assert(Number.isSafeInteger(expected) && expected >= 0, `${expected} is not the number of a record`)
    if (expected === 0) await this.#makeFolder()
    const nonce = randomBytes(16).toString('hex')
    const sequence = expected + 1
    const record: OwnershipRecord = { ...draft, version: RECORD_VERSION, sequence }
    const temporary = join(this.#place(), `.${numberText(sequence)}.${nonce}`)
    const { linked, names } = await this.#write(temporary, sequence, encodeRecord(record, nonce), nonce)
    const highest = numbersIn(names).at(-1) ?? 0
    // Nobody waits for that but whoever asks next.
    this.#turn = this.#turn.then(() => this.#prune(names, highest)).catch(() => undefined)
    if (linked && highest === sequence) return { won: true, record }
    // Had it been pruned before we came, what we linked stands outside of the log: nobody has built on it.
    const inTheLog = linked && highest > sequence && highest - sequence < RECORDS_KEPT
    return { won: false, newest: await this.#readNewest(), superseded: inTheLog ? record : null }
  }

  /** `linked`: the number is ours, and durable. `names`: what was there after that. */
  async #write(temporary: string, sequence: number, bytes: Uint8Array, nonce: string): Promise<Written> {
    const folder = this.#place()
    const createdPath = this.#pathOf(sequence)
    const removal = { kind: 'removeFile', path: temporary } as const
    const steps = [
      { call: { kind: 'createFile', path: temporary, bytes, mode: FILE_MODE }, faultPoint: 'record: written' },
      { call: { kind: 'link', existingPath: temporary, createdPath }, faultPoint: 'record: linked' },
      { call: { kind: 'syncDirectory', path: folder }, faultPoint: 'record: durable' },
      { call: removal },
    ] as const
    const { results, names } = await runSteps(this.#runner, steps, folder)
    const [created = 0, linked = 0, durable = 0] = results
    if (created < 0) throw failure('create', temporary, created)
    if (linked === 0) {
      if (durable < 0) throw failure('make durable', folder, durable)
      const listed = names === null || typeof names === 'number' ? await this.#list() : names
      return { linked: true, names: listed ?? [] }
    }
    const isOurs = await this.#isOurs(sequence, nonce, linked).finally(() => this.#runner.run(removal))
    if (isOurs) await this.#makeDurable(folder)
    return { linked: isOurs, names: (await this.#list()) ?? [] }
  }

  /** After a link that was answered by an error, which may be a lost reply. */
  async #isOurs(sequence: number, nonce: string, linked: number): Promise<boolean> {
    const path = this.#pathOf(sequence)
    const bytes = await this.#runner.run({ kind: 'readFile', path, lengthBytesMax: RECORD_BYTES_MAX })
    if (typeof bytes !== 'number') {
      const decoded = decodeRecord(bytes, sequence)
      return typeof decoded !== 'string' && decoded.nonce === nonce
    }
    // Whoever finds his number taken and gone again slept through all of its life.
    if (bytes === -ERRNO.ENOENT && linked === -ERRNO.EEXIST) return false
    const newest = bytes === -ERRNO.ENOENT ? numbersIn((await this.#list()) ?? []).at(-1) : undefined
    if (newest !== undefined && newest > sequence) return false
    throw failure('link', path, linked)
  }

  /** Best effort: what cannot be removed now is removed by a later swap. */
  async #prune(names: readonly string[], highest: number): Promise<void> {
    const outdated = names.filter((name) => {
      const number = Number((RECORD_NAME.exec(name) ?? TEMPORARY_NAME.exec(name))?.[1] ?? highest)
      return number <= highest - RECORDS_KEPT
    })
    if (outdated.length < PRUNED_AT_ONCE) return
    const oldest = outdated.sort().slice(0, PRUNED_AT_ONCE)
    await this.#runner.run({ kind: 'removeFiles', paths: oldest.map((name) => join(this.#place(), name)) })
  }

  /** Null where the folder is not there, which is so before the first record. */
  async #list(): Promise<readonly string[] | null> {
    const folder = this.#place()
    const names = await this.#runner.run({ kind: 'listDirectory', path: folder })
    if (typeof names !== 'number') return names
    await this.#refuseUnlessMissing(folder, names)
    return null
  }

  /** A folder that is missing is no record; a directory that is missing is a file system that was not mounted. */
  async #refuseUnlessMissing(folder: string, result: number): Promise<void> {
    if (result !== -ERRNO.ENOENT) throw failure('list', folder, result)
    const parent = await this.#runner.run({ kind: 'listDirectory', path: dirname(folder) })
    if (typeof parent === 'number') throw failure('list', dirname(folder), parent)
  }

  async #makeFolder(): Promise<void> {
    const folder = this.#place()
    const made = await this.#runner.run({ kind: 'makeDirectory', path: folder, mode: FOLDER_MODE })
    if (made < 0 && made !== -ERRNO.EEXIST) throw failure('create', folder, made)
    await this.#makeDurable(dirname(folder))
    // Behind the folder: what is not the directory any more when the record is written has no such folder.
    await this.#directory?.demandSame()
  }

  async #makeDurable(path: string): Promise<void> {
    const result = await this.#runner.run({ kind: 'syncDirectory', path })
    if (result < 0) throw failure('make durable', path, result)
  }

  #place(): string {
    return present(this.#folder, 'the place of an image whose record is asked for')
  }

  #pathOf(sequence: number): string {
    return join(this.#place(), `${numberText(sequence)}.json`)
  }

  #exclusively<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(async () => {
      await this.#directory?.demandKnown()
      return work()
    })
    this.#turn = result.catch(() => undefined)
    return result
  }
}

function numberText(sequence: number): string {
  return String(sequence).padStart(NUMBER_DIGITS, '0')
}

function numberOf(name: string): number {
  return Number(RECORD_NAME.exec(name)?.[1] ?? 0)
}

/** Ascending. What has no number is nobody's record. */
function numbersIn(names: readonly string[]): readonly number[] {
  return names
    .map(numberOf)
    .filter((number) => number > 0)
    .sort((a, b) => a - b)
}

function failure(verb: string, path: string, result: number): Refusal {
  return new Refusal('record-io', `cannot ${verb} ${path}, where the ownership record is: ${errnoName(result)}`)
}
