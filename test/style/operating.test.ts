/**
 * docs/operating.md is what an operator has at night: every refusal that the daemon can give has its line there, with
 * what to do, and no line is about something that does not exist.
 */

import { expect, test } from 'vitest'
import { REFUSALS } from '../../src/foundation/refusal.ts'
import { readProjectFile } from './project-files.ts'

const section = readProjectFile('docs/operating.md').text.split('## Refusals')[1]?.split('\n## ')[0] ?? ''
const codes = section
  .split('\n')
  .filter((line) => line.startsWith('| `'))
  .flatMap((line) => [...(line.split('|')[1] ?? '').matchAll(/`([a-z-]+)`/gu)].map(([, code = '']) => code))

test('every refusal is explained to the operator', () => {
  const missing = Object.keys(REFUSALS).filter((code) => !codes.includes(code))
  expect(missing).toEqual([])
})

test('nothing is explained that does not exist, or twice', () => {
  expect(codes.filter((code) => !(code in REFUSALS))).toEqual([])
  expect(new Set(codes).size).toBe(codes.length)
})
