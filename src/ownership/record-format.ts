/**
 * An ownership record as bytes: readable JSON that says its format and version, names its writer by a random nonce, and
 * ends with a checksum over everything before it. Reading is strict: whatever is torn, altered, of a later version or
 * inconsistent with itself is a sentence, never half a record.
 */

import { createHash } from 'node:crypto'
import { Malformed, Members } from '../foundation/members.ts'
import type { Range } from '../interlock/range.ts'
import { CLEARED_BY, CLOSE_REASONS } from '../interlock/receipt.ts'
import { readFence, readReceipt } from '../interlock/receipt-parser.ts'
import { RECORD_STATES, RECORD_VERSION } from './home.ts'
import type {
  Clearing,
  DrainingEntry,
  HomeChange,
  ImageIdentity,
  OwnershipRecord,
  RecordHolder,
  TakeoverIntent,
} from './home.ts'

const FORMAT = 'interlockd-record'
/** A record with every request of a worker draining, and a receipt with as many aborted, fits. */
export const RECORD_BYTES_MAX = 8 * 1024 * 1024
const NONCE = /^[0-9a-f]{32}$/

const OF_ANOTHER_VERSION = 'it is of another version of the format'

export interface DecodedRecord {
  readonly record: OwnershipRecord
  /** Of the swap that wrote it. */
  readonly nonce: string
}

/** `lines` is for people who open the file; without it a record is as short as it can be. */
export function encodeRecord(record: OwnershipRecord, nonce: string, lines = true): Uint8Array {
  const { version, sequence, ...rest } = record
  const body = { format: FORMAT, version, sequence, nonce, ...rest }
  const text = JSON.stringify({ ...body, checksum: checksumOf(body) }, null, lines ? 1 : 0)
  return Buffer.from(`${text}\n`, 'utf8')
}

/** The record that the file of this sequence holds, or why it holds none. */
export function decodeRecord(bytes: Uint8Array, sequence: number): DecodedRecord | string {
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch {
    return bytes.length === 0 ? 'it is empty' : 'it is torn or no JSON'
  }
  try {
    return readRecord(new Members('record', value), value, sequence)
  } catch (error) {
    if (error instanceof Malformed) return error.message
    throw error
  }
}

/** Whether a record that cannot be understood is not damaged at all: a later program wrote it. */
export function isOfAnotherVersion(detail: string): boolean {
  return detail.includes(OF_ANOTHER_VERSION)
}

function readRecord(members: Members, value: unknown, sequence: number): DecodedRecord {
  // First of all: a later version may have members, and a checksum, that are unknown here.
  members.oneOf('format', [FORMAT])
  if (members.count('version') !== RECORD_VERSION) {
    throw new Malformed(`${OF_ANOTHER_VERSION} than ${RECORD_VERSION}, which is the one known here`)
  }
  const { checksum, ...body } = value as { checksum?: unknown }
  if (checksum !== checksumOf(body)) throw new Malformed('its checksum does not fit: it is torn or was altered')
  members.text('checksum')
  if (members.count('sequence') !== sequence) throw new Malformed('it was written under another number')
  const nonce = members.matching('nonce', NONCE, '32 hexadecimal digits')
  const record: OwnershipRecord = {
    version: RECORD_VERSION,
    sequence,
    imageId: members.text('imageId'),
    image: readImageIdentity(members.object('image')),
    generation: members.count('generation', 1),
    state: members.oneOf('state', RECORD_STATES),
    holder: readHolder(members.object('holder')),
    closeReason: members.nullable('closeReason', (name) => members.oneOf(name, CLOSE_REASONS)),
    receipt: members.nullable('receipt', (name) => readReceipt(members.object(name))),
    draining: members.list('draining', readDraining),
    intent: members.nullable('intent', (name) => readIntent(members.object(name))),
    cleared: members.nullable('cleared', (name) => readClearing(members.object(name))),
    ...(members.has('moved') && { moved: readHomeChange(members.object('moved')) }),
  }
  members.end()
  refuseContradictions(record)
  return { record, nonce }
}

/** As part of something larger; throws `Malformed`. */
export function readImageIdentity(members: Members): ImageIdentity {
  const identity: ImageIdentity = {
    realPath: members.text('realPath'),
    kind: members.oneOf('kind', ['file', 'block']),
    device: members.text('device'),
    inode: members.count('inode'),
    wwid: members.nullable('wwid', (name) => members.text(name)),
    links: members.count('links'),
  }
  members.end()
  return identity
}

function readHolder(members: Members): RecordHolder {
  const holder: RecordHolder = {
    host: members.text('host'),
    boot: members.text('boot'),
    instance: members.text('instance'),
    openToken: members.text('openToken'),
    name: members.text('name'),
  }
  members.end()
  return holder
}

/** Read by `Members.list`, which ends it. */
function readDraining(members: Members): DrainingEntry {
  return {
    generation: members.count('generation', 1),
    holder: readHolder(members.object('holder')),
    ranges: members.list('ranges', readRange),
  }
}

function readRange(members: Members): Range {
  const range = { offset: members.count('offset'), length: members.count('length', 1) }
  if (!Number.isSafeInteger(range.offset + range.length)) throw new Malformed(`${members.path} ends beyond any size`)
  return range
}

function readIntent(members: Members): TakeoverIntent {
  const intent: TakeoverIntent = {
    by: readHolder(members.object('by')),
    against: readHolder(members.object('against')),
    generation: members.count('generation', 1),
    since: members.time('since'),
  }
  members.end()
  return intent
}

function readClearing(members: Members): Clearing {
  const clearing: Clearing = {
    generation: members.count('generation', 1),
    by: members.oneOf('by', CLEARED_BY),
    fence: members.nullable('fence', (name) => readFence(members.object(name))),
  }
  members.end()
  return clearing
}

function readHomeChange(members: Members): HomeChange {
  const change: HomeChange = {
    direction: members.oneOf('direction', ['gone', 'arriving']),
    home: members.text('home'),
    since: members.time('since'),
  }
  members.end()
  return change
}

/** What no daemon writes. */
function refuseContradictions(record: OwnershipRecord): void {
  const { generation, state, receipt, draining, intent, moved } = record
  if (moved !== undefined && state !== 'closed') throw new Malformed(`it is ${state} and has moved`)
  if (receipt !== null && state !== 'closed') throw new Malformed(`it is ${state} and has a receipt`)
  if (receipt !== null && receipt.generation !== generation) {
    throw new Malformed(`it is of generation ${generation} and its receipt of ${receipt.generation}`)
  }
  if (intent !== null && intent.generation !== generation) {
    throw new Malformed(`it is of generation ${generation} and its takeover of ${intent.generation}`)
  }
  const generations = new Set(draining.map((entry) => entry.generation))
  if (generations.size !== draining.length) throw new Malformed('it names a draining generation twice')
  for (const each of generations) {
    if (each > generation) throw new Malformed(`it is of generation ${generation}, and ${each} is draining`)
  }
}

function checksumOf(body: object): string {
  return createHash('sha256').update(JSON.stringify(body)).digest('hex')
}
