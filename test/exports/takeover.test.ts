/**
 * Taking an image over from a host that is lost: the intent in the record, the operator's fence command, and nothing more
 * than that opens it. The fence of these tests really kills: it sends SIGKILL to the daemon that it is told to switch off.
 *
 * @module-tag slow
 */

import { chmodSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { Daemon } from '../support/daemon.ts'
import { eventually } from '../support/eventually.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import type { Scratch } from '../support/scratch.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { homeOf, newestOf, recordsOf, refusal, startHost } from './ownership-rig.ts'

/** A host whose [fence] runs a script; `plug=` is the process that it kills where the script does. */
function startFencing(
  scratch: Scratch,
  path: string,
  script: string,
  against: Daemon,
  environment: Readonly<Record<string, string>> = {},
): Promise<Daemon> {
  const program = join(scratch.directory('fence'), 'fence_test')
  const options = 'plug=$(sed -n "s/^plug=//p")'
  writeFileSync(program, `#!/bin/sh\n${options}\n${script}\n`)
  chmodSync(program, 0o755)
  const { host } = newestOf(path).holder
  const ownershipSettings = [
    '[fence]',
    `command = [${JSON.stringify(program)}]`,
    'timeout = "30s"',
    '[fence.plugs]',
    `${host} = "${against.pid}"`,
  ]
  return startHost(scratch, path, { standby: true, ownershipSettings, environment })
}

test('the lost host is fenced, and what was done is in record, status and receipt', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const lost = await startHost(scratch, path)
  const taker = await startFencing(scratch, path, 'kill -9 $plug && echo killed $plug', lost)
  expect(await refusal(taker, 'open')).toMatchObject({ code: 'held-by-other' })
  expect(await taker.open('vda', { takeover: true })).toMatchObject({ generation: 2, clearedBy: 'fence' })
  await lost.program.exited
  const report = { plug: String(lost.pid), exitStatus: 0, output: `killed ${lost.pid}\n` }
  expect(newestOf(path)).toMatchObject({ state: 'open', cleared: { generation: 1, by: 'fence', fence: report } })
  expect(recordsOf(path).map(({ state, intent }) => (intent === null ? state : 'intent'))).toEqual([
    ...['opening', 'open', 'intent', 'opening', 'open'],
  ])
  const { receipt } = await taker.close('vda')
  expect(receipt.fence).toMatchObject(report)
  const back = await startHost(scratch, path, { stateDirectory: lost.stateDirectory })
  expect(await back.status('vda')).toMatchObject({ state: 'standby' })
})

test('it opens also where the fence takes its time, and the token that was left before did too', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const lost = await startHost(scratch, path)
  const slow = { INTERLOCKD_FAULT_POINT: 'open: token left:sleep=400' }
  const taker = await startFencing(scratch, path, 'kill -9 $plug && sleep 1.5', lost, slow)
  expect(await taker.open('vda', { takeover: true })).toMatchObject({ generation: 2, clearedBy: 'fence' })
})

test('a fence that fails opens nothing, says why, and harms nobody', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const holder = await startHost(scratch, path)
  const taker = await startFencing(scratch, path, 'echo no answer from the switch >&2; exit 1', holder)
  const problem = await refusal(taker, 'open', { takeover: true })
  expect(problem).toMatchObject({ status: 409, code: 'takeover-failed', fence: { exitStatus: 1 } })
  expect(problem['detail']).toContain('no answer from the switch')
  expect(newestOf(path)).toMatchObject({ generation: 1, intent: null })
  expect(await taker.status('vda')).toMatchObject({ state: 'standby' })
})

test('a holder that sees the intent stops by itself, and stays in standby after its next start', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const holder = await startHost(scratch, path)
  // The switch takes its time: the holder learns of it before it would be cut off.
  const taker = await startFencing(scratch, path, 'sleep 4; echo off', holder)
  const taking = taker.api('POST', '/exports/vda/open', { takeover: true })
  await eventually('the holder to stop', async () => (await holder.status('vda')).state === 'fenced')
  expect((await holder.status('vda')).stateReason).toContain('ownership is lost')
  expect(newestOf(path).intent?.against.host).toBe(newestOf(path).holder.host)
  expect(await refusal(holder, 'open')).toMatchObject({ code: 'held-by-other' })
  await holder.kill()
  const again = await startHost(scratch, path, { stateDirectory: holder.stateDirectory })
  expect(['has generation', 'stays in standby'].some((part) => againSays(again, part))).toBe(true)
  expect(await taking).toMatchObject({ status: 200, body: { generation: 2 } })
})

function againSays(daemon: Daemon, part: string): boolean {
  return daemon.log.some(({ reason }) => typeof reason === 'string' && reason.includes(part))
}

test('a record that changed while the fence ran opens nothing', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const holder = await startHost(scratch, path)
  const began = join(scratch.directory('signal'), 'began')
  const taker = await startFencing(scratch, path, `touch ${began}; sleep 1.5; exit 0`, holder)
  const taking = refusal(taker, 'open', { takeover: true })
  await eventually('the fence to run', () => readable(began))
  const home = homeOf(path)
  const { sequence } = newestOf(path)
  const newest = await home.readNewest()
  if (newest.kind !== 'record') throw new Error('there is a record')
  expect((await home.compareAndSwap(sequence, { ...newest.record, intent: null })).won).toBe(true)
  expect(await taking).toMatchObject({ code: 'held-by-other' })
  expect(newestOf(path).generation).toBe(1)
})

test('of two that take over at once one wins', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const lost = await startHost(scratch, path)
  const takers = [
    await startFencing(scratch, path, 'kill -9 $plug; exit 0', lost),
    await startFencing(scratch, path, 'kill -9 $plug; exit 0', lost),
  ]
  await lost.kill()
  const answers = await Promise.all(takers.map((taker) => taker.api('POST', '/exports/vda/open', { takeover: true })))
  expect(answers.map(({ status }) => status).sort()).toEqual([200, 409])
  const states = await Promise.all(takers.map(async (taker) => (await taker.status('vda')).state))
  expect(states.sort()).toEqual(['open', 'standby'])
})

test('without a fence command there is no takeover', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const lost = await startHost(scratch, path)
  await lost.kill()
  const other = await startHost(scratch, path, { standby: true })
  expect(await refusal(other, 'open', { takeover: true })).toMatchObject({
    code: 'takeover-failed',
    detail: expect.stringContaining('no [fence] command') as string,
  })
  expect(recordsOf(path)).toHaveLength(2)
})

function readable(path: string): boolean {
  try {
    readFileSync(path)
    return true
  } catch {
    return false
  }
}
