import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { TOKEN_INDEX_MAX, TokenKind, makeToken, tokenFits, tokenIndex, tokenKind } from '../../src/data/token.ts'

describe('a token', () => {
  const kinds = fc.constantFrom(...Object.values(TokenKind))
  const index = fc.integer({ min: 0, max: TOKEN_INDEX_MAX })
  const reuse = fc.integer({ min: 0, max: 2 ** 24 })

  test('is a small integer that says its kind, its row and which use of it', () => {
    fc.assert(
      fc.property(kinds, index, reuse, (kind, row, uses) => {
        const token = makeToken(kind, row, uses)
        expect(token).toBeGreaterThanOrEqual(0)
        expect(token).toBeLessThan(2 ** 30)
        expect(tokenKind(token)).toBe(kind)
        expect(tokenIndex(token)).toBe(row)
        expect(tokenFits(token, uses)).toBe(true)
      }),
    )
  })

  test('does not fit the next 255 uses of its row', () => {
    fc.assert(
      fc.property(index, reuse, fc.integer({ min: 1, max: 255 }), (row, uses, later) => {
        expect(tokenFits(makeToken(TokenKind.request, row, uses), uses + later)).toBe(false)
      }),
    )
  })
})
