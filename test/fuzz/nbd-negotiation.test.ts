/**
 * The negotiation against anything: garbage, and scripts that are nearly right. Whatever comes in and however it is cut
 * into pieces, nothing throws, memory and output stay within their bounds, what is said does not depend on the cuts, and
 * all that is said can be read by a client. Seeds are printed when a property fails; NBD_FUZZ_RUNS asks for more runs.
 */

import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { DEFAULT_NEGOTIATION_LIMITS, Negotiation } from '../../src/nbd/negotiation.ts'
import type { Decision, NegotiationLimits } from '../../src/nbd/negotiation.ts'
import { catalogueOf, offerOf } from '../nbd/catalogue-for-tests.ts'
import * as wire from '../nbd/handshake-script.ts'

const numRuns = Number(process.env['NBD_FUZZ_RUNS'] ?? 1500)
const CATALOGUE = catalogueOf([offerOf('vda', { description: 'disk' }), offerOf('ü')], ['gone'])
const SMALL: NegotiationLimits = { ...DEFAULT_NEGOTIATION_LIMITS, optionsMax: 40, replyBytesMax: 3000 }
/** The largest single reply that this catalogue and these names can cause. */
const LARGEST_REPLY_BYTES = 20 + 4096

const bytes = (maxLength: number): fc.Arbitrary<Buffer> =>
  fc.uint8Array({ maxLength }).map((array) => Buffer.from(array))
const name = fc.oneof(
  fc
    .constantFrom('vda', 'ü', 'gone', '', 'nobody', '\0', 'x'.repeat(4096), 'x'.repeat(4097))
    .map((text) => Buffer.from(text)),
  bytes(20),
)
const code = fc.oneof(fc.integer({ min: 0, max: 12 }), fc.integer({ min: 0, max: 0xffffffff }))
const info = fc
  .tuple(name, fc.array(fc.integer({ min: 0, max: 5 }), { maxLength: 6 }))
  .map(([text, requests]) => wire.infoData(text, requests))
const data = fc.oneof(
  bytes(40),
  info,
  name,
  fc.constantFrom(0, 8192, 8193, 65_536).map((length) => Buffer.alloc(length, 7)),
)
const lied = fc
  .tuple(code, data, fc.integer({ min: 0, max: 70_000 }))
  .map(([option, sent, length]) => wire.option(option, sent, length))
const honest = fc.tuple(code, data).map(([option, sent]) => wire.option(option, sent))
const likely = fc
  .tuple(fc.constantFrom(wire.INFO, wire.INFO, wire.LIST, wire.STRUCTURED_REPLY, wire.SET_META_CONTEXT), info)
  .map(([option, sent]) => wire.option(option, option === wire.LIST ? Buffer.alloc(0) : sent))
const ending = fc.oneof(
  info.map((sent) => wire.option(wire.GO, sent)),
  name.map((sent) => wire.option(wire.EXPORT_NAME, sent)),
)
const flags = fc.oneof(
  { weight: 8, arbitrary: fc.constantFrom(3, 1) },
  { weight: 2, arbitrary: fc.integer({ min: 0, max: 0xffffffff }) },
)

/** Client flags, options true and false, an ending, bytes behind it; and now and then a byte of it all is another one. */
const script = fc
  .tuple(
    flags,
    fc.array(
      fc.oneof({ weight: 4, arbitrary: likely }, { weight: 2, arbitrary: honest }, { weight: 1, arbitrary: lied }),
      {
        maxLength: 12,
      },
    ),
    fc.option(ending, { freq: 4 }),
    bytes(64),
    fc.option(fc.tuple(fc.nat(), fc.integer({ min: 1, max: 255 })), { freq: 2 }),
  )
  .map(([first, options, end, rest, damage]) => {
    const whole = Buffer.concat([wire.clientFlags(first), ...options, ...(end === null ? [] : [end]), rest])
    if (damage !== null) whole[damage[0] % whole.length] = (whole[damage[0] % whole.length] ?? 0) ^ damage[1]
    return whole
  })

interface Heard {
  readonly sent: Buffer
  readonly last: Decision | undefined
}

