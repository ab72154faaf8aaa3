/**
 * Writes that wait for a predecessor nobody hears of: they are held, told of again and again as an event, a log line and a
 * metric, and let go of by proof and by nothing else.
 */

import { expect, test } from 'vitest'
import type { Receipt } from '../../src/interlock/receipt.ts'
import type { Daemon } from '../support/daemon.ts'
import { eventually } from '../support/eventually.ts'
import { runChecked } from '../support/foreign-program.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { answerWithin, connectFrontend } from '../support/nbd-frontend.ts'
import type { Scratch } from '../support/scratch.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { OTHER } from '../ownership/record-samples.ts'
import { BLOCK, homeOf, newestOf, placeOf, refusal, startHost } from './ownership-rig.ts'

/** A daemon that holds back for an earlier generation, of a host that nobody hears of; and what proves that one over. */
async function startHolding(
  scratch: Scratch,
  path: string,
): Promise<{ daemon: Daemon; receipt: Receipt; proof: Receipt }> {
  const ownershipSettings = ['[limits]', 'hold_alarm = "300ms"']
  const daemon = await startHost(scratch, path, { ownershipSettings })
  const { receipt } = await daemon.close('vda')
  const home = homeOf(path)
  const newest = await home.readNewest()
  if (newest.kind !== 'record') throw new Error('there is a record')
  const draining = [{ generation: 1, holder: OTHER, ranges: [{ offset: 0, length: 4096 }] }]
  expect((await home.compareAndSwap(newest.record.sequence, { ...newest.record, draining })).won).toBe(true)
  await daemon.open('vda')
  const { host, boot, instance } = OTHER
  return { daemon, receipt, proof: { ...receipt, generation: 1, holder: { host, boot, instance } } }
}

test('a hold that grows old is an event, a line of the log and a metric, until a proof ends it', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const { daemon, receipt, proof } = await startHolding(scratch, path)
  const frontend = await connectFrontend(scratch, daemon.address, 'vda')
  const held = frontend.send('WRITE', { offset: 0, data: BLOCK })
  expect((await frontend.request('WRITE', { offset: 8192, data: BLOCK })).error).toBe(0)
  const metrics = async (): Promise<string> =>
    (await runChecked('curl', ['-sf', '--unix-socket', daemon.controlPath, 'http://localhost/metrics'])).stdout
  await eventually('two alarms', async () =>
    /^interlockd_holds_overdue_total\{export="vda"\} [2-9]/mu.test(await metrics()),
  )
  expect(await metrics()).toMatch(/^interlockd_hold_waiting_requests\{export="vda"\} 1$/mu)
  const alarms = daemon.log.filter(({ msg }) => String(msg).startsWith('writes are held back for a predecessor'))
  expect(alarms[0]).toMatchObject({ level: 'warn', generation: 1, ranges: 1, holder: { name: OTHER.name } })
  expect((await daemon.status('vda')).heldForMs).toBeGreaterThanOrEqual(600)
  expect(await refusal(daemon, 'clear')).toMatchObject({ code: 'receipt-required' })
  expect(await refusal(daemon, 'clear', { receipt: { ...receipt, generation: 2 } })).toMatchObject({
    code: 'receipt-mismatch',
  })
  const { host, boot, instance } = OTHER
  const others = [
    { ...proof, export: 'vdb' },
    { ...proof, image: { ...proof.image, inode: proof.image.inode + 1 } },
    { ...proof, holder: { host, boot, instance: receipt.holder.instance } },
    { ...proof, holder: { host: receipt.holder.host, boot, instance } },
  ]
  for (const other of others) {
    expect(await refusal(daemon, 'clear', { receipt: other })).toMatchObject({ code: 'receipt-mismatch' })
  }
  expect((await daemon.ask('POST', '/exports/vda/clear', { receipt: proof }))['holds']).toEqual([])
  expect((await held.reply).error).toBe(0)
  expect(newestOf(path).draining).toEqual([])
})

test('a proof ends a hold also where the record cannot be understood', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const { daemon, proof } = await startHolding(scratch, path)
  const frontend = await connectFrontend(scratch, daemon.address, 'vda')
  const held = frontend.send('WRITE', { offset: 0, data: BLOCK })
  placeOf(path).spoil('vda')
  expect((await daemon.ask('POST', '/exports/vda/clear', { receipt: proof }))['holds']).toEqual([])
  expect((await answerWithin(held, 10_000)).error).toBe(0)
})
