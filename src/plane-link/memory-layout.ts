/**
 * How a worker's memory is divided. The I/O buffers come first, so that an engine can register just them; then one page
 * run of zeroes for zeroing by writing; then, for each connection, its inbox (bytes received and not yet parsed) and its
 * reply headers. Untouched pages cost nothing, so the inboxes of idle connections are free.
 */

import { assert } from '../foundation/assert.ts'

export const PAGE_BYTES = 4096

export interface MemoryNeeds {
  readonly arenaBytes: number
  readonly connectionsMax: number
  readonly inboxBytes: number
  readonly requestsPerConnectionMax: number
}

export const ZERO_FILL_BYTES = 1024 * 1024
export const REPLY_HEADER_BYTES = 16

export interface MemoryLayout {
  readonly buffersAt: number
  readonly buffersBytes: number
  readonly zeroesAt: number
  readonly inboxesAt: number
  readonly inboxBytes: number
  readonly headersAt: number
  readonly headersBytes: number
  readonly totalBytes: number
}

export function layOutMemory(needs: MemoryNeeds): MemoryLayout {
  const buffersBytes = needs.arenaBytes
  const zeroesAt = buffersBytes
  const inboxesAt = zeroesAt + ZERO_FILL_BYTES
  const headersAt = inboxesAt + needs.connectionsMax * needs.inboxBytes
  const headersBytes = pageAlign(needs.requestsPerConnectionMax * REPLY_HEADER_BYTES)
  const totalBytes = headersAt + needs.connectionsMax * headersBytes
  assert(needs.inboxBytes % PAGE_BYTES === 0, 'an inbox is whole pages')
  assert(totalBytes < 2 ** 31, 'arena offsets fit an Int32')
  return {
    buffersAt: 0,
    buffersBytes,
    zeroesAt,
    inboxesAt,
    inboxBytes: needs.inboxBytes,
    headersAt,
    headersBytes,
    totalBytes,
  }
}

function pageAlign(bytes: number): number {
  return Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES
}
