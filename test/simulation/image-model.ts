/**
 * What the bytes of one export may be, block by block, told by nothing but the order of admission, the ends of the
 * writes and the answers that clients got. It never looks into the data plane; it looks at the disk when a write has
 * cleared, and at no other time takes the disk's word.
 *
 * 1. No write is handed to the disk while an earlier admitted one that overlaps it is uncleared, or while it is held.
 * 2. When a write clears, each of its blocks is wholly old or wholly new; blocks that no uncleared write covers never
 *    change.
 * 3. What a client was told is durable survives: of a block, its newest durable content or a later one.
 */

import { assert, present } from '../../src/foundation/assert.ts'
import type { Range } from '../../src/interlock/range.ts'
import { overlaps } from '../../src/interlock/range.ts'
import { COMMAND } from '../support/simulated-frontend.ts'

export interface ModelWrite {
  readonly what: string
  readonly command: number
  /** What the client named, and the whole blocks around it. */
  readonly range: Range
  readonly wide: Range
  readonly payload: Uint8Array
  /** Operations handed to the disk. */
  submissions: number
  cleared: boolean
  clearedAt: number
  /** The plane said so. */
  failed: boolean
  /** Every block was found new when it cleared. */
  applied: boolean
}

interface Content {
  readonly bytes: Uint8Array
  /** When it was found on the disk. */
  readonly at: number
  /** A later one took its place. */
  until: number
  /** It is the whole of what a successful write asked for. */
  readonly whole: boolean
}

export class ImageModel {
  readonly #blockBytes: number
  readonly #readDisk: (position: number, lengthBytes: number) => Uint8Array
  /** Of each block, all it ever held; the last one is what it holds. */
  readonly #contents: Content[][] = []
  /** The last contents of all blocks, one after the other. */
  readonly #image: Uint8Array
  /** How many of the first contents of a block can certainly not come back. */
  readonly #forgotten: number[] = []
  /** Admitted and not cleared, in the order of admission. */
  #uncleared: ModelWrite[] = []
  holds: readonly Range[] = []
  /** Bytes that a failed write left unknown, and that no write has gone over since. */
  readonly #unknown = new Set<number>()

  constructor(sizeBytes: number, blockBytes: number, readDisk: (position: number, lengthBytes: number) => Uint8Array) {
    this.#blockBytes = blockBytes
    this.#readDisk = readDisk
    this.#image = readDisk(0, sizeBytes)
    for (let at = 0; at < sizeBytes; at += blockBytes) {
      const bytes = readDisk(at, blockBytes)
      this.#contents.push([{ bytes, at: 0, until: Infinity, whole: true }])
      this.#forgotten.push(0)
    }
  }

  get unclearedCount(): number {
    return this.#uncleared.length
  }

  admit(write: ModelWrite): void {
    this.#uncleared.push(write)
  }

  /** An operation of this write goes to the disk. */
  submit(write: ModelWrite, operation: Range): void {
    write.submissions += 1
    assert(!write.cleared, `${write.what} is not submitted after it has cleared`)
    const { offset, length } = operation
    const inside = offset >= write.wide.offset && offset + length <= write.wide.offset + write.wide.length
    assert(inside, `${write.what} keeps to its widened range`)
    for (const earlier of this.#uncleared) {
      if (earlier === write) break
      assert(!overlaps(earlier.wide, write.wide), `${write.what} waits for ${earlier.what}`)
    }
    for (const hold of this.holds) {
      assert(!overlaps(hold, write.wide), `${write.what} waits for the hold at ${hold.offset}`)
    }
  }

