import { describe, expect, test } from 'vitest'
import type { QemuFacts } from '../../src/handover/qemu.ts'
import { mayHaveRunThere, phaseOf } from '../../src/handover/qemu-phase.ts'

function qemu(runState: string, migration = 'none'): QemuFacts {
  return { runState, migration, reason: null, ramLeftBytes: 0, ramSentBytes: 0 }
}

/** As QEMU 7.2 was seen to say it during a migration. */
const WAITING = qemu('inmigrate')
const RECEIVING = qemu('inmigrate', 'active')
const HAS_IT_ALL = qemu('paused', 'completed')

describe('how far a migration is', () => {
  test.each([
    ['a guest that runs, and one that waits for it', qemu('running'), WAITING, 'ready'],
    ['one that came by a migration itself', qemu('running', 'completed'), WAITING, 'ready'],
    ['one whose last migration came to nothing', qemu('running', 'cancelled'), WAITING, 'ready'],
    ['memory is copied', qemu('running', 'active'), RECEIVING, 'copying'],
    ['it has just stopped', qemu('finish-migrate', 'active'), RECEIVING, 'copying'],
    ['it stands still', qemu('finish-migrate', 'pre-switchover'), RECEIVING, 'stopped'],
    ['it stands still, and the destination is gone', qemu('finish-migrate', 'pre-switchover'), null, 'stopped'],
    ['the rest is sent', qemu('finish-migrate', 'device'), RECEIVING, 'switching'],
    ['all was sent', qemu('postmigrate', 'completed'), HAS_IT_ALL, 'switching'],
    ['all was sent, and is not taken in yet', qemu('postmigrate', 'completed'), RECEIVING, 'switching'],
    ['it runs there', qemu('postmigrate', 'completed'), qemu('running', 'completed'), 'arrived'],
    ['it runs there, and the source has ended', null, qemu('running', 'completed'), 'arrived'],
    ['it runs at both ends', qemu('running'), qemu('running', 'completed'), 'stuck'],
    ['nobody waits for it', qemu('running'), HAS_IT_ALL, 'stuck'],
    [
      'the destination has had a migration that failed',
      qemu('running', 'failed'),
      qemu('inmigrate', 'failed'),
      'stuck',
    ],
    ['nobody is there', qemu('running'), null, 'stuck'],
    ['the source does not answer', null, HAS_IT_ALL, 'stuck'],
    ['somebody has paused it', qemu('paused'), WAITING, 'stuck'],
    ['it is being cancelled', qemu('finish-migrate', 'cancelling'), RECEIVING, 'stuck'],
    ['it was sent to somebody else', qemu('postmigrate', 'completed'), WAITING, 'stuck'],
  ])('%s', (_what, source, destination, kind) => {
    expect(phaseOf(source, destination)).toMatchObject({ kind })
  })
})

describe('whether it may have run at the destination', () => {
  test.each([
    ['not while that waits for its memory', qemu('postmigrate', 'completed'), RECEIVING, false],
    ['not before the source has sent everything', qemu('finish-migrate', 'pre-switchover'), null, false],
    ['perhaps, once that has it all', qemu('postmigrate', 'completed'), HAS_IT_ALL, true],
    ['perhaps, where everything was sent and nobody answers', qemu('postmigrate', 'completed'), null, true],
    ['perhaps, where nobody answers at all', null, null, true],
  ])('%s', (_what, source, destination, may) => {
    expect(mayHaveRunThere(source, destination)).toBe(may)
  })
})
