/** What a course of moments says about the guest's downtime: which part of it is the disks', whatever ran beside. */

import { expect, test } from 'vitest'
import { MigrationCourse } from '../../src/handover/migration-course.ts'
import type { MigrationStep } from '../../src/handover/migration-course.ts'

/** A course with these moments, in ms since it began, of a guest that stopped at 100. */
function downtimeOf(moments: Partial<Record<MigrationStep, number>>) {
  const course = new MigrationCourse()
  const beganMs = performance.now()
  for (const [step, atMs] of Object.entries(moments)) course.mark(step as MigrationStep, beganMs + atMs)
  const downtime = course.downtime(beganMs + 100)
  return downtime && Object.fromEntries(Object.entries(downtime).map(([key, ms]) => [key, Math.round(ms)]))
}

const COURSE = { stopped: 110, continued: 130, running: 700 }

test.each([
  ['open before the memory is there', { opened: 300, copied: 680 }, { handoverMs: 190, waitMs: 20, diskMs: 30 }],
  ['the memory is there before', { opened: 690, copied: 400 }, { handoverMs: 580, waitMs: 310, diskMs: 320 }],
])('%s', (_what, moments, expected) => {
  expect(downtimeOf({ ...COURSE, ...moments })).toEqual({ totalMs: 600, settleMs: 10, ...expected })
})

test('where a moment was not seen there is no downtime', () => {
  expect(downtimeOf({ ...COURSE, opened: 300 })).toBeNull()
  expect(downtimeOf({ ...COURSE, opened: 300, copied: 680, running: 700 })).not.toBeNull()
})
