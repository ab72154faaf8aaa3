/** A catalogue held in memory: what a negotiation under test is told about the exports. */

import type { ExportCatalogue, ExportOffer } from '../../src/nbd/export-catalogue.ts'

export const SIZE_BYTES = 3 * 2 ** 40 + 512

export function offerOf(name: string, changes: Partial<ExportOffer> = {}): ExportOffer {
  return {
    name,
    description: '',
    sizeBytes: SIZE_BYTES,
    transmissionFlags: 0x0d6d,
    preferredBlockBytes: 4096,
    minimumBlockBytes: 1,
    ...changes,
  }
}

/** Exports named here are offered; those in `closed` are listed and refused. */
export function catalogueOf(offers: readonly ExportOffer[], closed: readonly string[] = []): ExportCatalogue {
  return {
    list: () => [...offers, ...closed.map((name) => ({ name, description: 'closed' }))],
    offer: (name) => {
      if (closed.includes(name)) return { refused: 'shutdown', message: `'${name}' was closed and opened elsewhere` }
      const found = offers.find((offer) => offer.name === name)
      return found ?? { refused: 'unknown', message: `there is no export '${name}'` }
    },
  }
}