/** Cuts are lengths of pieces, used over and over. */
function hear(input: Buffer, cuts: readonly number[], limits: NegotiationLimits): Heard {
  const negotiation = new Negotiation(CATALOGUE, limits)
  const sent: Uint8Array[] = []
  let last: Decision | undefined
  for (let at = 0, index = 0; at < input.length && last === undefined; index++) {
    const end = Math.min(input.length, at + (cuts[index % cuts.length] ?? 1))
    const decisions = negotiation.receive(input.subarray(at, end))
    // Plain comparisons: this runs for every piece, often for every byte.
    if (negotiation.heldBytes > limits.optionBytesMax) throw new Error(`${negotiation.heldBytes} bytes are held`)
    if (decisions.length > 2) throw new Error(`${decisions.length} decisions at once`)
    for (const decision of decisions) {
      if (last !== undefined) throw new Error('a decision after the last one')
      if (decision.kind === 'send') sent.push(decision.bytes)
      else if (decision.kind === 'close') last = decision
      else last = { ...decision, unread: Buffer.concat([decision.unread, input.subarray(end)]) }
    }
    at = end
  }
  return { sent: Buffer.concat(sent), last }
}

/** Everything about a decision, as text. */
function summaryOf(decision: Decision | undefined): string {
  if (decision?.kind !== 'transmission') return JSON.stringify(decision ?? null)
  return JSON.stringify({ ...decision, unread: Buffer.from(decision.unread).toString('hex') })
}

const cuts = fc.array(fc.oneof(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 3000 })), {
  minLength: 1,
  maxLength: 8,
})

describe('negotiation, fuzzed', () => {
  it('survives garbage', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          bytes(400),
          bytes(400).map((tail) => Buffer.concat([wire.clientFlags(3), tail])),
        ),
        cuts,
        (input, cut) => {
          hear(input, cut, SMALL)
        },
      ),
      { numRuns },
    )
  })

  it('survives scripts that are nearly right, within its bounds, and says the same however they are cut', () => {
    const endings = new Set<string>()
    fc.assert(
      fc.property(script, cuts, (input, cut) => {
        const whole = hear(input, [input.length], SMALL)
        const pieces = hear(input, cut, SMALL)
        expect(pieces.sent.equals(whole.sent)).toBe(true)
        expect(summaryOf(pieces.last)).toBe(summaryOf(whole.last))
        expect(whole.sent.length).toBeLessThanOrEqual(SMALL.replyBytesMax + LARGEST_REPLY_BYTES)
        endings.add(
          whole.last === undefined ? 'open' : whole.last.kind === 'close' ? whole.last.reason : whole.last.kind,
        )
      }),
      { numRuns },
    )
    // A generator that never gets anywhere would prove nothing.
    expect([...endings].sort()).toEqual(['abort', 'limit', 'open', 'protocol', 'refused', 'transmission'])
  })

  it('says only what a client can read, and hands over exactly what followed', () => {
    fc.assert(
      fc.property(
        fc.array(fc.oneof(likely, honest), { maxLength: 8 }),
        fc.constantFrom('vda', 'ü'),
        bytes(100),
        cuts,
        (...drawn) => {
          const [options, wanted, rest, cut] = drawn
          const harmless = options.filter(
            (sent) => ![wire.EXPORT_NAME, wire.GO, wire.ABORT].includes(sent.readUInt32BE(8)),
          )
          const go = wire.option(wire.GO, wire.infoData(wanted, [3]))
          const input = Buffer.concat([wire.clientFlags(3), ...harmless, go, rest])
          const heard = hear(input, cut, { ...DEFAULT_NEGOTIATION_LIMITS })
          const replies = wire.parseReplies(heard.sent)
          expect(replies.at(-1)).toMatchObject({ option: wire.GO, type: wire.ACK })
          expect(heard.last).toMatchObject({ kind: 'transmission', terms: { exportName: wanted } })
          expect(heard.last?.kind === 'transmission' && Buffer.from(heard.last.unread)).toEqual(rest)
          // Each option gets exactly one final reply: an acknowledgement or an error.
          const finals = replies.filter((reply) => reply.type === wire.ACK || reply.type > 2 ** 31)
          expect(finals).toHaveLength(harmless.length + 1)
        },
      ),
      { numRuns: Math.ceil(numRuns / 3) },
    )
  })
})
