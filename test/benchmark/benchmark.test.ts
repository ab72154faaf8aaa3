/**
 * A cheap smoke test of the benchmark: that it names, measures, compares, prints and draws, on loads of a third of a
 * second. No figure is judged: machines that run tests are busy.
 *
 * @module-tag slow
 */

import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { runProgram } from '../support/foreign-program.ts'
import { temporaryDirectory } from '../support/temporary-directory.ts'
import { readOptions } from './benchmark-options.ts'
import { drawChart, rowTitle } from './chart.ts'
import { BEGIN_MARKER, END_MARKER, replaceBetweenMarkers } from './document.ts'
import { readFioReport } from './fio.ts'
import type { Finding, RowResult, Sample } from './measurement.ts'
import { usageOf } from './process-usage.ts'
import { bestPeer, describeMachine, failuresOf, figureOf, ratioOf } from './report.ts'
import type { Report } from './report.ts'
import { everyRow, fullRows, quickRows, rowName, rowsMatching } from './row.ts'
import type { Row } from './row.ts'
import { median, medianRatio, percentile } from './statistics.ts'
import { documentReport, plainReport } from './table.ts'

const PROJECT = join(import.meta.dirname, '../..')
/** A dozen daemons are started, on a machine that runs other tests. */
const PATIENCE_MS = 300_000
const TSX = join(PROJECT, 'node_modules/tsx/dist/cli.mjs')
const READS: Row = {
  ...{ pattern: 'read', block: '4k', depth: 32, connections: 1 },
  ...{ image: 'written', transport: 'unix', mode: 'direct' },
}

function sampleOf(requestsPerSecond: number): Sample {
  return {
    requests: 100,
    requestsPerSecond,
    bytesPerSecond: requestsPerSecond * 4096,
    p50Microseconds: 100,
    p99Microseconds: 200,
    p999Microseconds: 300,
    clientCpuMicroseconds: 5,
    serverCpuMicroseconds: 10,
    residentBytes: 2 ** 20,
    residentPeakBytes: 2 ** 21,
  }
}

function measured(cached: boolean, rates: readonly number[]): Finding {
  return { kind: 'measured', variant: '', cached, samples: rates.map(sampleOf) }
}

function reportOf(findings: RowResult['findings'], row: Row = READS): Report {
  return {
    ...{ version: 1, began: '2026-01-01T00:00:00.000Z', machine: describeMachine(), programs: { fio: 'fio 3' } },
    ...{ runs: 3, seconds: 1, imageBytes: 2 ** 28, close: [], standing: [], soak: [], failures: [] },
    rows: [{ name: rowName(row), row, findings }],
  }
}

describe('rows', () => {
  test('each has a name of its own', () => {
    const names = everyRow().map(rowName)
    expect(new Set(names).size).toBe(names.length)
    expect(names).toContain('write-4k-q32-c1-written-unix-durable')
  })

  test('the selections are rows of the matrix', () => {
    const names = new Set(everyRow().map(rowName))
    for (const row of [...quickRows(), ...fullRows()]) expect(names).toContain(rowName(row))
    expect(quickRows().length).toBeLessThan(fullRows().length)
  })

  test('patterns choose by name, and nothing else', () => {
    expect(rowsMatching(['read-4k-q1-c1-written-unix-direct']).map(rowName)).toEqual([
      'read-4k-q1-c1-written-unix-direct',
    ])
    expect(rowsMatching(['write-*-q32-c1-sparse-unix-durable'])).toHaveLength(3)
    expect(rowsMatching(['read.4k*'])).toEqual([])
  })

  test('an option that means nothing is refused in words', () => {
    expect(() => readOptions(['--runs', '0'])).toThrow(/--runs is a whole number from 1/u)
    expect(() => readOptions(['--contenders', 'mine'])).toThrow(/mine is none of/u)
    expect(() => readOptions(['--quick', '--full'])).toThrow(/choose one/u)
    expect(readOptions([]).rows).toEqual(quickRows())
  })
})

