/**
 * Reads a receipt that came from outside: a file that an operator names, the body of a request, an ownership record.
 * Strict: every member present, of its kind, and no other. What it accepts is exactly a `Receipt`; what it rejects comes
 * back as a sentence that names the member. Nothing is repaired and nothing is guessed.
 */

import { Malformed, Members } from '../foundation/members.ts'
import { CLEARED_BY, CLOSE_REASONS, DURABILITIES, RECEIPT_VERSION } from './receipt.ts'
import type { AbortedRequest, FenceReport, Receipt } from './receipt.ts'
import type { Range } from './range.ts'

const COOKIE = /^[0-9a-f]{16}$/

/** The receipt, or why it is none. */
export function parseReceipt(value: unknown): Receipt | string {
  try {
    return readReceipt(new Members('receipt', value))
  } catch (error) {
    if (error instanceof Malformed) return error.message
    throw error
  }
}

/** The same as part of something larger; throws `Malformed`. */
export function readReceipt(members: Members): Receipt {
  // First of all: a later version may have members that are unknown here.
  const version = members.oneOf('version', [RECEIPT_VERSION])
  const image = members.object('image')
  const holder = members.object('holder')
  const drained = members.object('drained')
  const elapsed = members.object('elapsedMs')
  const receipt: Receipt = {
    version,
    export: members.text('export'),
    image: {
      path: image.text('path'),
      size: image.count('size'),
      device: image.text('device'),
      inode: image.count('inode'),
    },
    generation: members.count('generation', 1),
    holder: { host: holder.text('host'), boot: holder.text('boot'), instance: holder.text('instance') },
    state: members.oneOf('state', ['closed']),
    closedAt: members.time('closedAt'),
    durability: members.oneOf('durability', DURABILITIES),
    drained: { requests: drained.count('requests'), writes: drained.count('writes'), bytes: drained.count('bytes') },
    aborted: members.list('aborted', readAborted),
    indeterminate: members.list('indeterminate', readRange),
    reason: members.oneOf('reason', CLOSE_REASONS),
    nonce: members.text('nonce'),
    clearedBy: members.oneOf('clearedBy', CLEARED_BY),
    ...(members.has('unsafe') && { unsafe: members.texts('unsafe') }),
    ...(members.has('fence') && { fence: readFence(members.object('fence')) }),
    elapsedMs: {
      drain: elapsed.duration('drain'),
      sync: elapsed.duration('sync'),
      record: elapsed.duration('record'),
      total: elapsed.duration('total'),
    },
  }
  for (const part of [members, image, holder, drained, elapsed]) part.end()
  if (receipt.drained.writes > receipt.drained.requests) {
    throw new Malformed('receipt.drained counts more writes than requests')
  }
  return receipt
}

export function readFence(members: Members): FenceReport {
  const fence: FenceReport = {
    command: members.text('command'),
    plug: members.text('plug'),
    exitStatus: members.count('exitStatus'),
    output: members.anyText('output'),
  }
  members.end()
  return fence
}

function readAborted(members: Members): AbortedRequest {
  return {
    client: members.count('client'),
    cookie: members.matching('cookie', COOKIE, 'sixteen hexadecimal digits'),
    command: members.text('command'),
    ...readRange(members),
  }
}

function readRange(members: Members): Range {
  const range = { offset: members.count('offset'), length: members.count('length') }
  if (!Number.isSafeInteger(range.offset + range.length)) {
    throw new Malformed(`${members.path} ends beyond what a size can be`)
  }
  return range
}
