import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Newest, OwnershipRecord, RecordDraft, RecordState } from '../../src/ownership/home.ts'
import { RECORD_STATES } from '../../src/ownership/home.ts'
import { kinshipOf, locksProve } from '../../src/ownership/kinship.ts'
import type { Kinship } from '../../src/ownership/kinship.ts'
import { decideOpening, decideStart } from '../../src/ownership/opening-rule.ts'
import type { OpeningDecision, OpeningQuestion } from '../../src/ownership/opening-rule.ts'
import { DRAINING, draftOf, HOLDER, OTHER, receiptOf } from './record-samples.ts'

const KINSHIPS: readonly Kinship[] = ['this-run', 'living-run', 'dead-run', 'earlier-boot', 'other-host']
const UNCLOSED: readonly RecordState[] = ['opening', 'open', 'closing', 'fenced']

function newestOf(overrides: Partial<RecordDraft> = {}): Newest {
  const record: OwnershipRecord = { ...draftOf(overrides), version: 1, sequence: 7 }
  return { kind: 'record', record }
}

function ask(overrides: Partial<OpeningQuestion> = {}): OpeningQuestion {
  return {
    newest: newestOf(),
    holder: 'other-host',
    holderFenced: false,
    intentBy: 'other-host',
    intentAgainst: 'other-host',
    imageMatches: true,
    clusterLocks: false,
    rebootIsProof: false,
    takeover: false,
    awaitClose: false,
    ...overrides,
  }
}

function actOf(overrides: Partial<OpeningQuestion>): OpeningDecision['act'] {
  return decideOpening(ask(overrides)).act
}

describe('what a holder is to us', () => {
  const self = { host: HOLDER.host, boot: HOLDER.boot, instance: HOLDER.instance }
  test.each([
    ['this very run', {}, true, true, 'this-run'],
    ['another run that lives', { instance: 'x' }, true, true, 'living-run'],
    ['another run that is over', { instance: 'x' }, true, false, 'dead-run'],
    ['an earlier boot', { boot: 'x', instance: 'x' }, true, false, 'earlier-boot'],
    ['another host', { host: 'x' }, true, true, 'other-host'],
    ['our identity, without the token', {}, false, true, 'other-host'],
    ['our identity on an earlier boot, without the token', { boot: 'x' }, false, false, 'other-host'],
  ] as const)('%s', (_what, overrides, tokenKnown, alive, expected) => {
    expect(kinshipOf({ ...HOLDER, ...overrides }, self, tokenKnown, alive)).toBe(expected)
  })

  test('locks prove on one boot of one host, and across hosts only where the operator says so', () => {
    expect(KINSHIPS.filter((kinship) => locksProve(kinship, false))).toEqual(['this-run', 'living-run', 'dead-run'])
    expect(KINSHIPS.filter((kinship) => locksProve(kinship, true))).not.toContain('earlier-boot')
    expect(locksProve('other-host', true)).toBe(true)
  })
})

