import { describe, expect, it } from 'vitest'
import { REFUSALS, Refusal } from '../../src/foundation/refusal.ts'
import type { RefusalCode } from '../../src/foundation/refusal.ts'

describe('the catalogue of refusals', () => {
  it.each(Object.keys(REFUSALS) as RefusalCode[])(
    '%s has a name in kebab-case, a title and an error status',
    (code) => {
      expect(code).toMatch(/^[a-z]+(-[a-z]+)*$/)
      expect(REFUSALS[code].title).toMatch(/^[A-Z].*[^.]$/)
      expect(REFUSALS[code].status).toBeGreaterThanOrEqual(400)
      expect(REFUSALS[code].status).toBeLessThan(600)
    },
  )

  it('gives each refusal a title of its own', () => {
    const titles = Object.values(REFUSALS).map(({ title }) => title)
    expect(new Set(titles).size).toBe(titles.length)
  })
})

describe('a refusal', () => {
  it('carries its code, its detail and what else the operator should see', () => {
    const refusal = new Refusal('wrong-state', 'export vda is closing', { state: 'closing' })
    expect([refusal.name, refusal.code, refusal.message, refusal.members]).toEqual([
      'Refusal',
      'wrong-state',
      'export vda is closing',
      { state: 'closing' },
    ])
    expect(new Refusal('bad-request', 'no').members).toEqual({})
  })
})
