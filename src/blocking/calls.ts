/**
 * The calls that may wait for a disk, a file server or another holder, as messages: what to do, and what comes back.
 * This file says what each call means by running it; where it runs is decided elsewhere (a `BlockingThread` in the
 * daemon). A call never throws: its failure is a negative errno. Descriptors are plain numbers here, because any thread
 * of the process may use them; who owns one does not change by a call, except that `open` makes and `close` ends it.
 */

import { unreachable } from '../foundation/assert.ts'
import { discardBlocks, zeroBlocks } from '../posix/block-device.ts'
import { closeDescriptor } from '../posix/descriptor.ts'
import { fallocate, fdatasync, fsync, link, OPEN, openFile } from '../posix/file.ts'
import { queryLock, setLock, unlock } from '../posix/locks.ts'
import type { LockKind } from '../posix/locks.ts'
import type { HighestFile } from './file-calls.ts'
import {
  createFile,
  highestName,
  listDirectory,
  makeDirectory,
  readFile,
  readHighest,
  removeFile,
  removeFiles,
  renameFile,
  syncDirectory,
} from './file-calls.ts'
import { checkImage, measureImage } from './image-measurement.ts'
import type { ImageMark, ImageMeasurement, MeasureImage } from './image-measurement.ts'
import { probe } from './stack-probes.ts'
import type { ProbeCall, ProbeParameters, ProbeResults } from './stack-probes.ts'

interface OnDescriptor {
  readonly descriptor: number
}

interface OnRange extends OnDescriptor {
  readonly offset: number
  readonly lengthBytes: number
}

interface OnLock extends OnDescriptor {
  readonly start: bigint
  /** 0 reaches to the end of all offsets. */
  readonly length: bigint
}

/** What each call takes, by its kind. */
export interface BlockingParameters extends ProbeParameters {
  /** `flags` are of `OPEN` in posix/file.ts; close-on-exec is always added. */
  readonly open: { readonly path: string; readonly flags: number; readonly mode: number }
  readonly close: OnDescriptor
  readonly fsync: OnDescriptor
  readonly fdatasync: OnDescriptor
  /** `mode` is of `FALLOCATE` in posix/file.ts. */
  readonly fallocate: OnRange & { readonly mode: number }
  readonly discardBlocks: OnRange
  readonly zeroBlocks: OnRange
  readonly link: { readonly existingPath: string; readonly createdPath: string }
  readonly lock: OnLock & { readonly lock: LockKind }
  readonly unlock: OnLock
  readonly queryLock: OnLock & { readonly lock: LockKind }
  /** A new file with these bytes, fsynced; its name becomes durable with `syncDirectory`. Never replaces. */
  readonly createFile: { readonly path: string; readonly bytes: Uint8Array; readonly mode: number }
  readonly readFile: { readonly path: string; readonly lengthBytesMax: number }
  readonly removeFile: { readonly path: string }
  /** Those that can be removed: 0, whatever became of each. */
  readonly removeFiles: { readonly paths: readonly string[] }
  readonly renameFile: { readonly path: string; readonly renamedPath: string }
  readonly listDirectory: { readonly path: string }
  /** Of each directory the highest name that matches, as texts are compared. */
  readonly highestNames: { readonly paths: readonly string[]; readonly names: RegExp }
  /** The file of the highest name that matches, in one way to the thread. */
  readonly readHighest: { readonly path: string; readonly names: RegExp; readonly lengthBytesMax: number }
  readonly makeDirectory: { readonly path: string; readonly mode: number }
  readonly syncDirectory: { readonly path: string }
  readonly measureImage: MeasureImage
  /** Through a file opened for this question only; -ESTALE where another one is there by now. */
  readonly queryLockByPath: { readonly image: ImageMark; readonly lock: LockKind } & Omit<OnLock, 'descriptor'>
  /** One after another, up to the first that fails, for the price of one way to the thread and back. */
  readonly inTurn: { readonly calls: readonly PlainCall[] }
  /** The same, and where none of them failed the directory is listed behind them. */
  readonly inTurnThenList: { readonly calls: readonly PlainCall[]; readonly path: string }
  /** Every one of them, whatever the others answer, for the price of one way as well. */
  readonly each: { readonly calls: readonly ProbeCall[] }
}

export type BlockingKind = keyof BlockingParameters
export type BlockingCall = CallOf<BlockingKind>

type CallOf<K extends BlockingKind> = { [P in K]: { readonly kind: P } & BlockingParameters[P] }[K]

/** One that is answered by a number. */
export type PlainCall = CallOf<Exclude<BlockingKind, keyof OtherResults>>

