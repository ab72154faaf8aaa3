import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { DirectoryHome, PRUNED_AT_ONCE, RECORDS_KEPT } from '../../src/ownership/directory-home.ts'
import type { Newest, RecordDraft, RecordHome } from '../../src/ownership/home.ts'
import { sequenceOf } from '../../src/ownership/home.ts'
import { planRepair, readRecords, repairRecord } from '../../src/ownership/record-repair.ts'
import { inlineRunner } from '../blocking/inline-runner.ts'
import { temporaryDirectory } from '../support/temporary-directory.ts'
import { DRAINING, draftOf, HOLDER, OTHER, receiptOf } from './record-samples.ts'

const CAREFUL = { nobodyWrites: false }
const ON_HIS_WORD = { nobodyWrites: true }

const readable = (sequence: number, overrides: Partial<RecordDraft> = {}): Newest => ({
  kind: 'record',
  record: { ...draftOf(overrides), version: 1, sequence },
})
const lost = (sequence: number, detail = 'it is torn or no JSON'): Newest => ({ kind: 'unreadable', sequence, detail })

const closed = { state: 'closed', closeReason: 'handover', receipt: receiptOf(4) } as const
const early = { state: 'closing', closeReason: 'handover', draining: [{ ...DRAINING, generation: 4 }] } as const
const intent = { by: OTHER, against: HOLDER, generation: 4, since: '2026-01-01T00:00:00.000Z' }

/** A log in a folder whose newest record is torn. */
async function tornLog(last: Partial<RecordDraft> = {}): Promise<{ folder: string; home: DirectoryHome }> {
  const folder = join(temporaryDirectory(), 'vda')
  const home = DirectoryHome.at(inlineRunner, folder)
  expect((await home.compareAndSwap(0, draftOf(last))).won).toBe(true)
  writeFileSync(join(folder, '0000000000000002.json'), '{"torn')
  return { folder, home }
}

test('a lost record of a holder is carried on as fenced, and stays his: whoever opens has to prove him over', () => {
  for (const state of ['opening', 'open', 'closing', 'fenced'] as const) {
    const { on, from, draft } = planRepair(
      [readable(6), readable(7, { state, draining: [DRAINING] }), lost(8)],
      CAREFUL,
    )
    expect([on, from.sequence]).toEqual([8, 7])
    expect(draft).toEqual(draftOf({ state: 'fenced', draining: [DRAINING] }))
  }
})

test.each([
  ['closed before', [readable(7, closed), lost(8)]],
  ['handed over early before', [readable(7, early), lost(8)]],
  ['being taken over before', [readable(7, { intent }), lost(8)]],
  ['two that are lost', [readable(7), lost(8), lost(9)]],
])('where anybody may have opened, the operator has to say that nobody writes: %s', (_what, records) => {
  expect(() => planRepair(records, CAREFUL)).toThrow(/--nobody-writes/)
  const { draft, from } = planRepair(records, ON_HIS_WORD)
  expect(draft).toMatchObject({ state: 'closed', closeReason: 'handover', receipt: null, intent: null, cleared: null })
  expect(draft.draining).toEqual(from.draining)
  expect(draft.generation).toBe(4 + sequenceOf(records.at(-1) ?? { kind: 'absent' }) - 7)
})

test.each([
  ['no record at all', [], 'not-found'],
  ['a newest record that is good', [lost(6), readable(7)], 'wrong-state'],
  [
    'a record of a later version',
    [readable(7), lost(8, 'x: it is of another version of the format than 1')],
    'record-unreadable',
  ],
  ['nothing readable left', [lost(7), lost(8)], 'record-unreadable'],
] as const)('%s is not repaired, whatever is said', (_what, records, code) => {
  for (const options of [CAREFUL, ON_HIS_WORD]) {
    expect(() => planRepair(records, options)).toThrow(expect.objectContaining({ code }) as Error)
  }
})

test('the log goes on, and what was unreadable is kept for ever', async () => {
  const { folder, home } = await tornLog()
  const { record, aside } = await repairRecord(home, CAREFUL)
  expect(record).toMatchObject({ sequence: 3, state: 'fenced', generation: 4, holder: HOLDER })
  expect(await home.readNewest()).toEqual({ kind: 'record', record })
  expect(readdirSync(folder)).toHaveLength(4)
  expect(readFileSync(aside ?? '', 'utf8')).toBe('{"torn')
  for (let sequence = 3; sequence < RECORDS_KEPT + PRUNED_AT_ONCE + 10; sequence++)
    await home.compareAndSwap(sequence, draftOf())
  expect(existsSync(join(folder, '0000000000000002.json'))).toBe(false)
  expect(existsSync(aside ?? '')).toBe(true)
  expect(await home.readNewest()).toMatchObject({ kind: 'record' })
})

test('setting aside can be asked for again, and leaves alone what can have no second name', async () => {
  const { folder, home } = await tornLog()
  expect(await home.setAside(2)).toBe(await home.setAside(2))
  mkdirSync(join(folder, '0000000000000003.json'))
  expect(await home.setAside(3)).toBe(join(folder, '0000000000000003.json'))
  await expect(home.setAside(9)).rejects.toMatchObject({ code: 'record-io' })
})

test('a home that knows its newest record only is asked for that', async () => {
  const { home } = await tornLog()
  const short: RecordHome = {
    kind: 'etcd',
    shared: true,
    describe: () => 'a key',
    locate: () => undefined,
    readNewest: () => home.readNewest(),
    compareAndSwap: (expected, draft) => home.compareAndSwap(expected, draft),
    close: () => home.close(),
  }
  expect(await readRecords(short)).toEqual([await home.readNewest()])
  await expect(repairRecord(short, ON_HIS_WORD)).rejects.toMatchObject({ code: 'record-unreadable' })
})
