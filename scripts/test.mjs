/**
 * `npm test`: the foreign programs first, then every test, then one line of numbers. Arguments go to vitest
 * (`npm test -- test/nbd -t 'half a request'`).
 *
 * Invariant: nothing is left out silently. Where foreign programs are missing and may not be installed, the groups of
 * tests that need them are named, and their files counted as skipped; in CI a missing program and a skip are failures.
 */

import { PEER_GROUPS, describeMissing, groupsWithTests, installPeers, testFilesOf } from './peers.mjs'
import { runVitest, summaryLine } from './run-vitest.mjs'

/** The groups of vitest.config.ts. */
const PROJECTS = ['style', 'pure', ...PEER_GROUPS]
const inContinuousIntegration = !['', undefined, '0', 'false'].includes(process.env.CI)

/** Of the groups that need foreign programs, those that these arguments ask for: a path or a word of one, or all. */
function groupsAsked(vitestArguments) {
  const groups = groupsWithTests()
  const filters = vitestArguments.filter((word) => !word.startsWith('-') && /\/|\.test/u.test(word))
  if (filters.length === 0) return groups
  return groups.filter((group) => filters.some((filter) => filter.includes(`test/${group}`)))
}

const vitestArguments = process.argv.slice(2)
const missing = installPeers(groupsAsked(vitestArguments))
const incomplete = [...new Set(missing.flatMap((entry) => entry.groups))]
// A folder can be left out as a whole; elsewhere the test that misses its program fails and says so.
const leftOut = inContinuousIntegration ? [] : incomplete.filter((group) => group !== 'process')

// Several exclusions would each let in what the others keep out, so what remains is named.
const remaining = leftOut.length === 0 ? [] : PROJECTS.filter((project) => !leftOut.includes(project))
const total = await runVitest([...vitestArguments, ...remaining.map((project) => `--project=${project}`)])

for (const line of describeMissing(missing)) console.log(line)
if (inContinuousIntegration) {
  total.failed += missing.length + total.skipped
  if (total.skipped > 0) console.log(`${total.skipped} tests were skipped: in CI each is a failure`)
  total.skipped = 0
}
for (const group of leftOut) {
  const files = testFilesOf(group)
  console.log(`not run: test/${group} (${files.length} files, each counted as skipped)`)
  total.skipped += files.length
}
console.log(summaryLine(total))
process.exitCode = total.failed > 0 ? 1 : 0
