/**
 * Moves the records of images from the home that one configuration names to the home that another one names, without a
 * daemon, for `interlockctl record move`. Of each file only [ownership] is used, and from its exports the ids by which the
 * homes know the images. One record after the other; what stands in the way of one is told, and the next one is tried.
 */

import { BlockingPool } from './blocking/blocking-pool.ts'
import type { Configuration } from './config/configuration.ts'
import { hostOfThisProcess } from './config/defaults.ts'
import { checkConfigurationFile } from './config/load.ts'
import { Refusal } from './foundation/refusal.ts'
import type { RefusalCode } from './foundation/refusal.ts'
import type { RecordHome } from './ownership/home.ts'
import { moveRecord } from './ownership/record-move.ts'
import type { MovedRecord } from './ownership/record-move.ts'
import { imageIdIn, realPathOf, RecordHomes } from './record-homes.ts'

export interface MoveRequest {
  /** Of images, absolute; none: those of all exports of the second configuration. */
  readonly paths: readonly string[]
  /** Configuration files. */
  readonly from: string
  readonly to: string
  /** In place of the ids that the configurations give the image. */
  readonly imageId: string | null
}

export type MoveResult = { readonly path: string } & (
  | ({ readonly kind: 'done' } & MovedRecord)
  | { readonly kind: 'refused'; readonly code: RefusalCode; readonly detail: string }
)

/** Throws a ConfigurationError where a file has mistakes, and a Refusal where nothing can be moved by them. */
export async function moveRecords(request: MoveRequest): Promise<readonly MoveResult[]> {
  const from = checkConfigurationFile(request.from, hostOfThisProcess())
  const to = checkConfigurationFile(request.to, hostOfThisProcess())
  for (const { ownership, file } of [from, to]) {
    if (ownership.kind === 'none') throw new Refusal('bad-request', `${file ?? ''}: kind "none" keeps no records`)
  }
  const paths =
    request.paths.length > 0 ? request.paths : to.exports.filter((each) => !each.readOnly).map(({ path }) => path)
  if (paths.length === 0) throw new Refusal('bad-request', `${request.to} has no exports: name an image`)
  if (request.imageId !== null && paths.length > 1) {
    throw new Refusal('bad-request', 'one image id is that of one image')
  }
  const threads = new BlockingPool('records', 1)
  const log = { info: () => undefined, warn: () => undefined }
  const homes = {
    from: new RecordHomes(from, threads, log, 'visitor'),
    to: new RecordHomes(to, threads, log, 'visitor'),
  }
  try {
    const results: MoveResult[] = []
    for (const path of paths) {
      const ids = { from: idOf(request, path, from, to), to: idOf(request, path, to, from) }
      results.push(await moveOne(path, homes, ids))
    }
    return results
  } finally {
    await homes.from.close()
    await homes.to.close()
    await threads.close()
  }
}

interface Both<T> {
  readonly from: T
  readonly to: T
}

async function moveOne(path: string, homes: Both<RecordHomes>, ids: Both<string | null>): Promise<MoveResult> {
  try {
    if (ids.from === null || ids.to === null) {
      throw new Refusal('bad-request', `no export of the configurations is ${path}: give --image-id`)
    }
    const realPath = realPathOf(path)
    const located = (home: RecordHome): RecordHome => {
      home.locate(realPath)
      return home
    }
    const [from, to] = [located(homes.from.homeOf(ids.from)), located(homes.to.homeOf(ids.to))]
    const moved = await moveRecord({ from, to, imageId: ids.to, now: new Date().toISOString() })
    return { path, kind: 'done', ...moved }
  } catch (error) {
    if (!(error instanceof Refusal)) throw error
    return { path, kind: 'refused', code: error.code, detail: error.message }
  }
}

/** By which a home knows the image: as its configuration says, else the other one. */
function idOf(request: MoveRequest, path: string, own: Configuration, other: Configuration): string | null {
  return request.imageId ?? imageIdIn([own, other], path)
}
