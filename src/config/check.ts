/**
 * Checks of single values, whatever source they come from: the value in its final type, or a phrase that says what it
 * must be. Whoever calls adds the name and the place. Nothing here touches the file system.
 */

import { resolve } from 'node:path'
import { isEndpoint, parseEndpoint } from '../foundation/endpoint.ts'
import type { Endpoint } from '../foundation/endpoint.ts'
import { EXPORT_NAME_PATTERN, LIMITS } from './limits.ts'
import { parseDurationMs, parseSizeBytes } from './quantity.ts'

export type Checked<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly problem: string }
export type Check<T> = (value: unknown) => Checked<T>

const exportName = new RegExp(EXPORT_NAME_PATTERN)

export function oneOf<const T extends string>(choices: readonly T[]): Check<T> {
  return (value) => {
    const choice = choices.find((candidate) => candidate === value)
    return choice === undefined ? bad(`must be one of ${choices.join(', ')}, and is ${shown(value)}`) : good(choice)
  }
}

export const checkBoolean: Check<boolean> = (value) =>
  typeof value === 'boolean' ? good(value) : bad(`must be true or false, and is ${shown(value)}`)

export function integerBetween(low: number, high: number): Check<number> {
  return (value) =>
    typeof value === 'number' && Number.isSafeInteger(value) && value >= low && value <= high
      ? good(value)
      : bad(`must be a whole number from ${low} to ${high}, and is ${shown(value)}`)
}

export const checkDurationMs: Check<number> = (value) => {
  const durationMs = typeof value === 'string' ? parseDurationMs(value) : undefined
  if (durationMs === undefined) return bad(`must be a duration such as "30s" or "500ms", and is ${shown(value)}`)
  return durationMs <= LIMITS.durationMsMax ? good(durationMs) : bad(`is longer than a timer can wait (24 days)`)
}

export const checkSizeBytes: Check<number> = (value) => {
  const sizeBytes = typeof value === 'string' ? parseSizeBytes(value) : value
  return typeof sizeBytes === 'number' && Number.isSafeInteger(sizeBytes) && sizeBytes >= 0
    ? good(sizeBytes)
    : bad(`must be a size such as "64MiB" or a number of bytes, and is ${shown(value)}`)
}

export function textOf(bytesMax: number): Check<string> {
  return (value) => {
    if (typeof value !== 'string') return bad(`must be a text, and is ${shown(value)}`)
    const lengthBytes = Buffer.byteLength(value)
    if (lengthBytes > bytesMax) return bad(`must be at most ${bytesMax} bytes long, and has ${lengthBytes}`)
    // A control character would let a name forge lines of logs and tables.
    return /\p{Cc}/u.test(value) ? bad(`must not contain control characters, and is ${shown(value)}`) : good(value)
  }
}

/** An absolute path; a relative one starts at `base`. */
export function pathFrom(base: string): Check<string> {
  return (value) => {
    const text = textOf(4095)(value)
    if (!text.ok) return text
    return text.value === '' ? bad('must be a path, and is empty') : good(resolve(base, text.value))
  }
}

export const checkExportName: Check<string> = (value) => {
  const text = textOf(LIMITS.exportNameBytesMax)(value)
  if (!text.ok || exportName.test(text.value)) return text
  return bad(`must be letters, digits and _ . : @ + - (not first), and is ${shown(value)}`)
}

/** An image id names a folder and a key: as an export's name, and not too long for a file name with a suffix. */
export const checkImageId: Check<string> = checkExportName

export const checkEndpoint: Check<Endpoint> = (value) => {
  if (typeof value !== 'string') return bad(`must be a URL such as "unix:/path.sock", and is ${shown(value)}`)
  const endpoint = parseEndpoint(value)
  return isEndpoint(endpoint) ? good(endpoint) : bad(`holds a URL that cannot be used: ${endpoint.problem}`)
}

/** `http://HOST:PORT` or `https://HOST:PORT`, as etcd's endpoints are written; nothing else in it. */
export const checkHttpUrl: Check<string> = (value) => {
  const expected = 'must hold URLs such as "http://127.0.0.1:2379"'
  if (typeof value !== 'string' || !/^https?:\/\/[^/?#@\s]+\/?$/.test(value) || !URL.canParse(value)) {
    return bad(`${expected}, and holds ${shown(value)}`)
  }
  return good(value.replace(/\/$/, ''))
}

/** What keys begin with: it ends in a slash, so that no image id can run into it. */
export const checkKeyPrefix: Check<string> = (value) => {
  const text = textOf(1024)(value)
  if (!text.ok || text.value.endsWith('/')) return text
  return bad(`must end in a slash, and is ${shown(value)}`)
}

/** A list, not empty. A single value stands for a list of one. */
export function listOf<T>(check: Check<T>): Check<readonly T[]> {
  return (value) => {
    const items: readonly unknown[] = Array.isArray(value) ? value : [value]
    if (items.length === 0) return bad('must not be an empty list')
    const values: T[] = []
    for (const item of items) {
      const checked = check(item)
      if (!checked.ok) return checked
      values.push(checked.value)
    }
    return good(values)
  }
}

export function good<T>(value: T): Checked<T> {
  return { ok: true, value }
}

export function bad(problem: string): { readonly ok: false; readonly problem: string } {
  return { ok: false, problem }
}

/** A value for a message: short, on one line, and with its kind visible. */
function shown(value: unknown): string {
  if (Array.isArray(value)) return 'a list'
  if (typeof value === 'object' && value !== null) return value instanceof Date ? 'a date' : 'a table'
  if (typeof value === 'string') return JSON.stringify(value.length > 80 ? `${value.slice(0, 77)}...` : value)
  return String(value)
}
