/**
 * Runs vitest once, shows what it shows, and returns the numbers from its own report: what counts is the report, never
 * the text on the screen. A file that could not be loaded, a failed build and an unhandled error count as failures too.
 */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const VITEST = join(ROOT, 'node_modules', 'vitest', 'vitest.mjs')

/** { passed, failed, skipped } of one run. `node` is the Node to run it with. */
export async function runVitest(vitestArguments, { node = process.execPath, environment = {} } = {}) {
  const directory = mkdtempSync(join(tmpdir(), 'interlockd-report-'))
  const report = join(directory, 'report.json')
  try {
    const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`]
    const child = spawn(node, [VITEST, 'run', ...reporters, ...vitestArguments], {
      cwd: ROOT,
      env: { ...process.env, ...environment },
      stdio: ['ignore', 'inherit', 'inherit'],
    })
    const [status] = await once(child, 'exit')
    return countReport(existsSync(report) ? JSON.parse(readFileSync(report, 'utf8')) : undefined, status)
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
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
