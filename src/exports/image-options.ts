/**
 * How an export's definition asks for its image to be opened: the same whether it is opened for standby, for writing or
 * read-only, so that what standby found is what the opening finds. How many hard links the image may have is not asked
 * here: an operator may have adopted them, and that is in the record.
 */

import type { ImageOptions } from './image.ts'
import type { ExportDefinition } from './verbs.ts'

export function imageOptions(definition: ExportDefinition): ImageOptions {
  return { cache: definition.cache, durability: definition.durability, linksMax: Number.MAX_SAFE_INTEGER }
}
