/**
 * Whether both ends mean one image. Where the record is shared, the source writes it anew and the destination has to find
 * exactly that record: a wrong address, a copied disk or a record in another place cannot show it. Beside it the images
 * are compared as they were measured, unless the operator has declared who they are. Where no record is shared nothing
 * proves it, and somebody's word is wanted.
 */

import { ask, pause } from './errand.ts'
import type { ErrandOptions } from './errand.ts'
import type { Finding } from './preflight.ts'
import type { HandoverTerms } from './terms.ts'
import type { Answering, Disk } from './view.ts'

/** What shows that the images are one. */
export type SameImageProof = 'record' | 'word' | 'none'

/** A network file system may show a new name in a directory some time later. */
const FIND_MS = 5_000
const AGAIN_MS = 100

export async function sameImageFindings(
  disk: Disk,
  source: Answering,
  destination: Answering,
  terms: HandoverTerms,
  options: ErrandOptions,
): Promise<{ readonly proof: SameImageProof; readonly findings: readonly Finding[] }> {
  const images = imageFindings(source, destination)
  const one = source.ownership.home
  const other = destination.ownership.home
  if (one.shared && other.shared) {
    if (await destinationFindsRenewed(disk, options)) return { proof: 'record', findings: images }
    return { proof: 'none', findings: [...images, elsewhere(source, destination)] }
  }
  if (one.shared !== other.shared) return { proof: 'none', findings: [...images, elsewhere(source, destination)] }
  if (terms.sameImage) return { proof: 'word', findings: images }
  const detail = 'no record is shared that would prove that both ends mean one image'
  const mend = 'a shared [ownership], or --same-image where you know it'
  return {
    proof: 'none',
    findings: [...images, { code: 'image-unproved', severity: 'refuses', end: 'both', detail, mend }],
  }
}

async function destinationFindsRenewed(disk: Disk, options: ErrandOptions): Promise<boolean> {
  const { name } = disk
  const deadlineMs = performance.now() + FIND_MS
  let renewed = await ask(disk.source, (daemon, signal) => daemon.renew(name, { signal }), options)
  for (;;) {
    const { record } = renewed
    if (record === null) return false
    const found = await ask(disk.destination, (daemon, signal) => daemon.ownership(name, { signal }), options)
    if (found.record?.fingerprint === record.fingerprint) return true
    if (performance.now() >= deadlineMs) return false
    await pause(AGAIN_MS, options)
    // Somebody has written since: what is to be found is another one now.
    if (found.record !== null && found.record.sequence > record.sequence) {
      renewed = await ask(disk.source, (daemon, signal) => daemon.ownership(name, { signal }), options)
    }
  }
}

function imageFindings(source: Answering, destination: Answering): Finding[] {
  const one = source.ownership.image
  const other = destination.ownership.image
  if (one === null || other === null) {
    const end = one === null ? 'source' : 'destination'
    const detail = (one === null ? source : destination).status.stateReason ?? 'its image was not opened yet'
    return [{ code: 'image-differs', severity: 'refuses', end, detail, mend: `mend it, then 'standby' there` }]
  }
  const findings: Finding[] = []
  if (one.sizeBytes !== other.sizeBytes) {
    const detail = `the source's image has ${one.sizeBytes} bytes, the destination's ${other.sizeBytes}`
    const mend = `'standby' at the destination looks at it anew; else they are two images`
    findings.push({ code: 'size-differs', severity: 'refuses', end: 'both', detail, mend })
  }
  if (measuredAlike(one, other)) return findings
  const { declaredId } = source.ownership
  const described = `${describe(one)} at the source, ${describe(other)} at the destination`
  if (declaredId !== null && declaredId === destination.ownership.declaredId) {
    const detail = `declared to be '${declaredId}', and measured as ${described}`
    const mend = 'make sure of the paths: nothing but the declaration says that they are one'
    return [...findings, { code: 'image-declared', severity: 'condition', end: 'both', detail, mend }]
  }
  const mend = 'mend the path, or declare the same image_id at both ends'
  return [...findings, { code: 'image-differs', severity: 'refuses', end: 'both', detail: described, mend }]
}

type Image = NonNullable<Answering['ownership']['image']>

/** As the record compares an image with the one that it names. */
function measuredAlike(one: Image, other: Image): boolean {
  if (one.kind !== other.kind) return false
  if (one.wwid !== null || other.wwid !== null) return one.wwid === other.wwid
  return one.kind === 'block' ? one.realPath === other.realPath : one.inode === other.inode
}

function describe({ realPath, kind, inode, wwid }: Image): string {
  return `${realPath} (${kind === 'file' ? `inode ${inode}` : (wwid ?? 'a device without a name of its own')})`
}

function elsewhere(source: Answering, destination: Answering): Finding {
  const one = source.ownership.home
  const other = destination.ownership.home
  return {
    code: 'record-elsewhere',
    severity: 'refuses',
    end: 'both',
    detail: `the destination does not find what the source has just recorded (source: ${one.place}; destination: ${other.place})`,
    mend: 'give both the same [ownership], on storage that both see, and the same image',
  }
}
