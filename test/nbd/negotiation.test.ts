import { describe, expect, it } from 'vitest'
import type { ExportCatalogue } from '../../src/nbd/export-catalogue.ts'
import { DEFAULT_NEGOTIATION_LIMITS, Negotiation } from '../../src/nbd/negotiation.ts'
import type { Decision, NegotiationLimits, NegotiationState } from '../../src/nbd/negotiation.ts'
import { SIZE_BYTES, catalogueOf, offerOf } from './catalogue-for-tests.ts'
import * as wire from './handshake-script.ts'

const MODERN = wire.clientFlags(wire.FIXED_NEWSTYLE | wire.NO_ZEROES)
const VDA = offerOf('vda', { description: 'system disk' })
const ONE = catalogueOf([VDA])
const TWO = catalogueOf([VDA, offerOf('vdb')], ['gone'])
const EXPORT_ANSWER = Buffer.concat([wire.uint64(SIZE_BYTES), wire.uint16(0x0d6d)])

interface Outcome {
  readonly sent: Buffer
  readonly last: Decision | undefined
  readonly state: NegotiationState
  readonly visited: ReadonlySet<NegotiationState>
}

/** Feeds the script in pieces of so many bytes. What is left when the negotiation has ended is added to `unread`. */
function run(
  script: readonly Uint8Array[],
  catalogue: ExportCatalogue = TWO,
  pieceBytes = Infinity,
  limits: NegotiationLimits = DEFAULT_NEGOTIATION_LIMITS,
): Outcome {
  const bytes = Buffer.concat(script)
  const negotiation = new Negotiation(catalogue, limits)
  const sent: Uint8Array[] = []
  const visited = new Set<NegotiationState>()
  let last: Decision | undefined
  for (let at = 0; at < bytes.length && last === undefined; at += pieceBytes) {
    for (const decision of negotiation.receive(bytes.subarray(at, at + pieceBytes))) {
      if (decision.kind === 'send') {
        sent.push(decision.bytes)
      } else if (decision.kind === 'transmission') {
        const later = bytes.subarray(Math.min(at + pieceBytes, bytes.length))
        last = { ...decision, unread: Buffer.concat([decision.unread, later]) }
      } else {
        last = decision
      }
    }
    visited.add(negotiation.state)
  }
  return { sent: Buffer.concat(sent), last, state: negotiation.state, visited }
}

function typesOf(outcome: Outcome): number[] {
  return wire.parseReplies(outcome.sent).map((reply) => reply.type)
}

function textOf(outcome: Outcome): string {
  return wire.parseReplies(outcome.sent).at(-1)?.data.toString() ?? ''
}

