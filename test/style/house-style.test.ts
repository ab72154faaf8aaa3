/**
 * Every rule of house-rules.ts over every file of the project, and over its own two samples.
 */

import { describe, expect, test } from 'vitest'
import { RULES, headOf } from './house-rules.ts'
import { isTypeScript, projectFiles } from './project-files.ts'

const files = projectFiles()

test('there are files to look at', () => {
  expect(files.filter((file) => isTypeScript(file.path)).length).toBeGreaterThan(40)
  expect(files.map((file) => file.path)).toContain('README.md')
})

describe.each(RULES)('$name', (rule) => {
  test('in the whole project', () => {
    const complaints = files
      .filter((file) => rule.appliesTo(file.path))
      .flatMap((file) => rule.complaints(file).map((complaint) => `${file.path}: ${complaint}`))
    expect(complaints).toEqual([])
  })

  test('finds its bad sample, and only that', () => {
    expect(rule.appliesTo(rule.bad.path)).toBe(true)
    expect(rule.complaints(rule.bad)).not.toEqual([])
    expect(rule.appliesTo(rule.good.path)).toBe(true)
    expect(rule.complaints(rule.good)).toEqual([])
  })

  test('looks at some file of the project', () => {
    expect(files.some((file) => rule.appliesTo(file.path))).toBe(true)
  })
})

test('half of the source files are at most 150 lines long', () => {
  const lengths = files
    .filter((file) => file.path.startsWith('src/') && isTypeScript(file.path))
    .map((file) => file.text.split('\n').length)
    .sort((one, other) => one - other)
  expect(lengths[Math.floor(lengths.length / 2)]).toBeLessThanOrEqual(150)
})

test('the head of a file is read without its decoration', () => {
  expect(headOf('#!/usr/bin/env node\n/**\n * One.\n *\n * Two.\n */\n')).toEqual(['One.', 'Two.'])
  expect(headOf("import x from 'y'\n/** Late. */")).toBeUndefined()
})
