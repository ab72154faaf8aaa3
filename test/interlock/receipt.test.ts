import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseReceipt } from '../../src/interlock/receipt-parser.ts'
import { buildReceipt, receiptProblem } from '../../src/interlock/receipt.ts'
import type { Receipt, ReceiptFacts } from '../../src/interlock/receipt.ts'

const FACTS: ReceiptFacts = {
  export: 'vda',
  image: { path: '/srv/vda.raw', size: 1 << 30, device: '8:1', inode: 4711 },
  generation: 7,
  holder: { host: 'h-1', boot: 'b-1', instance: 'i-1' },
  closedAtMs: Date.UTC(2031, 6, 31, 12, 0, 0, 5),
  durability: 'sync',
  drained: { requests: 5, writes: 4, bytes: 16384 },
  aborted: [{ client: 3, cookie: '0123456789abcdef', command: 'WRITE', offset: 0, length: 4096 }],
  indeterminate: [{ offset: 8192, length: 512 }],
  reason: 'handover',
  nonce: 'n-1',
  clearedBy: 'drain',
  elapsedMs: { drain: 1.5, sync: 2, record: 0, total: 3.5 },
}

function asJson(receipt: Receipt): Record<string, unknown> {
  return JSON.parse(JSON.stringify(receipt)) as Record<string, unknown>
}

/** The receipt with one member, given by its path, replaced; taken away where the value is absent. */
function changed(path: string, value?: unknown): unknown {
  const receipt = asJson(buildReceipt(FACTS))
  const names = path.split('.')
  const last = names.pop() ?? ''
  let parent: Record<string, unknown> = receipt
  for (const name of names) parent = parent[name] as Record<string, unknown>
  // eslint-disable-next-line @typescript-eslint/no-dynamic-delete -- taking a member away is the test
  if (value === undefined) delete parent[last]
  else parent[last] = value
  return receipt
}

