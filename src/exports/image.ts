/**
 * Opening an image, and judging whether it can be served. The measuring is done by a blocking thread, because any part of
 * it hangs on a dead image; this file orders it, refuses what cannot be served, and says why in words for an operator.
 *
 * Invariants:
 * 1. An image is refused at the door or served: no later surprise about size, alignment or kind.
 * 2. Whoever gets an `OpenImage` owns its descriptor. A refusal leaves nothing open.
 * 3. Direct I/O is believed only after a direct read has succeeded.
 *
 * No claim is made here except O_EXCL on a block device opened for writing. The locks are `ownership/`'s.
 */

import type { BlockingRunner } from '../blocking/calls.ts'
import type { ImageMark, MeasuredImage } from '../blocking/image-measurement.ts'
import { Refusal } from '../foundation/refusal.ts'
import type { Durability } from '../interlock/receipt.ts'
import type { ImageIdentity } from '../ownership/home.ts'
import { OwnedDescriptor } from '../posix/descriptor.ts'
import { ERRNO, errnoName } from '../posix/errno.ts'
import { faultRefusal } from './image-refusal.ts'

/** `standby` and `read-only` differ in what is claimed afterwards, not in how the image is opened. */
export type ImageMode = 'standby' | 'write' | 'read-only'

export interface ImageOptions {
  readonly cache: 'direct' | 'buffered'
  readonly durability: Durability
  /** Hard links that a file may have. */
  readonly linksMax: number
}

export const IMAGE_DEFAULTS: ImageOptions = { cache: 'direct', durability: 'sync', linksMax: 1 }

/** What was found, without a descriptor. */
export type ImageFacts = Omit<MeasuredImage, 'descriptor'>

export interface OpenImage {
  readonly descriptor: OwnedDescriptor
  readonly facts: ImageFacts
}

/** Sizes are multiples of this on every device, whatever it is made of. */
const SECTOR_BYTES = 512

/**
 * Opens it, or rejects with a `Refusal` whose detail names the path and the cause. It waits as long as the kernel does;
 * a caller who stops waiting leaves a descriptor behind once the image answers, so don't: ask about the runner instead.
 */
export async function openImage(
  runner: BlockingRunner,
  path: string,
  mode: ImageMode,
  options: ImageOptions = IMAGE_DEFAULTS,
): Promise<OpenImage> {
  const write = mode === 'write'
  const direct = options.cache === 'direct'
  const dataSync = options.durability === 'sync'
  const measured = await runner.run({ kind: 'measureImage', path, write, direct, dataSync, exclusive: write })
  if ('fault' in measured) throw faultRefusal(path, write, measured.fault)
  const { descriptor, ...facts } = measured.image
  const refusal = judge(path, mode, facts, options)
  if (refusal !== null) {
    await runner.run({ kind: 'close', descriptor })
    throw refusal
  }
  return { descriptor: new OwnedDescriptor(descriptor), facts }
}

/** What an opening would find, and whether it would be refused; nothing stays open, and nothing is claimed. */
export async function inspectImage(
  runner: BlockingRunner,
  path: string,
  options: ImageOptions = IMAGE_DEFAULTS,
): Promise<ImageFacts> {
  const image = await openImage(runner, path, 'read-only', options)
  await closeImage(runner, image)
  return image.facts
}

/** Closes it on the blocking thread: the last close of a dead image hangs too. Rejects with `image-io` where it failed. */
export async function closeImage(runner: BlockingRunner, image: OpenImage): Promise<void> {
  const result = await runner.run({ kind: 'close', descriptor: image.descriptor.release() })
  if (result < 0 && result !== -ERRNO.EINTR) {
    throw new Refusal('image-io', `closing ${image.facts.realPath} failed: ${errnoName(result)}`)
  }
}

/** The same for two paths exactly when they are the same image on this host. */
export function imageKey(facts: ImageFacts): string {
  return facts.kind === 'block' ? `block ${facts.device}` : `file ${facts.device} ${facts.inodeText}`
}

/** By which another file in its place is told from it. */
export function markOf({ realPath, kind, device, inodeText }: ImageFacts): ImageMark {
  return { realPath, kind, device, inodeText }
}

/** What the ownership record says about the image. */
export function imageIdentity(facts: ImageFacts): ImageIdentity {
  const { realPath, kind, device, inode, wwid, links } = facts
  return { realPath, kind, device, inode, wwid, links }
}

/** The refusal of an image that could be opened under another name as if it were another; null where that is accepted. */
export function linksRefusal(path: string, { kind, links }: ImageFacts, linksMax: number): Refusal | null {
  if (kind !== 'file' || links <= linksMax) return null
  return new Refusal(
    'image-links',
    `${path} has ${links} hard links: under another name it could be opened as another image; remove the others, or ` +
      "'adopt' it as it is",
  )
}

function judge(path: string, mode: ImageMode, facts: ImageFacts, options: ImageOptions): Refusal | null {
  const links = linksRefusal(path, facts, options.linksMax)
  if (links !== null) return links
  if (facts.kind === 'file' && facts.links === 0) {
    return new Refusal('image-missing', `${path} was removed while it was opened`)
  }
  if (mode === 'write' && facts.deviceReadOnly) {
    return new Refusal('image-permission', `${path} is a read-only device and cannot be opened for writing`)
  }
  return judgeSize(path, facts)
}

function judgeSize(path: string, facts: ImageFacts): Refusal | null {
  const { sizeBytes, alignmentBytes } = facts
  if (sizeBytes === 0) return new Refusal('image-size', `${path} is empty (0 bytes)`)
  if (sizeBytes > Number.MAX_SAFE_INTEGER) {
    return new Refusal('image-size', `${path} is larger than ${Number.MAX_SAFE_INTEGER} bytes`)
  }
  const unitBytes = Math.max(SECTOR_BYTES, alignmentBytes)
  if (sizeBytes % unitBytes !== 0) {
    return new Refusal(
      'image-size',
      `${path} has an odd size: ${sizeBytes} bytes are no multiple of its block of ${unitBytes} bytes;` +
        ` resize it to ${Math.ceil(sizeBytes / unitBytes) * unitBytes}`,
    )
  }
  return null
}