  /** The write has left; its blocks are what the disk says, if that is something that they may be. */
  clear(write: ModelWrite, now: number): void {
    const index = this.#uncleared.indexOf(write)
    assert(index >= 0 && !write.cleared, `${write.what} clears once`)
    this.#uncleared.splice(index, 1)
    write.cleared = true
    write.clearedAt = now
    write.applied = write.submissions > 0 || write.command === COMMAND.TRIM
    // What never reached the disk may leave while earlier writes to the same blocks are still under way.
    if (write.submissions === 0) return
    this.#eachBlock(write.wide, (block) => {
      const actual = this.#disk(block)
      const old = this.#current(block).bytes
      const wanted = this.#possible(write, block, old)
      const found = wanted.some((bytes) => same(bytes, actual))
      assert(found || same(old, actual), `${write.what} leaves block ${block} old or new`)
      if (!found) write.applied = false
    })
    if (write.applied && !write.failed && write.command !== COMMAND.TRIM) this.#know(write.range)
    this.#eachBlock(write.wide, (block) => {
      const bytes = this.#disk(block)
      if (!write.applied && same(this.#current(block).bytes, bytes)) return
      this.#current(block).until = now
      this.#list(block).push({ bytes, at: now, until: Infinity, whole: write.applied })
      this.#image.set(bytes, block * this.#blockBytes)
    })
  }

  /** A client was told that this write succeeded; `durable` if that made it durable. */
  answered(write: ModelWrite, durable: boolean): void {
    assert(write.cleared, `${write.what} is answered after it has cleared`)
    assert(write.applied, `${write.what} was answered as done and is on the disk`)
    if (durable) this.#eachBlock(write.range, (block) => this.#forget(block, write.clearedAt, true))
  }

  /** A client was told that whatever had been answered at `since` is durable. */
  flushed(since: number): void {
    for (let block = 0; block < this.#contents.length; block += 1) this.#forget(block, since, true)
  }

  /** The main thread was told that the disk was synced after `since`. */
  synced(since: number): void {
    for (let block = 0; block < this.#contents.length; block += 1) this.#forget(block, since, false)
  }

  /** The plane said that a write to this range failed. */
  failed(range: Range): void {
    const { offset, length } = range
    const write = this.#uncleared.find(({ wide }) => wide.offset === offset && wide.length === length)
    present(write, `the write at ${offset} that failed`).failed = true
    for (let at = range.offset; at < range.offset + range.length; at += 1) this.#unknown.add(at)
  }

  /** Whatever is unknown is named. */
  checkIndeterminate(named: readonly Range[]): void {
    for (const at of this.#unknown) {
      const byte = { offset: at, length: 1 }
      assert(
        named.some((range) => overlaps(range, byte)),
        `byte ${at} of a failed write is listed as indeterminate`,
      )
    }
  }

  /** What a client read between `from` and now. */
  checkRead(what: string, offset: number, data: Uint8Array, from: number): void {
    this.#eachBlock({ offset, length: data.length }, (block) => {
      const start = Math.max(offset, block * this.#blockBytes)
      const end = Math.min(offset + data.length, (block + 1) * this.#blockBytes)
      const read = data.subarray(start - offset, end - offset)
      const at = start - block * this.#blockBytes
      const may = this.#list(block)
        .filter((content) => content.until >= from)
        .map((content) => content.bytes)
        .concat(this.#underWay(block))
      const found = may.some((bytes) => same(bytes.subarray(at, at + read.length), read))
      assert(found, `${what} reads what block ${block} held while it was read`)
    })
  }

  /** No block that nobody writes has changed. */
  checkUntouched(): void {
    const disk = this.#readDisk(0, this.#image.length)
    if (same(disk, this.#image)) return
    for (let block = 0; block < this.#contents.length; block += 1) {
      const { offset, length } = this.#rangeOf(block)
      if (same(disk.subarray(offset, offset + length), this.#current(block).bytes)) continue
      const written = this.#uncleared.some((write) => overlaps(write.wide, { offset, length }))
      assert(written, `block ${block} changes only by a write`)
    }
  }

  /** After a power cut the disk holds what it must, or something newer. */
  checkSurvivors(): void {
    for (let block = 0; block < this.#contents.length; block += 1) {
      const may = this.#list(block)
        .slice(this.#forgotten[block])
        .map((content) => content.bytes)
        .concat(this.#underWay(block))
      assert(
        may.some((bytes) => same(bytes, this.#disk(block))),
        `block ${block} survives a power cut`,
      )
    }
  }

  /** What the writes that may be on their way could make of a block. */
  #underWay(block: number): Uint8Array[] {
    const first = this.#uncleared.find((write) => overlaps(write.wide, this.#rangeOf(block)))
    return first === undefined ? [] : this.#possible(first, block, this.#current(block).bytes)
  }

  /** The block with this write done. A TRIM may or may not zero what it names. */
  #possible(write: ModelWrite, block: number, old: Uint8Array): Uint8Array[] {
    const start = block * this.#blockBytes
    const from = Math.max(write.range.offset, start) - start
    const to = Math.min(write.range.offset + write.range.length, start + this.#blockBytes) - start
    if (from >= to) return [old]
    if (write.command === COMMAND.TRIM && to - from < this.#blockBytes) return [old]
    const done = old.slice()
    if (write.command === COMMAND.WRITE) {
      done.set(write.payload.subarray(start + from - write.range.offset, start + to - write.range.offset), from)
    } else {
      done.fill(0, from, to)
    }
    return write.command === COMMAND.TRIM ? [old, done] : [done]
  }

  #know(range: Range): void {
    if (this.#unknown.size === 0) return
    for (let at = range.offset; at < range.offset + range.length; at += 1) this.#unknown.delete(at)
  }

  #forget(block: number, since: number, onlyWhole: boolean): void {
    const contents = this.#list(block)
    for (let index = contents.length - 1; index > (this.#forgotten[block] ?? 0); index -= 1) {
      const content = contents[index]
      if (content === undefined || content.at > since || (onlyWhole && !content.whole)) continue
      this.#forgotten[block] = index
      return
    }
  }

  #list(block: number): Content[] {
    return present(this.#contents[block], `block ${block}`)
  }

  #current(block: number): Content {
    return present(this.#list(block).at(-1), `the content of block ${block}`)
  }

  #disk(block: number): Uint8Array {
    return this.#readDisk(block * this.#blockBytes, this.#blockBytes)
  }

  #rangeOf(block: number): Range {
    return { offset: block * this.#blockBytes, length: this.#blockBytes }
  }

  #eachBlock(range: Range, visit: (block: number) => void): void {
    const first = Math.floor(range.offset / this.#blockBytes)
    const last = Math.ceil((range.offset + range.length) / this.#blockBytes)
    for (let block = first; block < last; block += 1) visit(block)
  }
}

function same(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0
}
