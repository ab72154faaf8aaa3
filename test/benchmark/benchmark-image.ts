/**
 * The one file that every server serves in turn. A written image is made once and kept; the others lose their state by
 * being written to, so each measurement gets a new one. All lie in the directory given, which must take O_DIRECT.
 */

import {
  closeSync,
  constants,
  fsyncSync,
  mkdtempSync,
  openSync,
  rmSync,
  statfsSync,
  truncateSync,
  writeSync,
} from 'node:fs'
import { randomFillSync } from 'node:crypto'
import { join } from 'node:path'
import { runChecked } from '../support/foreign-program.ts'
import type { ImageKind } from './row.ts'

/** Of the directory beside an image in which interlockd keeps its ownership record. */
const RECORD_SUFFIX = '.interlock'
const MEBIBYTE = 1024 * 1024

export class BenchmarkImage {
  readonly directory: string
  readonly sizeBytes: number
  #written = false

  constructor(parent: string, sizeBytes: number) {
    if (sizeBytes % MEBIBYTE !== 0) throw new Error('an image is whole mebibytes')
    this.directory = mkdtempSync(join(parent, 'interlockd-benchmark-'))
    this.sizeBytes = sizeBytes
    try {
      this.#requireRoom()
      requireDirectAccess(this.directory)
    } catch (error) {
      this.dispose()
      throw error
    }
  }

  /** The path of an image of that kind, with none of its pages in the cache, which no host has ever owned. */
  async prepare(kind: ImageKind): Promise<string> {
    const path = join(this.directory, `${kind}.raw`)
    rmSync(path + RECORD_SUFFIX, { recursive: true, force: true })
    if (kind === 'written') {
      if (!this.#written) this.#write(path)
      this.#written = true
    } else {
      rmSync(path, { force: true })
      closeSync(openSync(path, 'wx'))
      if (kind === 'sparse') truncateSync(path, this.sizeBytes)
      else await runChecked('fallocate', ['--length', String(this.sizeBytes), path])
    }
    await this.settle(path)
    return path
  }

  /** Writes back what a server left in the page cache, and drops it: nobody starts with another's pages. */
  async settle(path: string): Promise<void> {
    const arguments_ = [
      'if=/dev/null',
      `of=${path}`,
      'conv=notrunc,fdatasync',
      'oflag=nocache',
      'count=0',
      'status=none',
    ]
    await runChecked('dd', arguments_)
  }

  dispose(): void {
    rmSync(this.directory, { recursive: true, force: true })
  }

  /** Data that no layer below can squeeze or share. */
  #write(path: string): void {
    const part = Buffer.alloc(MEBIBYTE)
    const file = openSync(path, 'wx')
    try {
      for (let offset = 0; offset < this.sizeBytes; offset += part.length) writeSync(file, randomFillSync(part))
      fsyncSync(file)
    } finally {
      closeSync(file)
    }
  }

  #requireRoom(): void {
    const { bavail, bsize } = statfsSync(this.directory)
    const needed = 2 * this.sizeBytes
    if (bavail * bsize >= needed) return
    throw new Error(`${this.directory} has ${bavail * bsize} bytes free, and ${needed} are needed: give --directory`)
  }
}

function requireDirectAccess(directory: string): void {
  const path = join(directory, 'probe')
  try {
    closeSync(openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_DIRECT))
  } catch (error) {
    throw new Error(`${directory} does not take O_DIRECT: give --directory on a disk`, { cause: error })
  } finally {
    rmSync(path, { force: true })
  }
}
