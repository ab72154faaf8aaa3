/**
 * A crash at the edges that differ where the record is in etcd: before a record is sent, and after a majority has it. All
 * other edges are those of test/exports/crash-edges.test.ts, whatever the home.
 *
 * @module-tag slow
 */

import { afterAll, describe, expect, test } from 'vitest'
import { dieClosing, dieClosingEarly, dieDraining, dieOpening } from '../exports/crash-course.ts'
import type { CrashEdge, CrashOutcome } from '../exports/crash-course.ts'
import { CrashRigs } from '../exports/crash-rig.ts'
import { withRecordsInEtcd } from './etcd-rig.ts'

type Table = Readonly<Record<string, readonly CrashOutcome[]>>

const OPEN: Table = {
  'record: written': ['closed'],
  'record: durable': ['opening'],
  'record: written@2': ['opening'],
  'record: durable@2': ['open'],
}

const CLOSE: Table = {
  'record: written': ['open'],
  'record: durable': ['closing'],
  'record: written@2': ['closing'],
  'record: durable@2': ['closed'],
}

const EARLY: Table = {
  'record: written': ['open'],
  'record: durable': ['handed early'],
}

const EARLY_END = ['record: written', 'record: durable']

const rigs = new CrashRigs(['file', 'io_uring'])

// Before etcd ends: what is registered last runs first.
const recordKeys = await withRecordsInEtcd(() => Promise.resolve())
afterAll(() => rigs.dispose())

function edgesOf(table: Table): [string, boolean, CrashEdge][] {
  return Object.entries(table).map(([fault, allowed], index) => {
    const otherFirst = index % 2 === 1
    return [fault, otherFirst, { fault, allowed, otherFirst }]
  })
}

describe.concurrent('with the record in etcd', () => {
  test.each(edgesOf(OPEN))('opening: %s (the other host opens first: %s)', (_fault, _first, edge) =>
    rigs.use('either', (rig) => dieOpening(rig, edge)),
  )

  test.each(edgesOf(CLOSE))('closing: %s (the other host opens first: %s)', (_fault, _first, edge) =>
    rigs.use('either', (rig) => dieClosing(rig, edge)),
  )

  test.each(edgesOf(EARLY))('closing early: %s (the other host opens first: %s)', (_fault, _first, edge) =>
    rigs.use('either', (rig) => dieClosingEarly(rig, edge)),
  )

  test.each(EARLY_END)('at the end of an early close, when the destination has opened: %s', (fault) =>
    rigs.use('either', (rig) => dieDraining(rig, fault)),
  )
})

test('the records were in etcd', async () => {
  expect(await recordKeys()).not.toBe('')
})