describe('negotiation', () => {
  it('begins with the greeting of fixed newstyle', () => {
    expect(Buffer.from(new Negotiation(ONE).greeting())).toEqual(wire.GREETING)
  })

  it.each([
    ['with', wire.FIXED_NEWSTYLE, 124],
    ['without', wire.FIXED_NEWSTYLE | wire.NO_ZEROES, 0],
    ['with (client without fixed newstyle)', 0, 124],
    ['without (client without fixed newstyle)', wire.NO_ZEROES, 0],
  ])('answers EXPORT_NAME %s zeroes', (_name, flags, zeroes) => {
    const outcome = run([wire.clientFlags(flags), wire.option(wire.EXPORT_NAME, Buffer.from('vda'))])
    expect(outcome.sent).toEqual(Buffer.concat([EXPORT_ANSWER, Buffer.alloc(zeroes)]))
    expect(outcome.last).toEqual({
      kind: 'transmission',
      terms: {
        exportName: 'vda',
        sizeBytes: SIZE_BYTES,
        transmissionFlags: 0x0d6d,
        minimumBlockBytes: 1,
        preferredBlockBytes: 4096,
        payloadBytesMax: 2 ** 25,
        knowsBlockSizes: false,
      },
      unread: Buffer.alloc(0),
    })
  })

  it('answers GO with the export, with what else was asked for, and never with zeroes', () => {
    const go = wire.option(wire.GO, wire.infoData('vda', [3, 2, 1, 0, 77, 3]))
    const outcome = run([wire.clientFlags(wire.FIXED_NEWSTYLE), go])
    const replies = wire.parseReplies(outcome.sent)
    expect(replies.every((reply) => reply.option === wire.GO)).toBe(true)
    expect(replies.map((reply) => [reply.type, reply.data.toString('latin1')])).toEqual([
      [wire.INFORMATION, Buffer.concat([wire.uint16(0), EXPORT_ANSWER]).toString('latin1')],
      [wire.INFORMATION, '\0\x01vda'],
      [wire.INFORMATION, '\0\x02system disk'],
      [wire.INFORMATION, '\0\x03\0\0\0\x01\0\0\x10\0\x02\0\0\0'],
      [wire.ACK, ''],
    ])
    expect(outcome.last).toMatchObject({ kind: 'transmission', terms: { exportName: 'vda', knowsBlockSizes: true } })
  })

  it('answers GO without questions with the export alone', () => {
    const outcome = run([MODERN, wire.option(wire.GO, wire.infoData('vdb'))])
    expect(typesOf(outcome)).toEqual([wire.INFORMATION, wire.ACK])
    expect(outcome.last).toMatchObject({ kind: 'transmission', terms: { exportName: 'vdb', knowsBlockSizes: false } })
  })

  it('has nothing to say about a description that is not there', () => {
    const outcome = run([MODERN, wire.option(wire.INFO, wire.infoData('vdb', [2]))])
    expect(typesOf(outcome)).toEqual([wire.INFORMATION, wire.ACK])
  })

  it('goes on after INFO', () => {
    const info = wire.option(wire.INFO, wire.infoData('vda'))
    const outcome = run([MODERN, info, info, wire.option(wire.GO, wire.infoData('vda'))])
    expect(typesOf(outcome)).toEqual([3, 1, 3, 1, 3, 1])
    expect(outcome.last?.kind).toBe('transmission')
  })

  it('lists what there is, described, and nothing for a client that sends data along', () => {
    const outcome = run([MODERN, wire.option(wire.LIST), wire.option(wire.LIST, Buffer.from('x'))])
    expect(wire.parseReplies(outcome.sent).map((reply) => [reply.type, reply.data.toString('latin1')])).toEqual([
      [wire.SERVER, '\0\0\0\x03vdasystem disk'],
      [wire.SERVER, '\0\0\0\x03vdb'],
      [wire.SERVER, '\0\0\0\x04goneclosed'],
      [wire.ACK, ''],
      [wire.ERR_INVALID, 'LIST takes no data'],
    ])
    expect(outcome.state).toBe('option-header')
  })

  it('acknowledges ABORT, whatever comes with it, and leaves', () => {
    for (const data of [Buffer.alloc(0), Buffer.from('bye')]) {
      const outcome = run([MODERN, wire.option(wire.ABORT, data), Buffer.from('ignored')])
      expect(typesOf(outcome)).toEqual([wire.ACK])
      expect(outcome.last).toMatchObject({ kind: 'close', reason: 'abort' })
    }
  })

  it('consumes and refuses every option that it does not serve', () => {
    const refused = [
      4,
      wire.STARTTLS,
      wire.STRUCTURED_REPLY,
      wire.LIST_META_CONTEXT,
      wire.SET_META_CONTEXT,
      wire.EXTENDED_HEADERS,
      12,
      0,
      0x12345678,
      0xffffffff,
    ]
    for (const code of refused) {
      for (const data of [Buffer.alloc(0), Buffer.alloc(1), Buffer.alloc(65_536, 'IHAVEOPT')]) {
        const outcome = run([MODERN, wire.option(code, data), wire.option(wire.GO, wire.infoData('vda'))])
        const replies = wire.parseReplies(outcome.sent)
        expect(replies[0]).toMatchObject({ option: code, type: wire.ERR_UNSUP })
        expect(outcome.last?.kind).toBe('transmission')
      }
    }
  })

  it('hands over what lies behind the option that ended it, in one piece or in many', () => {
    const requests = Buffer.from(Array.from({ length: 300 }, (_, index) => index % 256))
    const endings = [wire.option(wire.GO, wire.infoData('vda')), wire.option(wire.EXPORT_NAME, Buffer.from('vda'))]
    for (const ending of endings) {
      for (const pieceBytes of [1, 2, 3, 7, 16, 50, 1000]) {
        const outcome = run([MODERN, ending, requests], TWO, pieceBytes)
        expect(outcome.last).toMatchObject({ kind: 'transmission' })
        expect(outcome.last?.kind === 'transmission' && Buffer.from(outcome.last.unread)).toEqual(requests)
      }
    }
  })

  it('says the same to a client whose bytes come one at a time, and passes through every state', () => {
    const script = [
      MODERN,
      wire.option(wire.STRUCTURED_REPLY),
      wire.option(wire.SET_META_CONTEXT, Buffer.from('some data that nobody reads')),
      wire.option(wire.LIST),
      wire.option(wire.INFO, Buffer.alloc(9000)),
      wire.option(wire.INFO, wire.infoData('nobody')),
      wire.option(wire.INFO, wire.infoData('vda', [1, 2, 3])),
    ]
    const endings: (readonly [Buffer, NegotiationState])[] = [
      [wire.option(wire.GO, wire.infoData('vda', [3])), 'transmission'],
      [wire.option(wire.EXPORT_NAME, Buffer.from('vda')), 'transmission'],
      [wire.option(wire.EXPORT_NAME, Buffer.from('nobody')), 'closed'],
      [wire.option(wire.ABORT), 'closed'],
    ]
    const visited = new Set<NegotiationState>()
    for (const [ending, end] of endings) {
      const whole = run([...script, ending])
      const pieces = run([...script, ending], TWO, 1)
      expect(pieces.sent).toEqual(whole.sent)
      expect(pieces.last).toEqual(whole.last)
      expect(pieces.state).toBe(end)
      for (const state of pieces.visited) visited.add(state)
    }
    const all: NegotiationState[] = [
      'client-flags',
      'option-header',
      'option-data',
      'skipping',
      'transmission',
      'closed',
    ]
    expect([...visited].sort()).toEqual(all.sort())
  })
})

