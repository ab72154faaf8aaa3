/**
 * A directory of records (`[ownership] directory`) as something that can be recognised. Where its file system is not
 * mounted there is an empty directory in its place, in which no image has a record: "nobody has ever opened it" would be
 * read there of an image that another host has open. So whoever uses the directory first leaves a random identity in it,
 * and each host remembers in its state directory which one the directory had.
 *
 * 1. No record is read or written before the directory was once found to be the same. That keeps this run from the
 *    records that may lie under a mount point.
 * 2. "No record" is said only after another look, and the first record of an image is written only after one that comes
 *    behind the making of its folder: the record is then written into that very folder, or nowhere.
 * 3. Where a record is found no further look is needed: it is compared and swapped by its number, in the log it is of.
 *    What is not seen is a directory that goes away under a running daemon and has an older log of the very image below.
 * 4. An identity is durable in the directory before anybody remembers it. It is never replaced, nor is what is remembered.
 *
 * A host that has never used the directory cannot know: the first identity that it meets, or leaves, is the one.
 */

import { createHash } from 'node:crypto'
import { join } from 'node:path'
import type { BlockingRunner } from '../blocking/calls.ts'
import { Refusal } from '../foundation/refusal.ts'
import { ERRNO, errnoName } from '../posix/errno.ts'
import { leaveOnce } from './left-once.ts'
import { ensureDirectory, randomIdentity } from './local-identity.ts'

/** No id of an image begins with a dot. */
export const IDENTITY_NAME = '.interlockd-records'
export const MEMORY_FOLDER = 'records-directories'
/** An identity, and behind it, in what is remembered, the path for people. */
const IDENTITY_LINE = /^([0-9a-f]{32})\n/
const FILE_BYTES_MAX = 8_192

/** A visitor (a tool) compares, and leaves nothing: neither here nor there. */
export type RecordsUse = 'host' | 'visitor'

export class RecordsDirectory {
  readonly path: string
  readonly #stateDirectory: string
  readonly #runner: BlockingRunner
  readonly #use: RecordsUse
  readonly #identityPath: string
  readonly #memoryPath: string
  #known = false
  #looking: Promise<void> | null = null

  constructor(path: string, stateDirectory: string, runner: BlockingRunner, use: RecordsUse) {
    this.path = path
    this.#stateDirectory = stateDirectory
    this.#runner = runner
    this.#use = use
    this.#identityPath = join(path, IDENTITY_NAME)
    const key = createHash('sha256').update(path).digest('hex').slice(0, 32)
    this.#memoryPath = join(stateDirectory, MEMORY_FOLDER, key)
  }

  /** Looks until it has once been the same. All who ask meanwhile wait for one look. */
  async demandKnown(): Promise<void> {
    if (this.#known) return
    this.#looking ??= this.demandSame().finally(() => {
      this.#looking = null
    })
    await this.#looking
  }

  /** Looks now. Rejects with a Refusal where it is not the directory that it was. */
  async demandSame(): Promise<void> {
    // In this order: what is remembered was in the directory before.
    const remembered = await this.#remembered()
    const found = await this.#found()
    if (remembered === null && this.#use === 'host') await this.#remember(found ?? (await this.#leaveIdentity()))
    else if (remembered !== null && remembered !== found) throw this.#notTheSame(found)
    this.#known = true
  }

  async #found(): Promise<string | null> {
    const identity = await this.#read(this.#identityPath)
    if (identity === undefined) {
      throw new Refusal(
        'record-io',
        `${this.#identityPath} does not hold the identity of a directory of records: restore it; ` +
          `each host that has used the directory has it in its state directory, under ${MEMORY_FOLDER}`,
      )
    }
    if (typeof identity === 'number') throw failure('read', this.#identityPath, identity)
    return identity
  }

  async #remembered(): Promise<string | null> {
    const identity = await this.#read(this.#memoryPath)
    if (typeof identity === 'string' || identity === null) return identity
    const why = identity === undefined ? 'it holds no identity' : errnoName(identity)
    const detail = `cannot read ${this.#memoryPath}, which says what ${this.path} was when it was used last: ${why}`
    throw new Refusal('state-directory', detail)
  }

  /** Null where there is none; undefined where it is none; or -errno. */
  async #read(path: string): Promise<string | null | undefined | number> {
    const content = await this.#runner.run({ kind: 'readFile', path, lengthBytesMax: FILE_BYTES_MAX })
    if (typeof content !== 'number') return IDENTITY_LINE.exec(Buffer.from(content).toString('latin1'))?.[1]
    return content === -ERRNO.ENOENT ? null : content
  }

  /** That of whoever is first. */
  async #leaveIdentity(): Promise<string> {
    const left = await leaveOnce(this.#runner, this.#identityPath, `${randomIdentity()}\n`)
    if (left < 0) throw failure('create', this.#identityPath, left)
    const identity = await this.#found()
    if (identity === null) throw failure('read', this.#identityPath, -ERRNO.ENOENT)
    return identity
  }

  async #remember(identity: string): Promise<void> {
    // Whoever left it may have died before its name was durable.
    const durable = await this.#runner.run({ kind: 'syncDirectory', path: this.path })
    if (durable < 0) throw failure('make durable', this.path, durable)
    const folder = join(this.#stateDirectory, MEMORY_FOLDER)
    await ensureDirectory(folder, this.#runner)
    let result = await leaveOnce(this.#runner, this.#memoryPath, `${identity}\n${this.path}\n`)
    if (result === 0) result = await this.#runner.run({ kind: 'syncDirectory', path: folder })
    if (result < 0) {
      const detail = `cannot remember in ${this.#memoryPath} what ${this.path} is: ${errnoName(result)}`
      throw new Refusal('state-directory', detail)
    }
    // Another run of this host may have been first.
    if ((await this.#remembered()) !== identity) throw this.#notTheSame(identity)
  }

  #notTheSame(found: string | null): Refusal {
    const what = found === null ? 'does not hold its identity' : 'holds another identity'
    return new Refusal(
      'record-io',
      `${this.path} is not the directory of records that this host has used: it ${what} (${IDENTITY_NAME}); ` +
        'no record was read or written. Is it not mounted? Then mount it, and ask again. Only where it was replaced ' +
        `deliberately, remove ${this.#memoryPath} on this host`,
    )
  }
}

function failure(verb: string, path: string, result: number): Refusal {
  return new Refusal(
    'record-io',
    `cannot ${verb} ${path}, the identity of a directory of records: ${errnoName(result)}`,
  )
}
