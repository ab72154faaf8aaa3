/**
 * The source or the destination dies by SIGKILL in the middle of a handover, at the places between its durable steps; and
 * a handover that is cancelled, takes too long, or must not be begun. Whatever happens, one end has the image open and is
 * named, or it is said that nobody can tell; and the next run, with both daemons up again, completes it.
 *
 * @module-tag slow
 */

import { expect, test } from 'vitest'
import { startAgain } from '../support/daemon.ts'
import type { Daemon } from '../support/daemon.ts'
import { eventually } from '../support/eventually.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { VerifiedWriter } from '../support/verified-writer.ts'
import { handOverByProgram, startEnd, startHandover } from './handover-rig.ts'
import type { HandoverRun } from './handover-rig.ts'

const fault = (point: string) => ({ INTERLOCKD_FAULT_POINT: point })

test.each([
  'close: before closing is recorded',
  'close: synced',
  'close: before closed is recorded',
  'close: closed recorded',
])('the source dies at "%s" and is started again: the same run completes it', async (point) => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const source = await startEnd(scratch, path, { environment: fault(`${point}:kill`) })
  const destination = await startEnd(scratch, path, { standby: true })
  const writer = new VerifiedWriter(scratch, 256, 8)
  await writer.moveTo(source.address)
  await writer.progress(20)
  const running = startHandover(scratch, source, destination, ['--patience', '60s'])
  await source.program.exited
  const again = await startAgain(scratch, source)
  expect((await running.exited).status, running.said).toBe(0)
  await expectOnly(destination, again)
  await writer.moveTo(destination.address)
  await writer.progress(20)
  await writer.settle()
  expect(writer.badBlocks(path)).toEqual([])
})

test('the source dies and stays away: unclear, with what to do; once it is up again the next run completes it', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const source = await startEnd(scratch, path, { environment: fault('close: synced:kill') })
  const destination = await startEnd(scratch, path, { standby: true })
  const writer = new VerifiedWriter(scratch, 256, 8)
  await writer.moveTo(source.address)
  await writer.progress(20)
  const lost = await handOverByProgram(source, destination, ['--patience', '500ms'])
  expect(lost).toMatchObject({ status: 1, result: { ending: { kind: 'unclear', openAt: null } } })
  expect(adviceOf(lost)).toContain("start the source's daemon")
  expect(adviceOf(lost)).toContain('--takeover')
  expect((await destination.status('vda')).state).toBe('standby')
  const again = await startAgain(scratch, source)
  expect(await handOverByProgram(source, destination)).toMatchObject({ status: 0 })
  await expectOnly(destination, again)
  await writer.moveTo(destination.address)
  await writer.settle()
  expect(writer.badBlocks(path)).toEqual([])
})

test('the destination dies before it has recorded anything: brought back', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const source = await startEnd(scratch, path)
  const destination = await startEnd(scratch, path, { standby: true, environment: fault('open: claimed:kill') })
  const writer = new VerifiedWriter(scratch, 256, 8)
  await writer.moveTo(source.address)
  await writer.progress(20)
  const run = await handOverByProgram(source, destination, ['--patience', '2s'])
  expect(run).toMatchObject({ status: 1, result: { ending: { kind: 'broughtBack', openAt: 'source', generation: 2 } } })
  expect((await source.status('vda')).state).toBe('open')
  await writer.progress(20)
  await writer.settle()
  expect(writer.badBlocks(path)).toEqual([])
})

test('the destination dies after it has recorded its opening: unclear, and the next run completes it there', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const source = await startEnd(scratch, path)
  const destination = await startEnd(scratch, path, {
    standby: true,
    environment: fault('open: opening recorded:kill'),
  })
  const writer = new VerifiedWriter(scratch, 256, 8)
  await writer.moveTo(source.address)
  await writer.progress(20)
  const run = await handOverByProgram(source, destination, ['--patience', '1s'])
  expect(run).toMatchObject({ status: 1, result: { ending: { kind: 'unclear' } } })
  expect(adviceOf(run)).toContain('do not start the guest anywhere')
  const again = await startAgain(scratch, destination)
  expect(await handOverByProgram(source, again)).toMatchObject({
    status: 0,
    result: { ending: { kind: 'handedOver' } },
  })
  await expectOnly(again, source)
  await writer.moveTo(again.address)
  await writer.settle()
  expect(writer.badBlocks(path)).toEqual([])
})

test('cancelled, and out of time: the source has it open again, and the guest has only waited', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const slow = fault('close: before closing is recorded:sleep=6000')
  const source = await startEnd(scratch, path, { environment: slow })
  const destination = await startEnd(scratch, path, { standby: true })
  const writer = new VerifiedWriter(scratch, 256, 8)
  await writer.moveTo(source.address)
  await writer.progress(20)
  const running = startHandover(scratch, source, destination)
  await eventually('the close to begin', async () => (await source.status('vda')).state === 'closing', {
    timeoutMs: 60_000,
  })
  running.signal('SIGINT')
  const cancelled = await running.exited
  expect(cancelled.status, running.said).toBe(1)
  expect(JSON.parse(cancelled.stdout)).toMatchObject({
    ending: { kind: 'broughtBack', failure: { code: 'cancelled' } },
  })
  await writer.progress(20)
  await source.stop()
  const again = await startAgain(scratch, source, slow)
  await writer.moveTo(again.address)
  const late = await handOverByProgram(again, destination, ['--timeout', '300ms'])
  expect(late).toMatchObject({ status: 4, result: { ending: { kind: 'broughtBack', failure: { code: 'timed-out' } } } })
  await writer.progress(20)
  await writer.settle()
  expect(writer.badBlocks(path)).toEqual([])
})

test('what must not be begun changes nothing: a record in another place, no record at all, a daemon that is not there', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const source = await startEnd(scratch, path)
  const ownershipSettings = [`directory = ${JSON.stringify(scratch.directory('records'))}`]
  const elsewhere = await startEnd(scratch, path, { standby: true, ownershipSettings })
  const refused = await handOverByProgram(source, elsewhere)
  expect(refused).toMatchObject({ status: 3, result: { ending: { kind: 'unchanged', openAt: 'source' } } })
  expect(refused.result.preflight?.findings.map(({ code }) => code)).toContain('record-elsewhere')
  await elsewhere.kill()
  const silent = await handOverByProgram(source, elsewhere, ['--patience', '0ms'])
  expect(silent).toMatchObject({ status: 3, result: { ending: { kind: 'unchanged', openAt: 'source' } } })
  expect((await source.status('vda')).generation).toBe(1)
  expect((await source.status('vda')).state).toBe('open')
})

async function expectOnly(open: Daemon, other: Daemon): Promise<void> {
  expect((await open.status('vda')).state).toBe('open')
  expect((await other.status('vda')).state).not.toBe('open')
}

function adviceOf({ result }: HandoverRun): string {
  return 'advice' in result.ending ? result.ending.advice.join('\n') : ''
}