describe('the default export', () => {
  it('is the only one that there is', () => {
    for (const ending of [wire.option(wire.EXPORT_NAME), wire.option(wire.GO, wire.infoData('', [1]))]) {
      expect(run([MODERN, ending], ONE).last).toMatchObject({ kind: 'transmission', terms: { exportName: 'vda' } })
    }
    expect(run([MODERN, wire.option(wire.GO, wire.infoData('', [1]))], ONE).sent.includes('vda')).toBe(true)
  })

  it('is unknown where there are several, or none', () => {
    for (const catalogue of [TWO, catalogueOf([])]) {
      expect(typesOf(run([MODERN, wire.option(wire.GO, wire.infoData(''))], catalogue))).toEqual([wire.ERR_UNKNOWN])
      const outcome = run([MODERN, wire.option(wire.EXPORT_NAME)], catalogue)
      expect(outcome.last).toMatchObject({ kind: 'close', reason: 'refused' })
    }
  })

  it('is refused like any other when it does not accept clients now', () => {
    const outcome = run([MODERN, wire.option(wire.GO, wire.infoData(''))], catalogueOf([], ['gone']))
    expect(typesOf(outcome)).toEqual([wire.ERR_SHUTDOWN])
  })
})

describe('an export that cannot be had', () => {
  it('is refused in words, and the client may ask for another one', () => {
    const outcome = run([
      MODERN,
      wire.option(wire.INFO, wire.infoData('nobody')),
      wire.option(wire.GO, wire.infoData('gone', [3])),
      wire.option(wire.GO, wire.infoData('vda')),
    ])
    const replies = wire.parseReplies(outcome.sent)
    expect(replies[0]).toMatchObject({ option: wire.INFO, type: wire.ERR_UNKNOWN })
    expect(replies[0]?.data.toString()).toBe("there is no export 'nobody'")
    expect(replies[1]).toMatchObject({ option: wire.GO, type: wire.ERR_SHUTDOWN })
    expect(replies[1]?.data.toString()).toBe("'gone' was closed and opened elsewhere")
    expect(outcome.last?.kind).toBe('transmission')
  })

  it('ends the session where EXPORT_NAME has no words for it', () => {
    for (const name of ['nobody', 'gone']) {
      const outcome = run([MODERN, wire.option(wire.EXPORT_NAME, Buffer.from(name))])
      expect(outcome.sent.length).toBe(0)
      expect(outcome.last).toMatchObject({ kind: 'close', reason: 'refused' })
    }
  })
})

