/**
 * The last line of `npm test` is what others believe, so its arithmetic is tested, and so is the answer to a foreign
 * program that is missing.
 */

import { describe, expect, test } from 'vitest'
import { PEER_GROUPS, describeMissing, missingPeers, requirePeer } from '../../scripts/peers.mjs'
import { countReport, summaryLine } from '../../scripts/run-vitest.mjs'

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
