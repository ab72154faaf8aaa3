/**
 * Opening an image for writing, up to the moment when writes may be submitted: the descriptor, the locks, the record.
 * Whatever fails leaves nothing behind: no descriptor, no lock, no record that says more than is true.
 *
 *     open read-write ─▶ QEMU's locks ─▶ claim all generations ─▶ record `opening g` ─▶ narrow to g ─▶ record `open`
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { Refusal } from '../foundation/refusal.ts'
import { receiptProblem } from '../interlock/receipt.ts'
import type { Receipt } from '../interlock/receipt.ts'
import type { GenerationLock } from '../ownership/generation-lock.ts'
import { claimGenerations } from '../ownership/generation-lock.ts'
import type { Newest, OwnershipRecord, RecordDraft, RecordHolder, RecordHome, RecordState } from '../ownership/home.ts'
import { sequenceOf } from '../ownership/home.ts'
import { lockImage } from '../ownership/image-lock.ts'
import { errnoName } from '../posix/errno.ts'
import type { ExportContext } from './export-context.ts'
import type { OpenImage } from './image.ts'
import { closeImage, imageIdentity, openImage } from './image.ts'
import { imageOptions } from './image-options.ts'
import type { ExportDefinition } from './verbs.ts'

const LOCK_INTERVAL_MS = 25

export interface Opened {
  readonly image: OpenImage
  readonly lock: GenerationLock
  readonly generation: number
  readonly record: OwnershipRecord
}

export interface OpeningRequest {
  readonly definition: ExportDefinition
  readonly home: RecordHome
  readonly receipt: Receipt | null
  /** What this export's clients were told; an image that shrank is refused. 0 where nobody was told anything. */
  readonly knownSizeBytes: number
  /** How long to wait for a lock that somebody else still holds. */
  readonly timeoutMs: number
  /** Turns true when the opening is not wanted any more. */
  readonly abandoned: () => boolean
}

export async function openForWriting(context: ExportContext, request: OpeningRequest): Promise<Opened> {
  const { definition } = request
  const image = await openImage(context.images, definition.path, 'write', imageOptions(definition))
  try {
    context.claimImage(definition.name, image.facts)
    refuseShrunken(definition, image, request)
    const newest = await request.home.readNewest()
    const generation = nextGeneration(definition.name, newest, request.receipt)
    if (request.receipt !== null) checkReceipt(request.receipt, definition, image, newest)
    const lock = await claim(context, request, image)
    const holder = await makeHolder(context)
    const opening = draft(definition, image, generation, holder, 'opening')
    const published = await swap(request.home, sequenceOf(newest), opening)
    const narrowed = await lock.narrow(generation)
    if (narrowed < 0) throw new Refusal('image-io', `the generation's lock failed: ${errnoName(narrowed)}`)
    if (request.abandoned())
      throw new Refusal('export-fenced', `export '${definition.name}' was fenced while it opened`)
    const record = await swap(request.home, published.sequence, { ...opening, state: 'open' })
    return { image, lock, generation, record }
  } catch (error) {
    await closeImage(context.images, image)
    throw error
  }
}

function refuseShrunken(definition: ExportDefinition, image: OpenImage, request: OpeningRequest): void {
  const { sizeBytes } = image.facts
  if (sizeBytes >= request.knownSizeBytes) return
  throw new Refusal(
    'image-changed',
    `${definition.path} shrank from ${request.knownSizeBytes} to ${sizeBytes} bytes since its clients were told its size`,
  )
}

function nextGeneration(name: string, newest: Newest, receipt: Receipt | null): number {
  if (newest.kind === 'unreadable') {
    throw new Refusal('image-changed', `the record of export '${name}' cannot be read: ${newest.detail}`)
  }
  const recorded = newest.kind === 'record' ? newest.record.generation : 0
  return Math.max(recorded, receipt?.generation ?? 0) + 1
}

function checkReceipt(receipt: Receipt, definition: ExportDefinition, image: OpenImage, newest: Newest): void {
  const problem = receiptProblem(receipt, {
    export: definition.name,
    sizeBytes: image.facts.sizeBytes,
    nonce: null,
    generationMin: newest.kind === 'record' ? newest.record.generation : null,
  })
  if (problem !== null) throw new Refusal('receipt-mismatch', problem)
}

/** Both kinds of locks; waits for them as long as the request says. */
async function claim(context: ExportContext, request: OpeningRequest, image: OpenImage): Promise<GenerationLock> {
  const { definition } = request
  const deadlineMs = context.now() + request.timeoutMs
  for (;;) {
    const attempt = await claimOnce(context, image)
    if (typeof attempt !== 'string') return attempt
    if (context.now() >= deadlineMs || request.abandoned()) {
      throw new Refusal('image-in-use', `${definition.path} is in use: ${attempt}`)
    }
    await sleep(LOCK_INTERVAL_MS)
  }
}

async function claimOnce(context: ExportContext, image: OpenImage): Promise<GenerationLock | string> {
  const descriptor = image.descriptor.number
  const claimed = await claimGenerations(context.images, descriptor, [])
  if (claimed.kind === 'busy') return 'another daemon has it open for writing, or its last writes have not cleared'
  if (claimed.kind === 'failed') throw new Refusal('image-io', `its locks failed: ${errnoName(claimed.errno)}`)
  const locked = await lockImage(context.images, descriptor, 'write')
  if (locked.kind === 'busy') return locked.detail
  if (locked.kind === 'failed') throw new Refusal('image-io', `its locks failed: ${errnoName(locked.errno)}`)
  return claimed.lock
}

async function makeHolder(context: ExportContext): Promise<RecordHolder> {
  const { host, boot, instance, name } = context.identity
  const openToken = await context.leaveOpenToken()
  return { host, boot, instance, name, openToken }
}

function draft(
  definition: ExportDefinition,
  image: OpenImage,
  generation: number,
  holder: RecordHolder,
  state: RecordState,
): RecordDraft {
  return {
    imageId: definition.imageId ?? definition.name,
    image: imageIdentity(image.facts),
    generation,
    state,
    holder,
    closeReason: null,
    receipt: null,
    draining: [],
    intent: null,
    cleared: null,
  }
}

async function swap(home: RecordHome, expected: number, content: RecordDraft): Promise<OwnershipRecord> {
  const outcome = await home.compareAndSwap(expected, content)
  if (outcome.won) return outcome.record
  const winner = outcome.newest.kind === 'record' ? outcome.newest.record.holder : null
  throw new Refusal(
    'held-by-other',
    winner === null ? 'somebody else changed the record first' : `${winner.name} (${winner.host}) was first`,
    { holder: winner },
  )
}
