/** The reader of the witness log, against lines as nbdkit writes them. */

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { temporaryDirectory } from './temporary-directory.ts'
import { parseWitnessLog, WitnessLog } from './witness-log.ts'

const LINES = `2026-11-22 20:03:12.182193 Ready thread_model=3
2026-11-22 20:03:12.491945 connection=1 Connect export="" tls=0 size=0x4000000 write=1 flush=1
2026-11-22 20:03:13.100000 connection=1 Write id=1 offset=0x1000 count=0x1000 fua=0 ...
2026-11-22 20:03:13.200000 connection=2 Write id=1 offset=0x1800 count=0x200 fua=1 ...
2026-11-22 20:03:13.400000 connection=1 ...Write id=1 return=0
2026-11-22 20:03:13.500000 connection=2 ...Write id=1 return=-1 error=EIO
2026-11-22 20:03:13.600000 connection=1 Zero id=2 offset=0x1000 count=0x2000 trim=1 fua=0 fast=0 ...
2026-11-22 20:03:13.700000 connection=1 ...Zero id=2 return=0
2026-11-22 20:03:13.800000 connection=2 Flush id=2 ...
2026-11-22 20:03:13.900000 connection=2 ...Flush id=2 return=0
`

const at = (fraction: number): number => Date.parse('2026-11-22T20:03:13Z') + fraction

function logOf(lines: string): WitnessLog {
  const path = join(temporaryDirectory('witness-log'), 'witness.log')
  writeFileSync(path, lines)
  return new WitnessLog(path)
}

test('every operation has its kind, its bytes, its times and its outcome', () => {
  expect(parseWitnessLog(LINES)).toEqual([
    {
      kind: 'Write',
      connection: 1,
      id: 1,
      offset: 4_096,
      length: 4_096,
      fua: false,
      startMs: at(100),
      endMs: at(400),
      succeeded: true,
    },
    {
      kind: 'Write',
      connection: 2,
      id: 1,
      offset: 6_144,
      length: 512,
      fua: true,
      startMs: at(200),
      endMs: at(500),
      succeeded: false,
    },
    {
      kind: 'Zero',
      connection: 1,
      id: 2,
      offset: 4_096,
      length: 8_192,
      fua: false,
      startMs: at(600),
      endMs: at(700),
      succeeded: true,
    },
    {
      kind: 'Flush',
      connection: 2,
      id: 2,
      offset: 0,
      length: 0,
      fua: false,
      startMs: at(800),
      endMs: at(900),
      succeeded: true,
    },
  ])
})

test('two writes of the same bytes at once are a pair, one after the other they are not', () => {
  const log = logOf(LINES)
  expect(log.overlappingPairs().map(([first, second]) => [first.offset, second.offset])).toEqual([[4_096, 6_144]])
  expect(log.overlappingPairs(at(150))).toEqual([])
})

test('quiet is only after the end of the flush that follows the last change', () => {
  const log = logOf(LINES)
  expect([log.wasQuietAt(at(899)), log.wasQuietAt(at(901))]).toEqual([false, true])
  expect(log.changesAfter(at(650)).map(({ kind }) => kind)).toEqual(['Flush'])
  const unfinished = logOf(
    `${LINES}2026-11-22 20:03:13.950000 connection=1 Trim id=3 offset=0x0 count=0x200 fua=0 ...\n`,
  )
  expect(unfinished.wasQuietAt(at(990))).toBe(false)
  expect(unfinished.inDisk().map(({ kind }) => kind)).toEqual(['Trim'])
})

test('a flush that failed, or began before the last change ended, makes nothing quiet', () => {
  expect(logOf(LINES.replace('Flush id=2 return=0', 'Flush id=2 return=-1 error=EIO')).wasQuietAt(at(990))).toBe(false)
  expect(logOf(LINES.replace('13.800000', '13.650000')).wasQuietAt(at(990))).toBe(false)
})
