import { describe, expect, test } from 'vitest'
import fc from 'fast-check'
import { EventStreamParser } from '../../src/client/event-stream-parser.ts'

const parse = (...pieces: string[]): unknown[] => {
  const parser = new EventStreamParser()
  return pieces.flatMap((piece) => parser.push(piece))
}

describe('server-sent events', () => {
  test('id, type and data', () => {
    expect(parse('id: 7\nevent: drain\ndata: {"a":1}\n\n')).toEqual([{ id: '7', type: 'drain', data: '{"a":1}' }])
  })

  test('an id outlives its event; a type does not', () => {
    expect(parse('id: 7\nevent: drain\ndata: x\n\ndata: y\n\n')).toEqual([
      { id: '7', type: 'drain', data: 'x' },
      { id: '7', type: 'message', data: 'y' },
    ])
  })

  test('comments, unknown fields, events without data and several data lines', () => {
    expect(parse(': heartbeat\n\nretry: 1000\n\nevent: x\n\ndata: a\ndata:b\nnonsense\n\n')).toEqual([
      { id: '', type: 'message', data: 'a\nb' },
    ])
  })

  test('what is not complete is not told', () => {
    expect(parse('data: x\n')).toEqual([])
  })

  test('an event without end is an error, not all of memory', () => {
    const parser = new EventStreamParser()
    const piece = 'x'.repeat(1024 * 1024)
    expect(() => {
      for (let pieces = 0; pieces < 20; pieces++) parser.push(piece)
    }).toThrow(RangeError)
  })

  test('however it is cut and whatever ends its lines, it is the same', () => {
    const text = 'id: 1\nevent: a\ndata: one\ndata: two\n\n: c\n\nid: 2\ndata: three\n\n'
    const whole = parse(text)
    const cuts = fc.array(fc.integer({ min: 0, max: text.length * 2 }))
    fc.assert(
      fc.property(cuts, fc.constantFrom('\n', '\r\n', '\r'), (positions, ending) => {
        const translated = text.replaceAll('\n', ending)
        const sorted = [0, ...positions.map((cut) => Math.min(cut, translated.length)), translated.length].sort(
          (a, b) => a - b,
        )
        const pieces = sorted.slice(1).map((end, index) => translated.slice(sorted[index], end))
        // A carriage return at the very end may be half of a line ending, so the last event waits for more.
        expect(parse(...pieces, ending === '\r' ? ':' : '')).toEqual(whole)
      }),
    )
    expect(parse(...text.split(/(?=[^])/))).toEqual(whole)
  })
})