describe('a peer that breaks the rules', () => {
  const closes = (script: readonly Uint8Array[], reason: string): void => {
    const outcome = run(script)
    expect(outcome.last).toMatchObject({ kind: 'close', reason })
    expect(outcome.sent.length).toBe(0)
  }

  it('is disconnected for flags that were not offered', () => {
    for (const flag of [4, 8, 0x80000000]) closes([wire.clientFlags(wire.FIXED_NEWSTYLE | flag)], 'protocol')
    closes([Buffer.from('GET / HTTP/1.1\r\n\r\n')], 'protocol')
  })

  it('is disconnected when an option does not begin like one', () => {
    const bad = wire.option(wire.LIST)
    bad[7] = 0
    closes([MODERN, bad], 'protocol')
    closes([MODERN, Buffer.alloc(16)], 'protocol')
  })

  it('is disconnected for haggling without fixed newstyle', () => {
    for (const code of [wire.LIST, wire.GO, wire.ABORT, 99]) {
      closes([wire.clientFlags(wire.NO_ZEROES), wire.option(code)], 'protocol')
    }
  })

  it('is disconnected for names that EXPORT_NAME cannot refuse', () => {
    closes([MODERN, wire.option(wire.EXPORT_NAME, Buffer.alloc(4097, 'x'))], 'protocol')
    closes([MODERN, wire.option(wire.EXPORT_NAME, Buffer.from('v\0a'))], 'protocol')
    closes([MODERN, wire.option(wire.EXPORT_NAME, Buffer.from([0xc3, 0x28]))], 'protocol')
  })

  it('is disconnected as soon as it announces more data than anybody would send', () => {
    for (const code of [wire.GO, wire.LIST, wire.EXPORT_NAME, 99]) {
      closes([MODERN, wire.option(code, Buffer.alloc(0), 65_537)], 'limit')
      closes([MODERN, wire.option(code, Buffer.alloc(0), 0xffffffff)], 'limit')
    }
  })

  it.each([
    ['nothing', Buffer.alloc(0)],
    ['half a length', Buffer.alloc(3)],
    ['a name longer than the data', Buffer.concat([wire.uint32(4), Buffer.from('vda')])],
    ['a name of four gigabytes', Buffer.concat([wire.uint32(0xffffffff), Buffer.from('vda\0\0')])],
    ['no number of requests', Buffer.concat([wire.uint32(3), Buffer.from('vda\0')])],
    ['fewer requests than announced', wire.infoData('vda', [1, 2]).subarray(0, -2)],
    ['half a request', wire.infoData('vda', [1, 2]).subarray(0, -1)],
    ['more than it announced', Buffer.concat([wire.infoData('vda', [1]), Buffer.alloc(1)])],
    ['a name with NUL', wire.infoData('v\0a')],
    ['a name that is not UTF-8', wire.infoData(Buffer.from([0xff, 0xfe]))],
    ['a surrogate in UTF-8', wire.infoData(Buffer.from([0xed, 0xa0, 0x80]))],
    ['a name of 4097 bytes', wire.infoData(Buffer.alloc(4097, 'x'))],
  ])('hears that INFO and GO are invalid with %s, and may go on', (_name, data) => {
    for (const code of [wire.INFO, wire.GO]) {
      const outcome = run([MODERN, wire.option(code, data), wire.option(wire.GO, wire.infoData('vda'))])
      expect(typesOf(outcome)).toEqual([wire.ERR_INVALID, wire.INFORMATION, wire.ACK])
    }
  })

  it('hears that a request is too big, and may go on', () => {
    const requests = Array.from({ length: 5000 }, () => 3)
    const outcome = run([
      MODERN,
      wire.option(wire.GO, wire.infoData('vda', requests)),
      wire.option(wire.GO, wire.infoData('vda')),
    ])
    expect(typesOf(outcome)).toEqual([wire.ERR_TOO_BIG, wire.INFORMATION, wire.ACK])
  })

  it('may ask for a name as long as names can be', () => {
    const longest = 'x'.repeat(4096)
    const catalogue = catalogueOf([offerOf(longest), VDA])
    const outcome = run([MODERN, wire.option(wire.GO, wire.infoData(longest, [1]))], catalogue)
    expect(outcome.last).toMatchObject({ kind: 'transmission', terms: { exportName: longest } })
    const oldStyle = run([MODERN, wire.option(wire.EXPORT_NAME, Buffer.from(longest))], catalogue)
    expect(oldStyle.last?.kind).toBe('transmission')
  })

  it('finds a byte order mark to be part of a name', () => {
    expect(textOf(run([MODERN, wire.option(wire.GO, wire.infoData('\ufeffvda'))]))).toBe(
      "there is no export '\ufeffvda'",
    )
  })
})

