/**
 * Whole handshakes as hexadecimal text, byte for byte, written down from the specification: what must never change by
 * accident, and readable beside it. `C` is what the client sends, `S` what it must hear.
 */

import { describe, expect, it } from 'vitest'
import { Negotiation } from '../../src/nbd/negotiation.ts'
import { servedAbilities, transmissionFlags } from '../../src/nbd/transmission-flags.ts'
import { catalogueOf, offerOf } from '../nbd/catalogue-for-tests.ts'

const CATALOGUE = catalogueOf([
  offerOf('vda', { sizeBytes: 0x40000000, transmissionFlags: transmissionFlags(servedAbilities(false, false)) }),
])

const IHAVEOPT = '49484156454f5054'
const REPLY = '0003e889045565a9'
const GREETING = `4e42444d41474943 ${IHAVEOPT} 0003`

const VECTORS: readonly { readonly name: string; readonly lines: readonly string[]; readonly unread: string | null }[] =
  [
    {
      name: 'a client of the oldest newstyle kind: flags 1, EXPORT_NAME, zeroes',
      lines: [
        `S ${GREETING}`,
        'C 00000001',
        `C ${IHAVEOPT} 00000001 00000003 766461`,
        `S 0000000040000000 0c6d ${'00'.repeat(124)}`,
      ],
      unread: '',
    },
    {
      name: 'STARTTLS and structured replies declined, then GO with all its questions and a first request behind it',
      lines: [
        `S ${GREETING}`,
        'C 00000003',
        `C ${IHAVEOPT} 00000005 00000000`,
        // "STARTTLS is not supported"
        `S ${REPLY} 00000005 80000001 00000019 5354415254544c53206973206e6f7420737570706f72746564`,
        `C ${IHAVEOPT} 00000008 00000000`,
        // "STRUCTURED_REPLY is not supported"
        `S ${REPLY} 00000008 80000001 00000021 535452554354555245445f5245504c59206973206e6f7420737570706f72746564`,
        `C ${IHAVEOPT} 00000007 0000000f 00000003 766461 0003 0000 0001 0003`,
        `S ${REPLY} 00000007 00000003 0000000c 0000 0000000040000000 0c6d`,
        `S ${REPLY} 00000007 00000003 00000005 0001 766461`,
        `S ${REPLY} 00000007 00000003 0000000e 0003 00000001 00001000 02000000`,
        `S ${REPLY} 00000007 00000001 00000000`,
        'C 25609513 0000 0000 0000000000000001 0000000000000000 00000200',
      ],
      unread: '25609513 0000 0000 0000000000000001 0000000000000000 00000200',
    },
    {
      name: 'a list, and goodbye',
      lines: [
        `S ${GREETING}`,
        'C 00000003',
        `C ${IHAVEOPT} 00000003 00000000`,
        `S ${REPLY} 00000003 00000002 00000007 00000003 766461`,
        `S ${REPLY} 00000003 00000001 00000000`,
        `C ${IHAVEOPT} 00000002 00000000`,
        `S ${REPLY} 00000002 00000001 00000000`,
      ],
      unread: null,
    },
  ]

function bytesOf(lines: readonly string[], speaker: 'C' | 'S'): Buffer {
  const spoken = lines.filter((line) => line.startsWith(speaker)).map((line) => line.slice(1))
  return Buffer.from(spoken.join('').replaceAll(' ', ''), 'hex')
}

describe('handshake vectors', () => {
  it.each(VECTORS)('$name', ({ lines, unread }) => {
    const negotiation = new Negotiation(CATALOGUE)
    const decisions = negotiation.receive(bytesOf(lines, 'C'))
    const sent = decisions.flatMap((decision) => (decision.kind === 'send' ? [decision.bytes] : []))
    expect(Buffer.concat([negotiation.greeting(), ...sent]).toString('hex')).toBe(bytesOf(lines, 'S').toString('hex'))
    const last = decisions.at(-1)
    expect(last?.kind).toBe(unread === null ? 'close' : 'transmission')
    if (last?.kind === 'transmission') {
      expect(Buffer.from(last.unread).toString('hex')).toBe((unread ?? '').replaceAll(' ', ''))
    }
  })
})
