import { describe, expect, test } from 'vitest'
import fc from 'fast-check'
import { formatEndpoint, isEndpoint, isLoopback, parseEndpoint } from '../../src/foundation/endpoint.ts'
import type { Endpoint } from '../../src/foundation/endpoint.ts'

const port = fc.integer({ min: 0, max: 65_535 })
const endpoint: fc.Arbitrary<Endpoint> = fc.oneof(
  fc.record({ scheme: fc.constant('unix' as const), path: fc.stringMatching(/^\/[a-z./:-]{0,80}$/) }),
  fc.record({ scheme: fc.constant('tcp' as const), host: fc.oneof(fc.domain(), fc.ipV4(), fc.ipV6()), port }),
)

describe('endpoints', () => {
  test('what is formatted parses back to an equal one', () => {
    fc.assert(
      fc.property(endpoint, (original) => {
        expect(parseEndpoint(formatEndpoint(original))).toEqual(original)
      }),
    )
  })

  test.each([
    ['', /not a URL/],
    ['/run/x.sock', /not a URL/],
    ['http://localhost', /not a URL/],
    ['unix:', /absolute path/],
    ['unix:x.sock', /absolute path/],
    ['unix:/a\0b', /zero byte/],
    [`unix:/${'é'.repeat(60)}`, /121 bytes/],
    ['tcp:10809', /tcp:HOST:PORT/],
    ['tcp::10809', /tcp:HOST:PORT/],
    ['tcp:::1:10809', /tcp:HOST:PORT/],
    ['tcp:[::1]', /tcp:HOST:PORT/],
    ['tcp:localhost:65536', /no port 65536/],
    ['tls:host:1', /tls: is not served yet/],
  ])('%j is refused with a reason', (text, reason) => {
    const parsed = parseEndpoint(text)
    expect(isEndpoint(parsed)).toBe(false)
    expect('problem' in parsed && parsed.problem).toMatch(reason)
  })

  test('a path of 107 bytes is the longest', () => {
    expect(isEndpoint(parseEndpoint(`unix:/${'x'.repeat(106)}`))).toBe(true)
    expect(isEndpoint(parseEndpoint(`unix:/${'x'.repeat(107)}`))).toBe(false)
  })

  test.each([
    ['unix:/a', true],
    ['tcp:127.0.0.1:1', true],
    ['tcp:127.9.9.9:1', true],
    ['tcp:[::1]:1', true],
    ['tcp:localhost:1', true],
    ['tcp:0.0.0.0:1', false],
    ['tcp:[::]:1', false],
    ['tcp:127.example.org:1', false],
  ])('loopback of %s is %s', (text, expected) => {
    const parsed = parseEndpoint(text)
    expect(isEndpoint(parsed) && isLoopback(parsed)).toBe(expected)
  })
})
