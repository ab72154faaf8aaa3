import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { QmpParser, formatQmpCommand } from '../../src/handover/qmp-message.ts'
import type { QmpMessage } from '../../src/handover/qmp-message.ts'

/** As QEMU 7.2 says it. */
const GREETING =
  '{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"}, "capabilities": ["oob"]}}\r\n'
const VALUE = '{"return": {"status": "running", "singlestep": false, "running": true}, "id": 7}\r\n'
const REFUSAL = '{"id": 8, "error": {"class": "CommandNotFound", "desc": "The command fly hasn\'t been found"}}\r\n'
const EVENT =
  '{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "MIGRATION", "data": {"status": "pre-switchover"}}\r\n'
const BARE_EVENT = '{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"}\r\n'
const UNASKED = '{"error": {"class": "GenericError", "desc": "JSON parse error, Größe"}}\r\n'

const CONVERSATION = GREETING + VALUE + REFUSAL + '\r\n' + EVENT + BARE_EVENT + UNASKED
const HEARD: readonly QmpMessage[] = [
  { kind: 'greeting', version: '7.2.22' },
  { kind: 'value', id: 7, value: { status: 'running', singlestep: false, running: true } },
  {
    kind: 'refusal',
    id: 8,
    refusal: { class: 'CommandNotFound', description: "The command fly hasn't been found" },
  },
  { kind: 'event', name: 'MIGRATION', data: { status: 'pre-switchover' } },
  { kind: 'event', name: 'STOP', data: {} },
  { kind: 'refusal', id: null, refusal: { class: 'GenericError', description: 'JSON parse error, Größe' } },
]

function parseAll(pieces: readonly Uint8Array[]): QmpMessage[] {
  const parser = new QmpParser()
  return pieces.flatMap((piece) => parser.push(piece))
}

describe('a conversation', () => {
  test('byte by byte: each message comes with the last byte of its line and not before', () => {
    const parser = new QmpParser()
    const counts: number[] = []
    const heard: QmpMessage[] = []
    const bytes = Buffer.from(CONVERSATION)
    for (const byte of bytes) {
      const messages = parser.push(Uint8Array.of(byte))
      heard.push(...messages)
      counts.push(messages.length)
    }
    expect(heard).toEqual(HEARD)
    counts.forEach((count, index) => {
      if (bytes[index] !== 0x0a) expect(count).toBe(0)
    })
  })

  test('cut anywhere, it says the same', () => {
    const bytes = Buffer.from(CONVERSATION)
    fc.assert(
      fc.property(fc.array(fc.nat(bytes.length), { maxLength: 20 }), (cuts) => {
        const ends = [0, ...cuts.sort((one, other) => one - other), bytes.length]
        const pieces = ends.slice(1).map((end, index) => bytes.subarray(ends[index], end))
        expect(parseAll(pieces)).toEqual(HEARD)
      }),
    )
  })

  test('the caller may reuse the memory of a piece', () => {
    const parser = new QmpParser()
    const memory = Buffer.from(VALUE)
    parser.push(memory.subarray(0, 10))
    memory.fill(0x20, 0, 10)
    expect(parser.push(memory.subarray(10))).toEqual([HEARD[1]])
  })
})

describe('what is no message', () => {
  test.each([
    ['no JSON', 'hello\n'],
    ['no object', '[1]\n'],
    ['an object of another kind', '{"answer": 42}\n'],
  ])('%s is told, and ends it', (_what, line) => {
    const parser = new QmpParser()
    const [first, ...rest] = parser.push(Buffer.from(line + VALUE))
    expect(first).toMatchObject({ kind: 'malformed' })
    expect(rest).toEqual([])
    expect(parser.push(Buffer.from(VALUE))).toEqual([])
  })

  test('a line without end is bounded, whether its end is there or not', () => {
    for (const end of ['', '\n']) {
      const parser = new QmpParser(64)
      expect(parser.push(Buffer.from(`{"return": "${'x'.repeat(50)}"}\n`))).toHaveLength(1)
      expect(parser.push(Buffer.from('x'.repeat(64)))).toEqual([])
      expect(parser.push(Buffer.from(`x${end}`))).toMatchObject([{ kind: 'malformed' }])
    }
  })

  test('nothing at all makes it throw', () => {
    fc.assert(
      fc.property(fc.array(fc.oneof(fc.string(), fc.json()).map((line) => Buffer.from(`${line}\n`))), (lines) => {
        const messages = parseAll(lines)
        expect(messages.filter(({ kind }) => kind === 'malformed').length).toBeLessThanOrEqual(1)
      }),
    )
  })
})

test('a command is one line, whatever is in its arguments', () => {
  const line = formatQmpCommand('migrate', 3, { uri: 'exec:cat\n> /dev/null' })
  expect(line.indexOf('\n')).toBe(line.length - 1)
  expect(JSON.parse(line)).toEqual({ execute: 'migrate', arguments: { uri: 'exec:cat\n> /dev/null' }, id: 3 })
})