describe('bounds of a whole handshake', () => {
  it('ends one with too many options', () => {
    const limits = { ...DEFAULT_NEGOTIATION_LIMITS, optionsMax: 10 }
    const script = [MODERN, ...Array.from({ length: 11 }, () => wire.option(wire.STRUCTURED_REPLY))]
    const outcome = run(script, TWO, Infinity, limits)
    expect(typesOf(outcome)).toHaveLength(10)
    expect(outcome.last).toEqual({ kind: 'close', reason: 'limit', detail: 'more than 10 options' })
  })

  it('ends one that wants to hear too much, by LIST or by anything else', () => {
    const limits = { ...DEFAULT_NEGOTIATION_LIMITS, replyBytesMax: 10_000 }
    for (const asked of [wire.option(wire.LIST), wire.option(99), wire.option(wire.INFO, wire.infoData('vda'))]) {
      for (const pieceBytes of [1000, Infinity]) {
        const outcome = run([MODERN, ...Array.from({ length: 1000 }, () => asked)], TWO, pieceBytes, limits)
        expect(outcome.last).toMatchObject({ kind: 'close', reason: 'limit' })
        expect(outcome.sent.length).toBeGreaterThan(9000)
        expect(outcome.sent.length).toBeLessThan(11_000)
      }
    }
  })

  it('lets a client list a thousand exports and ask about each of them', () => {
    const names = Array.from({ length: 1024 }, (_, index) => `export-${index}`)
    const script = [MODERN, wire.option(wire.LIST)]
    for (const name of names) {
      script.push(wire.option(wire.INFO, wire.infoData(name, [0, 1, 2, 3])), wire.option(wire.LIST_META_CONTEXT))
    }
    const outcome = run([...script, wire.option(wire.ABORT)], catalogueOf(names.map((name) => offerOf(name))), 60_000)
    expect(outcome.last).toMatchObject({ kind: 'close', reason: 'abort' })
  })

  it('says nothing more after the end', () => {
    const negotiation = new Negotiation(TWO)
    negotiation.receive(Buffer.concat([MODERN, wire.option(wire.ABORT)]))
    expect(negotiation.receive(wire.option(wire.LIST))).toEqual([])
    expect(negotiation.state).toBe('closed')
    const entered = new Negotiation(TWO)
    entered.receive(Buffer.concat([MODERN, wire.option(wire.GO, wire.infoData('vda'))]))
    expect(() => entered.receive(Buffer.alloc(1))).toThrow('belong to the data plane')
  })
})
