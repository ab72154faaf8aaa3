/**
 * Small whole files, for records and identities: made durable before they are named, read whole, listed. All of it is
 * synchronous and answers a negative errno instead of throwing.
 */

import { mkdirSync, readdirSync, renameSync, unlinkSync } from 'node:fs'
import { join } from 'node:path'
import { closeDescriptor } from '../posix/descriptor.ts'
import { ERRNO } from '../posix/errno.ts'
import { fsync, OPEN, openFile, pread, pwrite } from '../posix/file.ts'

const FIRST_READ_BYTES = 16_384

/** 0 or -errno. On failure nothing is left behind; -EEXIST where the name is taken. */
export function createFile(path: string, bytes: Uint8Array, mode: number): number {
  const descriptor = openFile(path, OPEN.readWrite | OPEN.create | OPEN.exclusive | OPEN.noFollow, mode)
  if (descriptor < 0) return descriptor
  let result = writeAll(descriptor, bytes)
  if (result === 0) result = fsync(descriptor)
  // A network file system may report a failed write only here.
  const closed = closeDescriptor(descriptor)
  if (result === 0) result = closed
  if (result < 0) removeFile(path)
  return result
}

/** The whole file; -EFBIG where it is longer than the bound; another -errno. */
export function readFile(path: string, lengthBytesMax: number): Uint8Array | number {
  const descriptor = openFile(path, OPEN.readOnly | OPEN.nonBlocking)
  if (descriptor < 0) return descriptor
  let bytes = new Uint8Array(Math.min(lengthBytesMax + 1, FIRST_READ_BYTES))
  let lengthBytes = 0
  let result = 1
  while (result > 0 && lengthBytes <= lengthBytesMax) {
    if (lengthBytes === bytes.length) bytes = grown(bytes, lengthBytesMax + 1)
    result = pread(descriptor, bytes.subarray(lengthBytes), bytes.length - lengthBytes, lengthBytes)
    if (result > 0) lengthBytes += result
  }
  closeDescriptor(descriptor)
  if (result < 0) return result
  if (lengthBytes > lengthBytesMax) return -ERRNO.EFBIG
  return bytes.slice(0, lengthBytes)
}

/** 0 or -errno. */
export function removeFile(path: string): number {
  return answering(() => {
    unlinkSync(path)
    return 0
  })
}

/** Those that can be removed. 0, whatever became of each. */
export function removeFiles(paths: readonly string[]): number {
  for (const path of paths) removeFile(path)
  return 0
}

/** Gives the file another name, replacing what had it. 0 or -errno. */
export function renameFile(path: string, renamedPath: string): number {
  return answering(() => {
    renameSync(path, renamedPath)
    return 0
  })
}

/** The names in it, in no order; or -errno. */
export function listDirectory(path: string): readonly string[] | number {
  return answering(() => readdirSync(path))
}

/** The last of the names that match, as texts are compared; null where none does; or -errno. */
export function highestName(path: string, names: RegExp): string | number | null {
  const found = listDirectory(path)
  if (typeof found === 'number') return found
  return found.reduce<string | null>(
    (highest, name) => (names.test(name) && (highest === null || name > highest) ? name : highest),
    null,
  )
}

export interface HighestFile {
  readonly name: string
  /** As `readFile` answers: the whole file, or -errno. */
  readonly content: Uint8Array | number
}

/** The file of the highest name that matches; null where none does; -errno where the directory cannot be listed. */
export function readHighest(path: string, names: RegExp, lengthBytesMax: number): HighestFile | null | number {
  const name = highestName(path, names)
  if (typeof name !== 'string') return name
  return { name, content: readFile(join(path, name), lengthBytesMax) }
}

/** 0 or -errno; -EEXIST where there is something of that name. Its parent must exist. */
export function makeDirectory(path: string, mode: number): number {
  return answering(() => {
    mkdirSync(path, { mode })
    return 0
  })
}

/** Makes the names in a directory durable. 0 or -errno. */
export function syncDirectory(path: string): number {
  const descriptor = openFile(path, OPEN.readOnly | OPEN.directory)
  if (descriptor < 0) return descriptor
  const result = fsync(descriptor)
  closeDescriptor(descriptor)
  return result
}

function grown(bytes: Uint8Array<ArrayBuffer>, lengthBytesMax: number): Uint8Array<ArrayBuffer> {
  const larger = new Uint8Array(Math.min(bytes.length * 4, lengthBytesMax))
  larger.set(bytes)
  return larger
}

function writeAll(descriptor: number, bytes: Uint8Array): number {
  let written = 0
  while (written < bytes.length) {
    const result = pwrite(descriptor, bytes.subarray(written), bytes.length - written, written)
    if (result < 0) return result
    if (result === 0) return -ERRNO.EIO
    written += result
  }
  return 0
}

/** The result, or the errno of what node:fs threw. What is not an error of the system is a bug and goes on. */
export function answering<T>(call: () => T): T | number {
  try {
    return call()
  } catch (error) {
    const errno: unknown = error instanceof Error && 'errno' in error ? error.errno : undefined
    if (typeof errno === 'number' && errno < 0) return errno
    throw error
  }
}