describe('figures', () => {
  test('medians, percentiles and ratios by round', () => {
    expect(median([3, 1, 2])).toBe(2)
    expect(median([4, 1, 2, 3])).toBe(2.5)
    expect(percentile([5, 1, 4, 2, 3], 50)).toBe(3)
    expect(percentile([1, 2], 99)).toBe(2)
    expect(medianRatio([10, 20, 90], [10, 10, 10])).toBe(2)
    expect(() => median([])).toThrow()
  })

  test("fio's report is read past the line that its engine prints", () => {
    const latencies = { percentile: { '50.000000': 1000, '99.000000': 2000, '99.900000': 3000 } }
    const mixed = { iops: 10, bw_bytes: 40, total_ios: 20, clat_ns: latencies }
    const job = { error: 0, job_runtime: 1000, usr_cpu: 1, sys_cpu: 1, mixed }
    const text = `fio: connected to NBD server\n${JSON.stringify({ jobs: [job] })}`
    expect(readFioReport(text)).toMatchObject({ requests: 20, p50Microseconds: 1, clientCpuMicroseconds: 1000 })
    expect(() => readFioReport(JSON.stringify({ jobs: [{ ...job, error: 5 }] }))).toThrow(/error 5/u)
  })

  test('the processor time of this process and its children only grows', () => {
    const before = usageOf(process.pid)
    execFileSync(process.execPath, ['-e', 'for (const end = Date.now() + 60; Date.now() < end; );'])
    const after = usageOf(process.pid)
    expect(after.cpuMicroseconds).toBeGreaterThan(before.cpuMicroseconds)
    expect(after.residentBytes).toBeGreaterThan(0)
  })

  test('a peer that answers from the page cache is not the best peer of a direct row', () => {
    const report = reportOf({
      io_uring: measured(false, [200, 300, 400]),
      'qemu-nbd': measured(false, [100, 100, 100]),
      'nbd-server': measured(true, [900, 900, 900]),
    })
    const [result] = report.rows
    expect(result).toBeDefined()
    if (result === undefined) return
    expect(bestPeer(result)).toBe('qemu-nbd')
    expect(figureOf(result, 'io_uring', 'requestsPerSecond')).toBe(300)
    expect(ratioOf(result, 'io_uring', 'qemu-nbd')).toBe(3)
    expect(ratioOf(result, 'io_uring', 'bare')).toBeNull()
    expect(plainReport(report)).toMatch(/nbd-server, page cache/u)
    expect(documentReport(report)).toMatch(/3\.00x qemu-nbd/u)
  })

  test('what failed is listed with its reason', () => {
    const report = reportOf({ nbdkit: { kind: 'failed', reason: 'it is missing' } })
    expect(failuresOf(report)).toEqual([`${rowName(READS)}: nbdkit: it is missing`])
    expect(plainReport(report)).toMatch(/not measured:\n.*it is missing/u)
  })
})

describe('document', () => {
  test('the chart is one SVG element with a bar for each contender that was measured', () => {
    const chart = drawChart(reportOf({ io_uring: measured(false, [200]), bare: measured(false, [400]) }))
    expect(chart).toMatch(/^<svg xmlns="http:\/\/www\.w3\.org\/2000\/svg"[^]*<\/svg>\n$/u)
    expect(chart.match(/<rect class="(?:ours|limit)"/gu)).toHaveLength(2)
    expect(chart).toMatch(/prefers-color-scheme: dark/u)
    expect(chart).toContain(rowTitle(READS))
  })

  test('figures go between the markers, and again in their place', () => {
    const page = `before\n${BEGIN_MARKER}\nold\n${END_MARKER}\nafter\n`
    const once = replaceBetweenMarkers(page, 'new')
    expect(once).toBe(`before\n${BEGIN_MARKER}\n\nnew\n\n${END_MARKER}\nafter\n`)
    expect(replaceBetweenMarkers(once, 'new')).toBe(once)
    expect(() => replaceBetweenMarkers('no markers', 'new')).toThrow(/markers|bench:begin/u)
  })

  test('the page has room for the figures', () => {
    const page = readFileSync(join(PROJECT, 'docs/performance.md'), 'utf8')
    expect(replaceBetweenMarkers(page, 'figures')).toContain('figures')
  })
})

describe('a run', () => {
  test(
    'measures ours, a peer and the bare file, and writes down what it found',
    { timeout: 2 * PATIENCE_MS },
    async () => {
      const directory = temporaryDirectory('benchmark')
      const images = join(directory, 'images')
      mkdirSync(images)
      const json = join(directory, 'found.json')
      const svg = join(directory, 'found.svg')
      const outcome = await runProgram(
        process.execPath,
        [
          ...[TSX, 'test/benchmark/bench.ts', '--rows', 'write-4k-q32-c1-written-unix-durable'],
          ...['--contenders', 'io_uring,file,nbdkit,bare', '--runs', '1', '--seconds', '0.3', '--image-mib', '64'],
          ...[
            '--closes',
            '2',
            '--idle-seconds',
            '0.2',
            '--soak-seconds',
            '3',
            '--directory',
            images,
            '--json',
            json,
            '--svg',
            svg,
          ],
        ],
        { directory: PROJECT, timeoutMs: PATIENCE_MS },
      )
      expect(outcome.stderr).not.toMatch(/Error/u)
      expect(outcome.status).toBe(0)
      const report = JSON.parse(readFileSync(json, 'utf8')) as Report
      const [result] = report.rows
      expect(result?.findings.file).toMatchObject({
        kind: 'measured',
        samples: [{ serverCpuMicroseconds: expect.any(Number) }],
      })
      expect(result?.findings.nbdkit?.kind).toBe('measured')
      // Where io_uring is forbidden, that is the finding.
      const ring = result?.findings.io_uring
      if (ring?.kind === 'failed') expect(ring.reason).toMatch(/io_uring/u)
      else expect(ring?.samples).toHaveLength(1)
      expect(report.close.find(({ engine }) => engine === 'file')?.samples).toHaveLength(2)
      expect(report.standing.find(({ contender }) => contender === 'file')?.unreadResidentBytes).toBeGreaterThan(
        2 ** 20,
      )
      const soak = report.soak.find(({ engine }) => engine === 'file')
      expect(soak?.requests).toBeGreaterThan(0)
      expect(soak?.descriptorsAfter).toBeLessThanOrEqual(soak?.descriptorsBefore ?? 0)
      expect(readFileSync(svg, 'utf8')).toContain('interlockd, file engine')
      expect(outcome.stdout).toContain('fio on the bare file')
    },
  )
})