describe('opening', () => {
  test('an image without a record opens', () => {
    expect(decideOpening(ask({ newest: { kind: 'absent' } }))).toEqual({ act: 'open', clearedBy: null })
  })

  test('a record that cannot be understood opens nothing, whatever is asked', () => {
    const newest: Newest = { kind: 'unreadable', sequence: 3, detail: 'it is torn' }
    for (const takeover of [false, true]) {
      expect(decideOpening(ask({ newest, takeover, clusterLocks: true }))).toMatchObject({
        act: 'refuse',
        code: 'record-unreadable',
        reason: expect.stringContaining('it is torn'),
      })
    }
  })

  test('the record of another image opens nothing, also when it is closed', () => {
    for (const state of RECORD_STATES) {
      expect(decideOpening(ask({ newest: newestOf({ state }), imageMatches: false, takeover: true }))).toMatchObject({
        act: 'refuse',
        code: 'image-changed',
        reason: expect.stringContaining('adopt'),
      })
    }
  })

  test.each(KINSHIPS)('what is closed opens, whoever closed it: %s', (holder) => {
    const newest = newestOf({ state: 'closed', closeReason: 'handover', receipt: receiptOf(4) })
    expect(decideOpening(ask({ newest, holder }))).toEqual({ act: 'open', clearedBy: null })
  })

  test.each(KINSHIPS)('what was handed over early opens at once: %s', (holder) => {
    const own = { ...DRAINING, generation: 4 }
    const newest = newestOf({ state: 'closing', closeReason: 'handover', draining: [own] })
    expect(decideOpening(ask({ newest, holder }))).toEqual({ act: 'open', clearedBy: null })
  })

  test('a predecessor that drains does not open what its successor holds', () => {
    expect(actOf({ newest: newestOf({ draining: [DRAINING] }) })).toBe('refuse')
    expect(actOf({ newest: newestOf({ state: 'closing', draining: [DRAINING] }) })).toBe('awaitClose')
  })

  type Row = readonly [Kinship, Partial<OpeningQuestion>, readonly OpeningDecision['act'][]]
  // For a record that is: opening, open, closing, fenced.
  const ROWS: readonly Row[] = [
    ['this-run', {}, ['awaitLock', 'awaitLock', 'awaitLock', 'awaitLock']],
    ['dead-run', {}, ['awaitLock', 'awaitLock', 'awaitLock', 'awaitLock']],
    ['dead-run', { takeover: true }, ['awaitLock', 'awaitLock', 'awaitLock', 'awaitLock']],
    ['living-run', {}, ['refuse', 'refuse', 'awaitClose', 'refuse']],
    ['living-run', { takeover: true }, ['refuse', 'refuse', 'awaitClose', 'refuse']],
    ['living-run', { clusterLocks: true }, ['refuse', 'refuse', 'awaitClose', 'refuse']],
    ['earlier-boot', {}, ['refuse', 'refuse', 'refuse', 'refuse']],
    ['earlier-boot', { clusterLocks: true }, ['refuse', 'refuse', 'refuse', 'refuse']],
    ['earlier-boot', { rebootIsProof: true }, ['open', 'open', 'open', 'open']],
    ['earlier-boot', { takeover: true }, ['fence', 'fence', 'fence', 'fence']],
    ['earlier-boot', { takeover: true, rebootIsProof: true }, ['open', 'open', 'open', 'open']],
    ['other-host', {}, ['refuse', 'refuse', 'awaitClose', 'refuse']],
    ['other-host', { rebootIsProof: true }, ['refuse', 'refuse', 'awaitClose', 'refuse']],
    ['other-host', { clusterLocks: true }, ['awaitLock', 'awaitLock', 'awaitClose', 'awaitLock']],
    ['other-host', { takeover: true }, ['fence', 'fence', 'fence', 'fence']],
    ['other-host', { takeover: true, clusterLocks: true }, ['fence', 'fence', 'fence', 'fence']],
  ]

  test.each(ROWS)('of %s, with %j', (holder, declared, expected) => {
    expect(UNCLOSED.map((state) => actOf({ newest: newestOf({ state }), holder, ...declared }))).toEqual(expected)
  })

  test('a reboot that proves is told as what cleared', () => {
    expect(decideOpening(ask({ holder: 'earlier-boot', rebootIsProof: true }))).toEqual({
      act: 'open',
      clearedBy: 'reboot',
    })
  })

  test.each(['living-run', 'other-host'] as const)('who asks together with the close waits for it: %s', (holder) => {
    for (const state of ['open', 'opening'] as const) {
      const newest = newestOf({ state })
      expect(actOf({ newest, holder })).toBe('refuse')
      expect(decideOpening(ask({ newest, holder, awaitClose: true }))).toMatchObject({
        act: 'awaitClose',
        lockProves: false,
        code: 'held-by-other',
      })
    }
    expect(actOf({ newest: newestOf({ state: 'fenced' }), holder, awaitClose: true })).toBe('refuse')
    expect(actOf({ newest: newestOf({ state: 'closed' }), holder, awaitClose: true })).toBe('open')
  })

  test('a free lock ends the wait for a close only where locks prove', () => {
    const newest = newestOf({ state: 'closing' })
    expect(decideOpening(ask({ newest, holder: 'living-run' }))).toMatchObject({ lockProves: true })
    expect(decideOpening(ask({ newest }))).toMatchObject({ lockProves: false })
    expect(decideOpening(ask({ newest, clusterLocks: true }))).toMatchObject({ lockProves: true })
  })

  test('a refusal names the holder', () => {
    expect(decideOpening(ask())).toMatchObject({
      code: 'held-by-other',
      reason: expect.stringContaining(`${HOLDER.name} (${HOLDER.host}) has generation 4`),
    })
  })

  describe('a takeover that somebody has begun', () => {
    const intent = { by: OTHER, against: HOLDER, generation: 4, since: '2026-01-01T00:00:00.000Z' }
    const newest = newestOf({ intent })

    test('keeps the host that it is against in standby', () => {
      for (const holder of KINSHIPS.filter((kinship) => kinship !== 'other-host')) {
        const decision = decideOpening(ask({ newest, holder, intentAgainst: holder, rebootIsProof: true }))
        expect(decision).toMatchObject({ act: 'refuse', reason: expect.stringContaining('stays in standby') })
      }
    })

    test('keeps everybody else out too, and its own host until it is asked again', () => {
      expect(actOf({ newest, clusterLocks: true })).toBe('refuse')
      expect(decideOpening(ask({ newest, intentBy: 'dead-run' }))).toMatchObject({
        act: 'refuse',
        reason: expect.stringContaining('ask for it again'),
      })
      expect(actOf({ newest: newestOf({ state: 'closed', intent }) })).toBe('refuse')
    })

    test('is replaced by one that is asked for', () => {
      expect(actOf({ newest, takeover: true })).toBe('fence')
      expect(actOf({ newest, takeover: true, intentBy: 'this-run' })).toBe('fence')
      // Of our own dead generation nobody needs to be fenced.
      expect(actOf({ newest, takeover: true, holder: 'dead-run', intentAgainst: 'dead-run' })).toBe('awaitLock')
    })
  })

  test('without a takeover nobody is fenced, and another host opens only what is closed, early or proved by locks', () => {
    const anyQuestion = fc.record({
      state: fc.constantFrom(...UNCLOSED),
      holder: fc.constantFrom(...KINSHIPS),
      clusterLocks: fc.boolean(),
      rebootIsProof: fc.boolean(),
      intent: fc.boolean(),
    })
    fc.assert(
      fc.property(anyQuestion, ({ state, holder, clusterLocks, rebootIsProof, intent }) => {
        const against = { by: OTHER, against: HOLDER, generation: 4, since: '2026-01-01T00:00:00.000Z' }
        const newest = newestOf({ state, intent: intent ? against : null })
        const decision = decideOpening(ask({ newest, holder, clusterLocks, rebootIsProof }))
        expect(decision.act).not.toBe('fence')
        if (decision.act === 'open') expect(holder).toBe('earlier-boot')
        if (decision.act === 'open') expect(rebootIsProof && !intent).toBe(true)
        if (decision.act === 'awaitLock') expect(locksProve(holder, clusterLocks)).toBe(true)
        if (decision.act === 'awaitClose' && decision.lockProves) expect(locksProve(holder, clusterLocks)).toBe(true)
      }),
    )
  })
})

