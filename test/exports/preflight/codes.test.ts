/**
 * docs/preflight.md is the dictionary of the codes: each code has one line there, under the heading of its severity, and
 * no line is about a code that does not exist.
 */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { STACK_CODES } from '../../../src/exports/preflight/codes.ts'

const page = readFileSync(join(import.meta.dirname, '../../../docs/preflight.md'), 'utf8')
const HEADINGS = { unsafe: 'Not safe', condition: 'Safe on a condition', note: 'Worth knowing' } as const

function explainedUnder(heading: string): string[] {
  const section = page.split(`\n## ${heading}\n`)[1]?.split('\n## ')[0] ?? ''
  return [...section.matchAll(/^\| `([a-z-]+)`/gmu)].map(([, code = '']) => code).sort()
}

test.each(Object.entries(HEADINGS))(
  'every code that is %s is explained under its heading, and no other',
  (severity, heading) => {
    const codes = Object.entries(STACK_CODES).filter(([, value]) => value === severity)
    expect(explainedUnder(heading)).toEqual(codes.map(([code]) => code).sort())
  },
)
