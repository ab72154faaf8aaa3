/**
 * The look at the folders of many records, for all homes of a daemon together: who watches a folder is told soon after its
 * highest number has grown. A look lists the folders of one directory in a few calls, one after the other, so it needs one
 * thread however many images there are, and little but the listing itself.
 *
 * 1. Every look lists: no time of a directory is trusted to say that nothing has changed, because two records can be
 *    linked within one tick of a file system's clock.
 * 2. Folders of different directories may be on different file systems, and never wait for each other.
 * 3. What cannot be listed or read now is looked at again. There is nothing here that safety depends on.
 */

import { dirname } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { BlockingRunner } from '../blocking/calls.ts'
import { ERRNO } from '../posix/errno.ts'
import { sequenceOf } from './home.ts'
import type { Newest } from './home.ts'

/** Folders that one call lists: a thread that others may want is busy no longer than that. */
const FOLDERS_AT_ONCE = 32
/** Where there are so many folders that a look would come too soon again, it comes later. */
const FOLDER_COST_MS = 2

export interface FolderListener {
  /** The newest record, whatever it is. */
  readonly read: () => Promise<Newest>
  readonly tell: (newest: Newest) => void
}

interface Followed extends FolderListener {
  readonly folder: string
  /** The highest number that was told of; -1: nothing was yet. */
  seen: number
  reading: boolean
}

interface Group {
  readonly followed: Set<Followed>
  readonly ended: AbortController
  intervalMs: number
}

export class DirectoryWatch {
  readonly #runner: BlockingRunner
  readonly #names: RegExp
  /** By directory. */
  readonly #groups = new Map<string, Group>()
  #followedCount = 0

  /** `names` are those of records, which begin with their number. */
  constructor(runner: BlockingRunner, names: RegExp) {
    this.#runner = runner
    this.#names = names
  }

  /** Tells how it is, and then of what is newer. Returns the function that ends it. */
  follow(folder: string, intervalMs: number, { read, tell }: FolderListener): () => void {
    const followed: Followed = { folder, read, tell, seen: -1, reading: false }
    const directory = dirname(folder)
    const group = this.#groups.get(directory) ?? this.#begin(directory, intervalMs)
    group.intervalMs = Math.min(group.intervalMs, intervalMs)
    group.followed.add(followed)
    this.#followedCount += 1
    void this.#tell(group, followed)
    return () => {
      if (!group.followed.delete(followed)) return
      this.#followedCount -= 1
      if (group.followed.size > 0) return
      group.ended.abort()
      this.#groups.delete(directory)
    }
  }

  #begin(directory: string, intervalMs: number): Group {
    const group: Group = { followed: new Set(), ended: new AbortController(), intervalMs }
    this.#groups.set(directory, group)
    void this.#lookAgainAndAgain(group)
    return group
  }

  async #lookAgainAndAgain(group: Group): Promise<void> {
    const { signal } = group.ended
    const isOver = (): boolean => signal.aborted
    while (!isOver()) {
      const pauseMs = Math.max(group.intervalMs, this.#followedCount * FOLDER_COST_MS)
      await sleep(pauseMs, null, { ref: false, signal }).catch(() => null)
      const all = [...group.followed]
      for (let first = 0; first < all.length && !isOver(); first += FOLDERS_AT_ONCE) {
        await this.#look(group, all.slice(first, first + FOLDERS_AT_ONCE))
      }
    }
  }

  async #look(group: Group, some: readonly Followed[]): Promise<void> {
    const paths = some.map(({ folder }) => folder)
    const highest = await this.#runner.run({ kind: 'highestNames', paths, names: this.#names }).catch(() => [])
    for (const [index, followed] of some.entries()) {
      const name = highest[index]
      // A folder that is missing has no record, which is news only to who has heard nothing yet.
      const number = typeof name === 'string' ? parseInt(name, 10) : name === -ERRNO.ENOENT || name === null ? 0 : -1
      if (number > followed.seen) void this.#tell(group, followed)
    }
  }

  async #tell(group: Group, followed: Followed): Promise<void> {
    if (followed.reading) return
    followed.reading = true
    const newest = await followed.read().catch(() => null)
    followed.reading = false
    if (newest === null || !group.followed.has(followed)) return
    followed.seen = sequenceOf(newest)
    followed.tell(newest)
  }
}
