/**
 * Runs vitest, shows what it shows, and returns the numbers from its own report: what counts is the report, never the
 * text on the screen. A file that could not be loaded, a failed build and an unhandled error count as failures too.
 *
 * A file in which something only ran out of time is run once more by itself, and named: machines that run tests are
 * shared, and a virtual machine that starves says nothing about data. What was seen to be wrong is never asked again.
 */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const VITEST = join(ROOT, 'node_modules', 'vitest', 'vitest.mjs')
/** How vitest and our own rigs say that a wait has ended without what it waited for. */
const OUT_OF_TIME =
  /\b(?:timed out|not (?:answered )?within|no \S.* within|did not (?:end|answer) .*within) (?:in )?\d+ ?ms\b/u
/** More than this is no bad luck. */
const LATE_FILES_MAX = 4

/** { passed, failed, skipped } of one run. `node` is the Node to run it with. */
export async function runVitest(vitestArguments, options = {}) {
  const first = await runOnce(vitestArguments, options)
  const late = filesOutOfTime(first.report)
  if (late.length === 0 || late.length > LATE_FILES_MAX) return countReport(first.report, first.status)
  console.log(`ran out of time, and run once more: ${late.map((name) => relative(ROOT, name)).join(', ')}`)
  const flags = vitestArguments.filter((word) => word.startsWith('-'))
  const second = await runOnce([...flags, ...late], options)
  const merged = withSecondRun(first.report, second.report)
  return countReport(merged, second.status)
}

async function runOnce(vitestArguments, { node = process.execPath, environment = {} }) {
  const directory = mkdtempSync(join(tmpdir(), 'interlockd-report-'))
  const path = join(directory, 'report.json')
  try {
    const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${path}`]
    const child = spawn(node, [VITEST, 'run', ...reporters, ...vitestArguments], {
      cwd: ROOT,
      env: { ...process.env, ...environment },
      stdio: ['ignore', 'inherit', 'inherit'],
    })
    const [status] = await once(child, 'exit')
    return { report: existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : undefined, status }
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

/**
 * The files in which every failure is a wait that ran out of time. None where anything else failed too: then the run has
 * its verdict. Tests that a failed preparation has kept from running are no verdict.
 */
export function filesOutOfTime(report) {
  const failed = (report?.testResults ?? []).filter((file) => file.status === 'failed')
  const areLate = (messages) => messages.length > 0 && messages.every((message) => OUT_OF_TIME.test(message))
  const isLate = (file) => {
    const failures = file.assertionResults.filter((result) => result.status === 'failed')
    if (failures.length === 0) return areLate([file.message].filter(Boolean))
    return failures.every((result) => areLate(result.failureMessages ?? []))
  }
  return failed.every(isLate) ? failed.map((file) => file.name) : []
}

/** The first report, in which the files that were run again count as they ended then. */
export function withSecondRun(first, second) {
  const again = new Map((second?.testResults ?? []).map((file) => [file.name, file]))
  return { testResults: first.testResults.map((file) => again.get(file.name) ?? file) }
}

/** From vitest's JSON report and its exit status. */
export function countReport(report, status) {
  const counts = { passed: 0, failed: 0, skipped: 0 }
  for (const file of report?.testResults ?? []) {
    for (const { status: outcome } of file.assertionResults) {
      if (outcome === 'passed') counts.passed++
      else if (outcome === 'failed') counts.failed++
      else counts.skipped++
    }
    const fileFailedAsAWhole =
      file.status === 'failed' && !file.assertionResults.some((result) => result.status === 'failed')
    if (fileFailedAsAWhole) counts.failed++
  }
  if (status !== 0 && counts.failed === 0) counts.failed = 1
  return counts
}

/** The line that ends a run of tests. */
export function summaryLine({ passed, failed, skipped }) {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`
}
