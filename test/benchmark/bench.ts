/**
 * `npm run bench`: measures interlockd beside other NBD servers on the same file, prints a table, and writes what it
 * found where it is told to. It judges nothing: no figure makes it fail.
 */

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { build } from '../../scripts/build.mjs'
import { describeMissing, installPeers } from '../../scripts/peers.mjs'
import { readOptions, USAGE } from './benchmark-options.ts'
import type { BenchmarkOptions } from './benchmark-options.ts'
import { runBenchmark } from './benchmark-run.ts'
import { drawChart } from './chart.ts'
import { CONTENDERS } from './contender.ts'
import { writeDocument } from './document.ts'
import { estimateSeconds } from './measurement.ts'
import type { Report } from './report.ts'
import { rowName } from './row.ts'
import { documentReport, plainReport } from './table.ts'

const PROJECT = join(import.meta.dirname, '../..')
const PAGE = join(PROJECT, 'docs/performance.md')
const CHART = join(PROJECT, 'docs/performance.svg')
const INTERRUPTED = 130

async function main(): Promise<void> {
  const options = readOptions(process.argv.slice(2))
  if (options.help) {
    console.log(USAGE)
    return
  }
  console.error(plan(options))
  if (options.list) {
    for (const row of options.rows) console.log(rowName(row))
    return
  }
  const report = options.from === null ? await measure(options) : readReport(options.from)
  console.log(plainReport(report))
  if (options.json !== null) writeFileSync(options.json, `${JSON.stringify(report, null, 2)}\n`)
  if (options.svg !== null) writeFileSync(options.svg, drawChart(report))
  if (!options.writeDocs) return
  writeDocument(PAGE, documentReport(report))
  writeFileSync(CHART, drawChart(report))
}

async function measure(options: BenchmarkOptions): Promise<Report> {
  const missing = installPeers(['peers'])
  for (const line of describeMissing(missing)) console.error(line)
  await build()
  const interruption = new AbortController()
  const interrupt = (): void => {
    interruption.abort(new Error('interrupted'))
    process.exitCode = INTERRUPTED
  }
  process.once('SIGINT', interrupt).once('SIGTERM', interrupt)
  const say = (text: string): void => {
    console.error(text)
  }
  try {
    return await runBenchmark(options, say, interruption.signal)
  } finally {
    process.off('SIGINT', interrupt).off('SIGTERM', interrupt)
  }
}

function plan(options: BenchmarkOptions): string {
  const contenders = options.contenders.map((name) => CONTENDERS[name])
  const seconds = estimateSeconds(options.rows.length, { ...options, contenders })
  return `${options.rows.length} rows, ${contenders.length} contenders, ${options.runs} runs: about ${Math.ceil(seconds / 60)} minutes`
}

function readReport(path: string): Report {
  const report = JSON.parse(readFileSync(path, 'utf8')) as Report
  if (!('version' in report)) throw new Error(`${path} is not a report of this benchmark`)
  return report
}

try {
  await main()
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = process.exitCode === INTERRUPTED ? INTERRUPTED : 1
}
