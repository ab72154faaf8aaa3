/**
 * The bounded pool of I/O buffers: a buddy allocator over one stretch of the arena. It hands out offsets, never grows
 * and never blocks; who gets memory next when there is none is decided by its callers (`memory-queue.ts`).
 *
 * Invariants: every block is a power of two times the page, aligned to its own size; two free buddies never stay apart;
 * free and used bytes add up to the whole.
 */

import { assert } from '../foundation/assert.ts'
import { PAGE_BYTES } from '../plane-link/memory-layout.ts'

const NONE = -1

export class BufferArena {
  readonly lengthBytes: number
  usedBytes = 0
  readonly #base: number
  readonly #orderTop: number
  readonly #freeHead: Int32Array
  readonly #next: Int32Array
  readonly #previous: Int32Array
  /** By first page of a block: order + 1 when free, -(order + 1) when in use, 0 inside a block. */
  readonly #block: Int8Array

  /** `base` is the arena offset of the first byte; `lengthBytes` is a power of two of at least one page. */
  constructor(base: number, lengthBytes: number) {
    const pages = lengthBytes / PAGE_BYTES
    const orderTop = Math.log2(pages)
    assert(Number.isInteger(orderTop), 'the buffer arena is a power of two pages')
    assert(base % PAGE_BYTES === 0, 'the buffer arena starts on a page')
    this.lengthBytes = lengthBytes
    this.#base = base
    this.#orderTop = orderTop
    this.#freeHead = new Int32Array(orderTop + 1).fill(NONE)
    this.#next = new Int32Array(pages).fill(NONE)
    this.#previous = new Int32Array(pages).fill(NONE)
    this.#block = new Int8Array(pages)
    this.#link(0, orderTop)
  }

  /** The arena offset of a buffer of at least `lengthBytes`, or -1 when there is none now. */
  allocate(lengthBytes: number): number {
    const order = orderFor(lengthBytes)
    let from = order
    while (from <= this.#orderTop && this.#freeHead[from] === NONE) from += 1
    if (from > this.#orderTop) return NONE
    const page = this.#freeHead[from] as number
    this.#unlink(page, from)
    while (from > order) {
      from -= 1
      this.#link(page + (1 << from), from)
    }
    this.#block[page] = -(order + 1)
    this.usedBytes += PAGE_BYTES << order
    return this.#base + page * PAGE_BYTES
  }

  release(offset: number): void {
    let page = (offset - this.#base) / PAGE_BYTES
    const mark = this.#block[page]
    assert(mark !== undefined && mark < 0, 'only a buffer in use can be released')
    let order = -mark - 1
    this.usedBytes -= PAGE_BYTES << order
    this.#block[page] = 0
    while (order < this.#orderTop) {
      const buddy = page ^ (1 << order)
      if (this.#block[buddy] !== order + 1) break
      this.#unlink(buddy, order)
      page = Math.min(page, buddy)
      order += 1
    }
    this.#link(page, order)
  }

  /** How many bytes `allocate` takes for a request of `lengthBytes`. */
  static footprint(lengthBytes: number): number {
    return PAGE_BYTES << orderFor(lengthBytes)
  }

  invariants(): void {
    let free = 0
    for (let order = 0; order <= this.#orderTop; order += 1) {
      for (let page = this.#freeHead[order] as number; page !== NONE; page = this.#next[page] as number) {
        assert(this.#block[page] === order + 1, 'a listed block is marked free')
        assert(page % (1 << order) === 0, 'a block is aligned to its size')
        assert(
          order === this.#orderTop || this.#block[page ^ (1 << order)] !== order + 1,
          'two free buddies do not stay apart',
        )
        free += PAGE_BYTES << order
      }
    }
    assert(free + this.usedBytes === this.lengthBytes, 'free and used bytes add up to the whole')
  }

  #link(page: number, order: number): void {
    const head = this.#freeHead[order] as number
    this.#next[page] = head
    this.#previous[page] = NONE
    if (head !== NONE) this.#previous[head] = page
    this.#freeHead[order] = page
    this.#block[page] = order + 1
  }

  #unlink(page: number, order: number): void {
    const next = this.#next[page] as number
    const previous = this.#previous[page] as number
    if (previous === NONE) this.#freeHead[order] = next
    else this.#next[previous] = next
    if (next !== NONE) this.#previous[next] = previous
    this.#block[page] = 0
  }
}

function orderFor(lengthBytes: number): number {
  const pages = Math.max(1, Math.ceil(lengthBytes / PAGE_BYTES))
  return 32 - Math.clz32(pages - 1)
}
