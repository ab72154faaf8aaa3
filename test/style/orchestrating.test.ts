/**
 * docs/orchestrating.md is the contract for those who write their own orchestrator: each refusal of the daemon has the
 * right reaction there, each failure of a run as well, each finding of its own look its meaning, and nothing is explained
 * that does not exist.
 */

import { describe, expect, test } from 'vitest'
import { REFUSALS } from '../../src/foundation/refusal.ts'
import { OWN_CODES } from '../../src/handover/ending.ts'
import { FINDING_CODES } from '../../src/handover/preflight.ts'
import { readProjectFile } from './project-files.ts'

const page = readProjectFile('docs/orchestrating.md').text

/** The codes of the first column of a section's tables. */
function codesOf(heading: string): string[] {
  const section = page.split(`\n## ${heading}\n`)[1]?.split('\n## ')[0] ?? ''
  return section
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .flatMap((line) => [...(line.split('|')[1] ?? '').matchAll(/`([a-z-]+)`/gu)].map(([, code = '']) => code))
}

describe.each([
  ['Every error', Object.keys(REFUSALS)],
  ['When a run does not succeed', [...OWN_CODES]],
  ['What is looked at before', [...FINDING_CODES]],
])('%s', (heading, known) => {
  const explained = codesOf(heading)

  test('every code is explained', () => {
    expect(known.filter((code) => !explained.includes(code))).toEqual([])
  })

  test('nothing is explained that does not exist, or twice', () => {
    expect(explained.filter((code) => !known.includes(code))).toEqual([])
    expect(new Set(explained).size).toBe(explained.length)
  })
})

test('four kinds of handover are drawn', () => {
  expect(page.match(/```mermaid\nsequenceDiagram/gu)).toHaveLength(4)
})
