/**
 * Reads a receipt that came from outside: a file that an operator names, the body of a request, an ownership record.
 * Strict: every member present, of its kind, and no other. What it accepts is exactly a `Receipt`; what it rejects comes
 * back as a sentence that names the member. Nothing is repaired and nothing is guessed.
 */

import { CLEARED_BY, CLOSE_REASONS, DURABILITIES, RECEIPT_VERSION } from './receipt.ts'
import type { AbortedRequest, Receipt } from './receipt.ts'
import type { Range } from './range.ts'

const TEXT_LENGTH_MAX = 4096
const COOKIE = /^[0-9a-f]{16}$/

/** The receipt, or why it is none. */
export function parseReceipt(value: unknown): Receipt | string {
  try {
    return readReceipt(new Members('receipt', value))
  } catch (error) {
    if (error instanceof Malformed) return error.message
    throw error
  }
}

/** Never leaves this file. */
class Malformed extends Error {}

function readReceipt(members: Members): Receipt {
  // First of all: a later version may have members that are unknown here.
  const version = members.oneOf('version', [RECEIPT_VERSION])
  const image = members.object('image')
  const holder = members.object('holder')
  const drained = members.object('drained')
  const elapsed = members.object('elapsedMs')
  const receipt: Receipt = {
    version,
    export: members.text('export'),
    image: {
      path: image.text('path'),
      size: image.count('size'),
      device: image.text('device'),
      inode: image.count('inode'),
    },
    generation: members.count('generation', 1),
    holder: { host: holder.text('host'), boot: holder.text('boot'), instance: holder.text('instance') },
    state: members.oneOf('state', ['closed']),
    closedAt: members.time('closedAt'),
    durability: members.oneOf('durability', DURABILITIES),
    drained: { requests: drained.count('requests'), writes: drained.count('writes'), bytes: drained.count('bytes') },
    aborted: members.list('aborted', readAborted),
    indeterminate: members.list('indeterminate', readRange),
    reason: members.oneOf('reason', CLOSE_REASONS),
    nonce: members.text('nonce'),
    clearedBy: members.oneOf('clearedBy', CLEARED_BY),
    elapsedMs: {
      drain: elapsed.duration('drain'),
      sync: elapsed.duration('sync'),
      record: elapsed.duration('record'),
      total: elapsed.duration('total'),
    },
  }
  for (const part of [members, image, holder, drained, elapsed]) part.end()
  if (receipt.drained.writes > receipt.drained.requests) {
    throw new Malformed('receipt.drained counts more writes than requests')
  }
  return receipt
}

function readAborted(members: Members): AbortedRequest {
  return {
    client: members.count('client'),
    cookie: members.matching('cookie', COOKIE, 'sixteen hexadecimal digits'),
    command: members.text('command'),
    ...readRange(members),
  }
}

function readRange(members: Members): Range {
  const range = { offset: members.count('offset'), length: members.count('length') }
  if (!Number.isSafeInteger(range.offset + range.length)) {
    throw new Malformed(`${members.path} ends beyond what a size can be`)
  }
  return range
}

/** The members of one object, each read once; `end` complains of those that were not. */
class Members {
  readonly path: string
  readonly #value: Readonly<Record<string, unknown>>
  readonly #unread: Set<string>

  constructor(path: string, value: unknown) {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Malformed(`${path} is no object`)
    this.path = path
    this.#value = { ...value }
    this.#unread = new Set(Object.keys(value))
  }

  end(): void {
    for (const name of this.#unread) throw new Malformed(`${this.path} has an unknown member '${name}'`)
  }

  text(name: string): string {
    const value = this.#take(name)
    if (typeof value === 'string' && value !== '' && value.length <= TEXT_LENGTH_MAX) return value
    throw this.#malformed(name, `a text of 1 to ${TEXT_LENGTH_MAX} characters`)
  }

  matching(name: string, pattern: RegExp, what: string): string {
    const value = this.#take(name)
    if (typeof value === 'string' && pattern.test(value)) return value
    throw this.#malformed(name, what)
  }

  /** Exactly as `Date.toISOString` writes it, so that a receipt read and written again is the same. */
  time(name: string): string {
    const value = this.#take(name)
    const ms = typeof value === 'string' ? Date.parse(value) : NaN
    if (typeof value === 'string' && !Number.isNaN(ms) && new Date(ms).toISOString() === value) return value
    throw this.#malformed(name, 'a time in ISO 8601, UTC, with milliseconds')
  }

  count(name: string, minimum = 0): number {
    const value = this.#take(name)
    if (typeof value === 'number' && Number.isSafeInteger(value) && value >= minimum) return value
    throw this.#malformed(name, `a whole number, ${minimum} or more`)
  }

  duration(name: string): number {
    const value = this.#take(name)
    if (typeof value === 'number' && Number.isFinite(value) && value >= 0) return value
    throw this.#malformed(name, 'a number of milliseconds')
  }

  oneOf<Choice extends string | number>(name: string, choices: readonly Choice[]): Choice {
    const value = this.#take(name)
    const choice = choices.find((candidate) => candidate === value)
    if (choice !== undefined) return choice
    throw this.#malformed(name, choices.map((candidate) => JSON.stringify(candidate)).join(' or '))
  }

  object(name: string): Members {
    return new Members(`${this.path}.${name}`, this.#take(name))
  }

  list<Item>(name: string, read: (members: Members) => Item): Item[] {
    const value: unknown = this.#take(name)
    if (!Array.isArray(value)) throw this.#malformed(name, 'a list')
    return value.map((item: unknown, index) => {
      const members = new Members(`${this.path}.${name}[${index}]`, item)
      const result = read(members)
      members.end()
      return result
    })
  }

  #take(name: string): unknown {
    if (!Object.hasOwn(this.#value, name)) throw new Malformed(`${this.path}.${name} is missing`)
    this.#unread.delete(name)
    return this.#value[name]
  }

  #malformed(name: string, expected: string): Malformed {
    return new Malformed(`${this.path}.${name} must be ${expected}`)
  }
}
