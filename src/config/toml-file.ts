/**
 * A TOML document whose every key can be named with its line. The TOML parser does not tell positions, so the parser
 * itself is asked: the line of a key is where the shortest prefix of the document that holds the key begins its last
 * statement. That costs some parsing, and only for documents with mistakes.
 */

import { parse, TomlError } from 'smol-toml'
import { ConfigurationError } from './configuration.ts'

export type KeyPath = readonly (string | number)[]
export type Table = Readonly<Record<string, unknown>>

export class TomlFile {
  readonly path: string
  readonly root: Table
  readonly #lines: readonly string[]

  /** Throws a ConfigurationError with file, line and column when the text is not TOML. */
  constructor(path: string, text: string) {
    this.path = path
    this.#lines = text.split('\n')
    try {
      this.root = parse(text)
    } catch (error) {
      if (!(error instanceof TomlError)) throw error
      const reason = (error.message.split('\n')[0] ?? '').replace(/^Invalid TOML document: /, '')
      throw new ConfigurationError([`${path}:${error.line}:${error.column}: not valid TOML: ${reason}`])
    }
  }

  /** `FILE:LINE` of a key that is in the document. */
  place(key: KeyPath): string {
    return `${this.path}:${this.#lineOf(key)}`
  }

  #lineOf(key: KeyPath): number {
    const last = key.findLast((part) => typeof part === 'string') ?? ''
    // Only where its name stands can a key begin; a name written with escapes is looked for everywhere.
    const plain = this.#lines.some((line) => line.includes(last))
    for (let index = 0; index < this.#lines.length; index++) {
      if (plain && !(this.#lines[index] ?? '').includes(last)) continue
      if (this.#statementHolds(index, key)) return index + 1
    }
    return 1
  }

  /** Whether the statement that begins in this line brings the key. */
  #statementHolds(index: number, key: KeyPath): boolean {
    const before = index === 0 ? {} : this.#prefix(index)
    if (before === undefined || holds(before, key)) return false
    for (let end = index + 1; end <= this.#lines.length; end++) {
      const table = this.#prefix(end)
      if (table !== undefined) return holds(table, key)
    }
    return false
  }

  /** The first `count` lines as a table, or undefined where they end inside a statement. */
  #prefix(count: number): Table | undefined {
    try {
      return parse(this.#lines.slice(0, count).join('\n'))
    } catch {
      return undefined
    }
  }
}

export function isTable(value: unknown): value is Table {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date)
}

function holds(table: Table, key: KeyPath): boolean {
  let value: unknown = table
  for (const part of key) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, part)) return false
    value = (value as Record<string | number, unknown>)[part]
  }
  return true
}
