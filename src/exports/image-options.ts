/**
 * How an export's definition asks for its image to be opened: the same whether it is opened for standby, for writing or
 * read-only, so that what standby found is what the opening finds.
 */

import type { ImageOptions } from './image.ts'
import type { ExportDefinition } from './verbs.ts'

export function imageOptions(definition: ExportDefinition): ImageOptions {
  return { cache: definition.cache, durability: definition.durability, linksMax: 1 }
}