describe('starting', () => {
  const start = (overrides: Partial<OpeningQuestion>, durability: 'sync' | 'writeback' = 'sync') =>
    decideStart(ask(overrides), durability)

  test.each([
    ['nothing recorded', { newest: { kind: 'absent' } }, 'open'],
    [
      'handed over by us',
      { newest: newestOf({ state: 'closed', closeReason: 'handover' }), holder: 'dead-run' },
      'standby',
    ],
    ['handed over by another', { newest: newestOf({ state: 'closed', closeReason: 'handover' }) }, 'standby'],
    ['shut down here', { newest: newestOf({ state: 'closed', closeReason: 'shutdown' }), holder: 'dead-run' }, 'open'],
    [
      'shut down here before a reboot',
      { newest: newestOf({ state: 'closed', closeReason: 'shutdown' }), holder: 'earlier-boot' },
      'open',
    ],
    ['shut down elsewhere', { newest: newestOf({ state: 'closed', closeReason: 'shutdown' }) }, 'standby'],
    ['crashed while open', { holder: 'dead-run' }, 'open'],
    ['crashed while opening', { newest: newestOf({ state: 'opening' }), holder: 'dead-run' }, 'open'],
    ['crashed while open, rebooted', { holder: 'earlier-boot' }, 'standby'],
    ['crashed while open, rebooted, local storage', { holder: 'earlier-boot', rebootIsProof: true }, 'open'],
    ['crashed while closing', { newest: newestOf({ state: 'closing' }), holder: 'dead-run' }, 'finishClose'],
    ['crashed while closing, rebooted', { newest: newestOf({ state: 'closing' }), holder: 'earlier-boot' }, 'standby'],
    [
      'crashed while closing, rebooted, local storage',
      { newest: newestOf({ state: 'closing' }), holder: 'earlier-boot', rebootIsProof: true },
      'finishClose',
    ],
    [
      'fenced here, which the record does not say: closing',
      { newest: newestOf({ state: 'closing' }), holder: 'dead-run', holderFenced: true },
      'standby',
    ],
    ['fenced here, which the record does not say: open', { holder: 'dead-run', holderFenced: true }, 'standby'],
    ['open elsewhere', {}, 'standby'],
    ['open elsewhere, with cluster locks', { clusterLocks: true }, 'standby'],
    ['open here, by a daemon that lives', { holder: 'living-run' }, 'standby'],
    ['closing elsewhere', { newest: newestOf({ state: 'closing' }) }, 'standby'],
    [
      'closing here, by a daemon that lives',
      { newest: newestOf({ state: 'closing' }), holder: 'living-run' },
      'standby',
    ],
    ['fenced here', { newest: newestOf({ state: 'fenced' }), holder: 'dead-run' }, 'standby'],
    ['another image', { imageMatches: false, holder: 'dead-run' }, 'standby'],
    ['unreadable', { newest: { kind: 'unreadable', sequence: 1, detail: 'torn' } }, 'standby'],
  ] as const satisfies readonly (readonly [string, Partial<OpeningQuestion>, string])[])(
    '%s',
    (_what, overrides, act) => {
      const decision = start(overrides)
      expect(decision.act).toBe(act)
      if (decision.act === 'standby') expect(decision.reason).not.toBe('')
    },
  )

  test('a takeover against this host keeps it from opening by itself', () => {
    const intent = { by: OTHER, against: HOLDER, generation: 4, since: '2026-01-01T00:00:00.000Z' }
    expect(start({ newest: newestOf({ intent }), holder: 'dead-run', intentAgainst: 'dead-run' })).toMatchObject({
      act: 'standby',
      reason: expect.stringContaining('stays in standby'),
    })
  })

  test('a close that crashed in writeback is never finished', () => {
    const closing = (closeReason: 'handover' | 'shutdown') =>
      start({ newest: newestOf({ state: 'closing', closeReason }), holder: 'dead-run' }, 'writeback').act
    expect([closing('handover'), closing('shutdown')]).toEqual(['standby', 'open'])
  })
})
