/**
 * docs/guarantees.md names, for each guarantee, the tests that fail when it is broken. This looks whether those tests
 * exist under exactly those words, and whether every guarantee has some.
 */

import { describe, expect, test } from 'vitest'
import { projectHas, readProjectFile } from './project-files.ts'

const page = readProjectFile('docs/guarantees.md').text
const sections = page.split(/^## (?=\d\. )/mu).slice(1)

/** The tests that a section names, as file and words. */
function namedTests(section: string): { file: string; words: string }[] {
  return [...section.matchAll(/\| `(test\/[\w./-]+)`: (.+?) \|$/gmu)].map(([, file = '', words = '']) => ({
    file,
    words: words.replace(/ +$/u, ''),
  }))
}

function isMissing({ file, words }: { file: string; words: string }): boolean {
  if (!projectHas(file)) return true
  const text = readProjectFile(file).text.replaceAll("\\'", "'")
  return !text.includes(words)
}

describe('the guarantees', () => {
  test('are seven, and each names tests', () => {
    expect(sections.map((section) => Number(section[0]))).toEqual([1, 2, 3, 4, 5, 6, 7])
    expect(sections.filter((section) => namedTests(section).length < 2)).toEqual([])
  })

  test('name tests that exist', () => {
    expect(sections.flatMap(namedTests).filter(isMissing)).toEqual([])
  })

  test('would be caught naming a test that does not', () => {
    expect(isMissing({ file: 'test/style/guarantees.test.ts', words: ['no test', 'has this name'].join(' ') })).toBe(
      true,
    )
  })
})
