/**
 * The last line of `npm test` is what others believe, so its arithmetic is tested, and so is the answer to a foreign
 * program that is missing.
 */

import { describe, expect, test } from 'vitest'
import { PEER_GROUPS, describeMissing, missingPeers, requirePeer } from '../../scripts/peers.mjs'
import { countReport, filesOutOfTime, summaryLine, withSecondRun } from '../../scripts/run-vitest.mjs'

const file = (status: string, ...outcomes: string[]) => ({
  status,
  assertionResults: outcomes.map((outcome) => ({ status: outcome })),
})

describe('the numbers of a run', () => {
  test('add up over files', () => {
    const report = { testResults: [file('passed', 'passed', 'pending'), file('failed', 'passed', 'failed', 'todo')] }
    expect(countReport(report, 1)).toEqual({ passed: 2, failed: 1, skipped: 2 })
  })

  test('count a file that could not be loaded as a failure', () => {
    expect(countReport({ testResults: [file('failed')] }, 1)).toEqual({ passed: 0, failed: 1, skipped: 0 })
    expect(countReport({ testResults: [file('failed', 'passed')] }, 1)).toEqual({ passed: 1, failed: 1, skipped: 0 })
  })

  test('never say that all is well when vitest does not', () => {
    expect(countReport(undefined, 1).failed).toBe(1)
    expect(countReport(undefined, null).failed).toBe(1)
    expect(countReport({ testResults: [file('passed', 'passed')] }, 1).failed).toBe(1)
    expect(countReport({ testResults: [file('passed', 'passed')] }, 0).failed).toBe(0)
  })

  test('are one line, with skips only where there are any', () => {
    expect(summaryLine({ passed: 7, failed: 0, skipped: 0 })).toBe('7 passed, 0 failed')
    expect(summaryLine({ passed: 7, failed: 1, skipped: 2 })).toBe('7 passed, 1 failed, 2 skipped')
  })
})

describe('a file that ran out of time', () => {
  const fileOf = (name: string, ...messages: string[]) => ({
    name,
    status: messages.length === 0 ? 'passed' : 'failed',
    assertionResults: messages.map((message) => ({ status: 'failed', failureMessages: [message] })),
  })

  test.each([
    'Error: Test timed out in 600000ms.',
    'Error: Hook timed out in 180000ms.',
    'Error: not within 10000 ms: the holds to fall',
    'Error: WRITE at 4096 was not answered within 5000 ms',
    'Error: no ready line of interlockd within 60000 ms; it said nothing',
    'Error: nbd-client did not end within 30000 ms; it said nothing',
    'Error: in the machine, no end within 60000 ms of:\nsync',
  ])('is run once more: %s', (message) => {
    expect(filesOutOfTime({ testResults: [fileOf('good'), fileOf('late', message)] })).toEqual(['late'])
  })

  test('is not, where anything was seen to be wrong', () => {
    const late = fileOf('late', 'Error: Test timed out in 600000ms.')
    const wrong = fileOf('wrong', 'AssertionError: expected 1 to be 2')
    const both = fileOf('both', 'Error: not within 100 ms: an end', 'AssertionError: block 7 is old')
    expect(filesOutOfTime({ testResults: [late, wrong] })).toEqual([])
    expect(filesOutOfTime({ testResults: [both] })).toEqual([])
    expect(filesOutOfTime(undefined)).toEqual([])
    expect(filesOutOfTime({ testResults: [{ name: 'broken', status: 'failed', assertionResults: [] }] })).toEqual([])
  })

  test('counts as it ended the second time', () => {
    const first = { testResults: [fileOf('late', 'Error: not within 100 ms: an end'), file('passed', 'passed')] }
    const second = { testResults: [{ name: 'late', ...file('passed', 'passed', 'passed') }] }
    expect(countReport(withSecondRun(first, second), 0)).toEqual({ passed: 3, failed: 0, skipped: 0 })
    expect(countReport(withSecondRun(first, undefined), 1).failed).toBe(1)
  })
})

describe('foreign programs', () => {
  test('are found by path', () => {
    expect(requirePeer('sh')).toMatch(/^\/.*\/sh$/u)
  })

  test('that are missing are an error, which names the package where it is known', () => {
    expect(() => requirePeer('no-such-program')).toThrow('missing: no-such-program')
    const lines = describeMissing([
      { what: 'nbdkit', package: 'nbdkit', groups: ['peers', 'migration'] },
      { what: '/dev/fuse', package: null, groups: ['peers'] },
    ])
    expect(lines).toEqual([
      'missing: nbdkit (apt-get install --no-install-recommends nbdkit); needed by test/peers, test/migration',
      'missing: /dev/fuse (this machine must have it (in a container: --device /dev/fuse --cap-add SYS_ADMIN)); needed by test/peers',
    ])
  })

  test('are all reported when nothing can be found', () => {
    const path = process.env['PATH']
    process.env['PATH'] = '/nonexistent'
    try {
      const missing = missingPeers(PEER_GROUPS).map(({ what }) => what)
      expect(missing).toEqual(expect.arrayContaining(['qemu-img', 'nbdkit', 'fio']))
    } finally {
      process.env['PATH'] = path
    }
  })
})