describe('a receipt', () => {
  it('is built from its facts', () => {
    expect(buildReceipt(FACTS)).toMatchObject({ version: 1, state: 'closed', closedAt: '2031-07-31T12:00:00.005Z' })
  })

  it('reads as it was written', () => {
    const text = fc.string({ minLength: 1, maxLength: 30 })
    const count = fc.nat()
    const facts: fc.Arbitrary<ReceiptFacts> = fc.record({
      export: text,
      image: fc.record({ path: text, size: fc.maxSafeNat(), device: text, inode: fc.maxSafeNat() }),
      generation: fc.integer({ min: 1 }),
      holder: fc.record({ host: text, boot: text, instance: text }),
      closedAtMs: fc.integer({ min: 0, max: Date.UTC(2099, 0) }),
      durability: fc.constantFrom('sync' as const, 'writeback' as const),
      drained: fc.record({ requests: count, writes: fc.constant(0), bytes: fc.maxSafeNat() }),
      aborted: fc.array(fc.constantFrom(...FACTS.aborted), { maxLength: 3 }),
      indeterminate: fc.array(fc.record({ offset: count, length: count }), { maxLength: 3 }),
      reason: fc.constantFrom('handover' as const, 'shutdown' as const),
      nonce: text,
      clearedBy: fc.constantFrom('drain' as const, 'lock' as const, 'reboot' as const, 'fence' as const),
      elapsedMs: fc.record({ drain: count, sync: count, record: count, total: count }),
    })
    fc.assert(
      fc.property(facts, (each) => {
        const receipt = buildReceipt(each)
        expect(parseReceipt(asJson(receipt))).toEqual(receipt)
      }),
    )
  })

  it('is whole: without any one member it is none', () => {
    const paths = Object.entries(asJson(buildReceipt(FACTS))).flatMap(([name, value]) =>
      typeof value === 'object' && value !== null && !Array.isArray(value)
        ? Object.keys(value).map((inner) => `${name}.${inner}`)
        : [name],
    )
    expect(paths).toHaveLength(25)
    for (const path of paths) expect(parseReceipt(changed(path))).toBe(`receipt.${path} is missing`)
  })

  it.each([
    ['version', 2, 'receipt.version must be 1'],
    ['export', '', 'receipt.export must be a text of 1 to 4096 characters'],
    ['export', 7, 'receipt.export must be a text of 1 to 4096 characters'],
    ['image', null, 'receipt.image is no object'],
    ['image.size', -1, 'receipt.image.size must be a whole number, 0 or more'],
    ['image.size', 2 ** 53, 'receipt.image.size must be a whole number, 0 or more'],
    ['generation', 0, 'receipt.generation must be a whole number, 1 or more'],
    ['generation', 1.5, 'receipt.generation must be a whole number, 1 or more'],
    ['holder', [], 'receipt.holder is no object'],
    ['state', 'open', 'receipt.state must be "closed"'],
    ['closedAt', 'yesterday', 'receipt.closedAt must be a time in ISO 8601, UTC, with milliseconds'],
    ['closedAt', '2031-02-30T00:00:00.000Z', 'receipt.closedAt must be a time in ISO 8601, UTC, with milliseconds'],
    ['durability', 'none', 'receipt.durability must be "sync" or "writeback"'],
    ['drained.writes', 6, 'receipt.drained counts more writes than requests'],
    ['aborted', {}, 'receipt.aborted must be a list'],
    ['aborted', [5], 'receipt.aborted[0] is no object'],
    ['indeterminate', [{ offset: 0 }], 'receipt.indeterminate[0].length is missing'],
    ['indeterminate', [{ offset: 0, length: 1, extra: 1 }], "receipt.indeterminate[0] has an unknown member 'extra'"],
    ['indeterminate', [{ offset: 2 ** 53 - 1, length: 1 }], 'receipt.indeterminate[0] ends beyond what a size can be'],
    ['reason', 'boredom', 'receipt.reason must be "handover" or "shutdown"'],
    ['clearedBy', 'hope', 'receipt.clearedBy must be "drain" or "lock" or "reboot" or "fence"'],
    ['elapsedMs.drain', -1, 'receipt.elapsedMs.drain must be a number of milliseconds'],
    ['elapsedMs.drain', '1', 'receipt.elapsedMs.drain must be a number of milliseconds'],
    ['surprise', 1, "receipt has an unknown member 'surprise'"],
    ['image.surprise', 1, "receipt.image has an unknown member 'surprise'"],
  ] as [string, unknown, string][])('whose %s is %j is none', (path, value, message) => {
    expect(parseReceipt(changed(path, value))).toBe(message)
  })

  it.each([null, undefined, 5, 'receipt', [], true])('is not %j', (value) => {
    expect(parseReceipt(value)).toBe('receipt is no object')
  })

  it('a cookie is sixteen hexadecimal digits', () => {
    const aborted = { ...FACTS.aborted[0], cookie: '0123' }
    expect(parseReceipt(changed('aborted', [aborted]))).toBe(
      'receipt.aborted[0].cookie must be sixteen hexadecimal digits',
    )
  })

  it('of whatever JSON never throws', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        expect(typeof parseReceipt(value)).toBe('string')
      }),
    )
  })
})

describe('a receipt that must fit', () => {
  const receipt = buildReceipt(FACTS)
  const expectation = { export: 'vda', sizeBytes: 1 << 30, nonce: 'n-1', generationMin: 7 }

  it('fits', () => {
    expect(receiptProblem(receipt, expectation)).toBeNull()
    expect(receiptProblem(receipt, { ...expectation, nonce: null, generationMin: null })).toBeNull()
  })

  it.each([
    [{ export: 'vdb' }, "the receipt is for export 'vda', not for 'vdb'"],
    [{ sizeBytes: 4096 }, 'the receipt is for an image of 1073741824 bytes; this one has 4096'],
    [{ nonce: 'n-2' }, 'the receipt does not carry the nonce that this standby gave out: it is of another handover'],
    [{ generationMin: 8 }, 'the receipt closes generation 7; generation 8 is known here'],
  ])('does not fit %j', (difference, problem) => {
    expect(receiptProblem(receipt, { ...expectation, ...difference })).toBe(problem)
  })
})
