/**
 * Reads an object that came from outside, member by member: each must be there, be of its kind, and be read once; what
 * nobody read is unknown and refused by `end`. Nothing is repaired and nothing is guessed. A fault is a `Malformed` whose
 * message names the member by its path; whoever parses catches it at his door and makes a sentence of it.
 */

const TEXT_LENGTH_MAX = 4096

/** Never leaves a parser. */
export class Malformed extends Error {
  override readonly name = 'Malformed'
}

/** The members of one object, each read once; `end` complains of those that were not. */
export class Members {
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

  /** May be empty. */
  anyText(name: string): string {
    const value = this.#take(name)
    if (typeof value === 'string' && value.length <= TEXT_LENGTH_MAX) return value
    throw this.#malformed(name, `a text of at most ${TEXT_LENGTH_MAX} characters`)
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

  /** Whether the member is there at all, for those that may be left out. */
  has(name: string): boolean {
    return this.#unread.has(name)
  }

  /** What the reader makes of it, or null where it is null. */
  nullable<Value>(name: string, read: (name: string) => Value): Value | null {
    if (Object.hasOwn(this.#value, name) && this.#value[name] === null) {
      this.#take(name)
      return null
    }
    return read(name)
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

  /** A list of texts. */
  texts(name: string): string[] {
    const value: unknown = this.#take(name)
    if (!Array.isArray(value)) throw this.#malformed(name, 'a list of texts')
    return value.map((item: unknown) => {
      if (typeof item === 'string' && item !== '' && item.length <= TEXT_LENGTH_MAX) return item
      throw this.#malformed(name, `a list of texts of 1 to ${TEXT_LENGTH_MAX} characters`)
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