/** What is not answered by a plain number (0, a descriptor, an answer of `queryLock`, or -errno). */
interface OtherResults extends ProbeResults {
  readonly readFile: Uint8Array | number
  readonly listDirectory: readonly string[] | number
  /** In the order of the paths; null where no name matches, -errno where it cannot be listed. */
  readonly highestNames: readonly (string | number | null)[]
  /** Null where no name matches; -errno where the directory cannot be listed. */
  readonly readHighest: HighestFile | null | number
  readonly measureImage: ImageMeasurement
  /** Of those that ran: fewer than were asked for where the last one failed. */
  readonly inTurn: readonly number[]
  readonly inTurnThenList: ListedResults
  /** In the order of the calls. */
  readonly each: readonly ProbeResults[ProbeCall['kind']][]
}

export interface ListedResults {
  /** As of `inTurn`. */
  readonly results: readonly number[]
  /** -errno where it cannot be listed; null where one of the calls failed. */
  readonly names: readonly string[] | number | null
}

export type BlockingResultOf<K extends BlockingKind> = K extends keyof OtherResults ? OtherResults[K] : number
export type BlockingResult = BlockingResultOf<BlockingKind>

/** Whatever runs calls one at a time, in the order given. */
export interface BlockingRunner {
  run<C extends BlockingCall>(call: C): Promise<BlockingResultOf<C['kind']>>
}

/** What `inTurn` comes to where all of the calls answer 0: that, or the -errno of the first that failed. */
export async function runInTurn(runner: BlockingRunner, calls: readonly PlainCall[]): Promise<number> {
  return (await runner.run({ kind: 'inTurn', calls })).at(-1) ?? 0
}

/** Runs the call on this very thread, which waits. */
export function perform(call: BlockingCall): BlockingResult {
  switch (call.kind) {
    case 'open':
      return openFile(call.path, call.flags, call.mode)
    case 'close':
      return closeDescriptor(call.descriptor)
    case 'fsync':
      return fsync(call.descriptor)
    case 'fdatasync':
      return fdatasync(call.descriptor)
    case 'fallocate':
      return fallocate(call.descriptor, call.mode, call.offset, call.lengthBytes)
    case 'discardBlocks':
      return discardBlocks(call.descriptor, call.offset, call.lengthBytes)
    case 'zeroBlocks':
      return zeroBlocks(call.descriptor, call.offset, call.lengthBytes)
    case 'link':
      return link(call.existingPath, call.createdPath)
    case 'lock':
      return setLock(call.descriptor, call.lock, call.start, call.length)
    case 'unlock':
      return unlock(call.descriptor, call.start, call.length)
    case 'queryLock':
      return queryLock(call.descriptor, call.lock, call.start, call.length)
    case 'createFile':
      return createFile(call.path, call.bytes, call.mode)
    case 'readFile':
      return readFile(call.path, call.lengthBytesMax)
    case 'removeFile':
      return removeFile(call.path)
    case 'removeFiles':
      return removeFiles(call.paths)
    case 'renameFile':
      return renameFile(call.path, call.renamedPath)
    case 'listDirectory':
      return listDirectory(call.path)
    case 'highestNames':
      return call.paths.map((path) => highestName(path, call.names))
    case 'readHighest':
      return readHighest(call.path, call.names, call.lengthBytesMax)
    case 'makeDirectory':
      return makeDirectory(call.path, call.mode)
    case 'syncDirectory':
      return syncDirectory(call.path)
    case 'measureImage':
      return measureImage(call)
    case 'queryLockByPath':
      return queryLockByPath(call)
    case 'inTurn':
      return performInTurn(call.calls)
    case 'inTurnThenList':
      return performThenList(call.calls, call.path)
    case 'each':
      return call.calls.map(probe)
    case 'readTexts':
    case 'readLink':
    case 'listNames':
    case 'resolvePath':
    case 'statPath':
    case 'statFileSystem':
    case 'probeDirect':
    case 'probeExtents':
    case 'probeLoop':
    case 'probeMapper':
    case 'listUsers':
      return probe(call)
    default:
      return unreachable(call)
  }
}

function performInTurn(calls: readonly PlainCall[]): readonly number[] {
  const results: number[] = []
  for (const call of calls) {
    // By the type of a plain call.
    const result = perform(call) as number
    results.push(result)
    if (result < 0) break
  }
  return results
}

function performThenList(calls: readonly PlainCall[], path: string): ListedResults {
  const results = performInTurn(calls)
  return { results, names: (results.at(-1) ?? 0) < 0 ? null : listDirectory(path) }
}

function queryLockByPath({ image, lock, start, length }: BlockingParameters['queryLockByPath']): number {
  const descriptor = openFile(image.realPath, OPEN.readOnly, 0)
  if (descriptor < 0) return descriptor
  const checked = checkImage(descriptor, image)
  const answer = checked < 0 ? checked : queryLock(descriptor, lock, start, length)
  closeDescriptor(descriptor)
  return answer
}
