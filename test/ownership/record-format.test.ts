import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { OwnershipRecord } from '../../src/ownership/home.ts'
import { decodeRecord, encodeRecord, RECORD_BYTES_MAX } from '../../src/ownership/record-format.ts'
import { DRAINING, draftOf, HOLDER, OTHER, receiptOf } from './record-samples.ts'

const NONCE = 'c'.repeat(32)

const RECORDS: readonly OwnershipRecord[] = [
  { ...draftOf(), version: 1, sequence: 1 },
  { ...draftOf({ state: 'closing', closeReason: 'handover', draining: [DRAINING] }), version: 1, sequence: 2 },
  { ...draftOf({ state: 'closed', closeReason: 'shutdown', receipt: receiptOf(4) }), version: 1, sequence: 3 },
  {
    ...draftOf({
      intent: { by: HOLDER, against: OTHER, generation: 4, since: '2026-01-01T00:00:00.000Z' },
      cleared: { generation: 3, by: 'fence', fence: { command: 'f', plug: 'p', exitStatus: 0, output: '' } },
    }),
    version: 1,
    sequence: 4,
  },
]

function text(record: OwnershipRecord): string {
  return Buffer.from(encodeRecord(record, NONCE)).toString('utf8')
}

/** As a writer with other ideas would have written it: the checksum is right. */
function rewritten(record: OwnershipRecord, change: (body: Record<string, unknown>) => void): Uint8Array {
  const body = { ...record } as Record<string, unknown>
  change(body)
  return encodeRecord(body as unknown as OwnershipRecord, NONCE)
}

test.each(RECORDS)('what is written is read: $state', (record) => {
  expect(decodeRecord(encodeRecord(record, NONCE), record.sequence)).toEqual({ record, nonce: NONCE })
})

test('a record that is torn anywhere is none', () => {
  for (const record of RECORDS) {
    const bytes = encodeRecord(record, NONCE)
    for (let length = 0; length < bytes.length - 1; length++) {
      expect(typeof decodeRecord(bytes.subarray(0, length), record.sequence)).toBe('string')
    }
  }
})

test('a record with any byte changed is none, or the same', () => {
  const [record] = RECORDS
  if (record === undefined) throw new Error('there are records')
  const bytes = encodeRecord(record, NONCE)
  const anyChange = fc.tuple(fc.nat({ max: bytes.length - 1 }), fc.integer({ min: 0, max: 255 }))
  fc.assert(
    fc.property(anyChange, ([position, value]) => {
      const changed = Uint8Array.from(bytes)
      changed[position] = value
      const decoded = decodeRecord(changed, record.sequence)
      if (typeof decoded !== 'string') expect(decoded).toEqual({ record, nonce: NONCE })
    }),
    { numRuns: 3000 },
  )
})

test.each([
  ['another number', (record: OwnershipRecord) => [encodeRecord(record, NONCE), 9], 'another number'],
  ['a later version', (record: OwnershipRecord) => [rewritten(record, (body) => (body['version'] = 2)), 1], 'version'],
  ['a member more', (record: OwnershipRecord) => [rewritten(record, (body) => (body['mood'] = 1)), 1], "'mood'"],
  ['a member less', (record: OwnershipRecord) => [rewritten(record, (body) => delete body['intent']), 1], 'intent'],
  ['a state unknown', (record: OwnershipRecord) => [rewritten(record, (body) => (body['state'] = 'x')), 1], 'state'],
  [
    'a receipt of an open image',
    (record: OwnershipRecord) => [rewritten(record, (body) => (body['receipt'] = receiptOf(4))), 1],
    'has a receipt',
  ],
  [
    'a generation that drains twice',
    (record: OwnershipRecord) => [rewritten(record, (body) => (body['draining'] = [DRAINING, DRAINING])), 1],
    'twice',
  ],
  [
    'a generation that drains before its time',
    (record: OwnershipRecord) => [
      rewritten(record, (body) => ((body['generation'] = 2), (body['draining'] = [DRAINING]))),
      1,
    ],
    'is draining',
  ],
] as const)('refused, and said why: %s', (_what, make, why) => {
  const [record] = RECORDS
  if (record === undefined) throw new Error('there are records')
  const [bytes, sequence] = make(record) as [Uint8Array, number]
  expect(decodeRecord(bytes, sequence)).toContain(why)
})

test('the receipt is of the generation that is closed', () => {
  const closed = draftOf({ state: 'closed', closeReason: 'handover', receipt: receiptOf(3) })
  expect(decodeRecord(encodeRecord({ ...closed, version: 1, sequence: 1 }, NONCE), 1)).toContain('its receipt of 3')
})

test('bytes that are no text, and text that is no object, are told apart from records', () => {
  expect(decodeRecord(new Uint8Array(0), 1)).toBe('it is empty')
  expect(decodeRecord(Uint8Array.of(0xff, 0xfe), 1)).toContain('torn')
  expect(decodeRecord(Buffer.from('[]'), 1)).toContain('no object')
  expect(decodeRecord(Buffer.from('{"format":"other"}'), 1)).toContain('format')
})

test('the largest record that can come about fits', () => {
  const far = Number.MAX_SAFE_INTEGER - 4096
  const ranges = Array.from({ length: 8192 }, () => ({ offset: far, length: 4096 }))
  const aborted = Array.from({ length: 8192 }, () => ({
    client: far,
    cookie: 'f'.repeat(16),
    command: 'NBD_CMD_WRITE_ZEROES',
    offset: far,
    length: 4096,
  }))
  const receipt = { ...receiptOf(4), aborted, indeterminate: ranges.slice(0, 1024) }
  const draining = [
    { ...DRAINING, ranges },
    { ...DRAINING, generation: 2, ranges },
  ]
  const record = draftOf({ state: 'closed', closeReason: 'handover', receipt, draining })
  expect(text({ ...record, version: 1, sequence: 1 }).length).toBeLessThan(RECORD_BYTES_MAX)
})
