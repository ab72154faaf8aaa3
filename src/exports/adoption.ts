/**
 * The deliberate way for an image that is not what its record says: it has hard links, it was replaced or restored, it is
 * a copy. An operator says that it is right as it is, and the record is made to say so, by compare-and-swap like any other
 * change. Nothing is opened by it, and nobody is pushed aside: where the record has a holder, that one closes first, except
 * for a copy, whose record came along with it and tells of somebody else's image.
 */

import { Refusal } from '../foundation/refusal.ts'
import { DirectoryHome } from '../ownership/directory-home.ts'
import type { ImageIdentity, Newest, OwnershipRecord, RecordDraft, RecordHolder } from '../ownership/home.ts'
import { sequenceOf } from '../ownership/home.ts'
import type { ExportContext } from './export-context.ts'
import type { HostedExport } from './hosted-export.ts'
import { imageIdentity, inspectImage, linksRefusal } from './image.ts'
import { imageOptions } from './image-options.ts'
import { OwnershipSide } from './ownership-side.ts'
import type { AdoptOptions } from './verbs.ts'

/** What the record may become; by whom it is written where it begins anew. */
type Adoption = { readonly draft: Omit<RecordDraft, 'holder'>; readonly holder: RecordHolder | 'ours' } | null

export async function adoptImage(context: ExportContext, hosted: HostedExport, options: AdoptOptions): Promise<void> {
  const { definition, ownership } = hosted
  const facts = await inspectImage(context.images, definition.path, imageOptions(definition))
  context.claimImage(hosted.name, facts)
  ownership.home.locate(facts.realPath)
  const newest = await ownership.readNewest()
  const isRecorded = newest.kind === 'record' && ownership.matches(newest.record, facts)
  const links = newest.kind === 'record' ? Math.max(1, newest.record.image.links) : 1
  const isAccepted = (isRecorded || newest.kind === 'absent') && linksRefusal(definition.path, facts, links) === null
  const adoption = isAccepted ? null : adoptionOf(hosted, newest, imageIdentity(facts), isRecorded, options)
  if (adoption === null) return
  const holder = adoption.holder === 'ours' ? await context.host.newHolder() : adoption.holder
  const outcome = await ownership.home.compareAndSwap(sequenceOf(newest), { ...adoption.draft, holder })
  if (!outcome.won) throw OwnershipSide.heldBy('held-by-other', 'somebody else was first', outcome.newest)
  if (adoption.holder === 'ours') ownership.keeper.take(outcome.record)
  const { realPath, inode } = facts
  context.log.warn({ export: hosted.name, realPath, inode, links: facts.links, ...options }, 'the image was adopted')
}

function adoptionOf(
  hosted: HostedExport,
  newest: Newest,
  image: ImageIdentity,
  isRecorded: boolean,
  { copy }: AdoptOptions,
): Adoption {
  const { imageId } = hosted.ownership
  const begun = { imageId, image, state: 'closed', closeReason: 'handover', receipt: null, intent: null } as const
  const anew = { ...begun, draining: [], cleared: null } as const
  switch (newest.kind) {
    case 'unreadable':
      throw new Refusal(
        'record-unreadable',
        `${newest.detail}; look at it with 'interlockctl record show', and repair it`,
      )
    case 'absent':
      return { draft: { ...anew, generation: 1 }, holder: 'ours' }
    case 'record':
      if (copy) {
        refuseUnlessCopied(hosted, newest.record, isRecorded)
        return { draft: { ...anew, generation: newest.record.generation + 1 }, holder: 'ours' }
      }
      return adoptionOfClosed(newest.record, imageId, image, isRecorded)
  }
}

/** The same life goes on with the image as it is. */
function adoptionOfClosed(
  { version: _version, sequence: _sequence, ...record }: OwnershipRecord,
  imageId: string,
  image: ImageIdentity,
  isRecorded: boolean,
): Adoption {
  const { holder, generation, state, intent } = record
  if (state === 'closed' && intent === null) return { draft: { ...record, imageId, image }, holder }
  const advice = isRecorded ? '' : ", or, if this image is a copy that came with its record, 'adopt --copy'"
  throw new Refusal(
    'held-by-other',
    `${holder.name} (${holder.host}) has generation ${generation}, which is ${state}: 'close' it there first${advice}`,
  )
}

function refuseUnlessCopied(
  { name, definition, ownership }: HostedExport,
  record: OwnershipRecord,
  isRecorded: boolean,
): void {
  if (isRecorded)
    throw new Refusal('wrong-state', `the image of export '${name}' is the recorded one, and no copy of it`)
  if (ownership.home instanceof DirectoryHome && ownership.home.beside) return
  throw new Refusal(
    'held-by-other',
    `the record ${ownership.home.describe()} was not copied with ${definition.path}: it is that of ${record.image.realPath}; ` +
      'give the copy an image_id of its own',
  )
}
