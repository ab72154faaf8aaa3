/**
 * What can be checked of prose: links lead somewhere, files that are named exist, decisions have their sections, and
 * the changelog knows the version.
 */

import { basename, dirname, join, normalize } from 'node:path/posix'
import { describe, expect, test } from 'vitest'
import { projectFiles, projectHas, projectPaths, readProjectFile } from './project-files.ts'
import type { ProjectFile } from './project-files.ts'

const pages = projectFiles().filter((file) => file.path.endsWith('.md'))
const decisions = pages.filter((file) => /^docs\/decisions\/\d/u.test(file.path))
const DECISION_SECTIONS = ['Context', 'Choice', 'What was given up']

/** Code blocks hold examples, not statements about this project. */
function withoutBlocks(text: string): string {
  return text.replace(/^(\s*)```[\s\S]*?^\s*```/gmu, '')
}

/** The anchors that a page offers, as GitHub makes them of headings. */
function anchorsOf(text: string): Set<string> {
  const headings = [...withoutBlocks(text).matchAll(/^#{1,6} +(.+?) *$/gmu)].map(([, title = '']) => title)
  return new Set(
    headings.map((title) =>
      title
        .replace(/\[([^\]]*)\]\([^)]*\)/gu, '$1')
        .toLowerCase()
        .replace(/[^\p{L}\p{N}\s_-]/gu, '')
        .replace(/\s/gu, '-'),
    ),
  )
}

/** Links of a page that lead nowhere in this project. Links to other sites are not followed. */
function deadLinks(page: ProjectFile): string[] {
  const inline = withoutBlocks(page.text).replace(/`[^`\n]*`/gu, '')
  const targets = [...inline.matchAll(/\]\(<?([^)\s>]+)>?(?: "[^"]*")?\)|^\[[^\]]+\]: *(\S+)/gmu)]
  return targets
    .map(([, inLine, below]) => inLine ?? below ?? '')
    .filter((target) => !/^[a-z]+:/u.test(target))
    .filter((target) => {
      const [path = '', anchor] = target.split('#')
      const resolved = path === '' ? page.path : normalize(join(dirname(page.path), path))
      if (path !== '' && !projectHas(resolved)) return true
      if (anchor === undefined || !resolved.endsWith('.md')) return false
      return !anchorsOf(path === '' ? page.text : readProjectFile(resolved).text).has(anchor)
    })
}

/** Paths of this project that a text names as plain words or code: `src/nbd/reply.ts`, docs/operating.md. */
function lostPaths(file: ProjectFile): string[] {
  const named = file.text.matchAll(
    /(?<![\w./-])((?:src|test|scripts|docs|docker|bin)\/[\w./-]*\w\.(?:ts|mjs|cjs|md|json|toml))\b/gu,
  )
  return [...named].map(([, path = '']) => path).filter((path) => !projectHas(path))
}

/** What a decision lacks. */
function flawsOf(decision: ProjectFile): string[] {
  const headings = [...decision.text.matchAll(/^(#{1,2}) (.+)$/gmu)].map(([, level = '', title = '']) => ({
    level,
    title,
  }))
  const sections = headings.filter(({ level }) => level === '##').map(({ title }) => title)
  const flaws = DECISION_SECTIONS.filter((section) => !sections.includes(section)).map(
    (section) => `no "## ${section}"`,
  )
  if (headings[0]?.level !== '#') flaws.push('does not begin with its title')
  if (!/^\d{4}-[a-z0-9-]+\.md$/u.test(basename(decision.path))) flaws.push('is not named NNNN-kebab-case.md')
  for (const section of decision.text.split(/^## .+$/gmu).slice(1))
    if (section.trim() === '') flaws.push('has an empty section')
  return flaws
}

describe('docs', () => {
  test('there are pages to look at', () => {
    expect(pages.map((page) => page.path)).toEqual(
      expect.arrayContaining(['README.md', 'CHANGELOG.md', 'docs/style.md']),
    )
  })

  test('every link leads somewhere', () => {
    expect(pages.flatMap((page) => deadLinks(page).map((target) => `${page.path}: ${target}`))).toEqual([])
  })

  test('every file of the project that a page or a comment names is there', () => {
    const texts = projectFiles().filter(
      ({ path }) => (path.endsWith('.md') || /^(?:src|scripts|bin)\//u.test(path)) && path !== 'CHANGELOG.md',
    )
    expect(texts.flatMap((file) => lostPaths(file).map((path) => `${file.path}: ${path}`))).toEqual([])
  })

  test('the checks find what they look for', () => {
    const text =
      '# A b\n[a](gone.md) [b](#a-b) [c](#nowhere) [d](style.md) `[e](no.md)` [f](https://x.org/y)\n[g]: lost.md\n'
    expect(deadLinks({ path: 'docs/page.md', text })).toEqual(['gone.md', '#nowhere', 'lost.md'])
    expect(lostPaths({ path: 'docs/page.md', text: 'See src/foundation/assert.ts and `src/lost.ts`.' })).toEqual([
      'src/lost.ts',
    ])
  })
})

describe('decisions', () => {
  test('each has its title, its name and its sections', () => {
    expect(decisions.length).toBeGreaterThan(0)
    expect(decisions.flatMap((file) => flawsOf(file).map((flaw) => `${file.path} ${flaw}`))).toEqual([])
  })

  test('no number is given twice or left out', () => {
    const numbers = decisions.map((file) => Number(basename(file.path).slice(0, 4)))
    expect(numbers).toEqual(numbers.map((_, index) => index + 1))
  })

  test('the folder holds nothing else but its README, which lists them all', () => {
    const paths = projectPaths('docs/decisions')
    expect(paths).toEqual([...decisions.map((file) => file.path), 'docs/decisions/README.md'])
    const index = readProjectFile('docs/decisions/README.md').text
    expect(decisions.map((file) => basename(file.path)).filter((name) => !index.includes(`(${name})`))).toEqual([])
  })

  test('the check finds what it looks for', () => {
    const text = '## Context\n\nWords.\n\n## Choice\n\n'
    expect(flawsOf({ path: 'docs/decisions/1-x.md', text })).toHaveLength(4)
  })
})

test('the changelog has an entry for the version in package.json', () => {
  const { version } = JSON.parse(readProjectFile('package.json').text) as { version: string }
  expect(readProjectFile('CHANGELOG.md').text).toContain(`\n## ${version}`)
})
