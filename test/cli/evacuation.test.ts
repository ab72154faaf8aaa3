/** `interlockctl evacuate` as a process, against control servers over exports that close when the test says so. */

import { expect, test } from 'vitest'
import type { EvacuationReport } from '../../src/client/index.ts'
import { ControlProblem, evacuationReportOf } from '../../src/client/index.ts'
import { Refusal } from '../../src/foundation/refusal.ts'
import { spawnNode, spawnProgram } from '../support/child-process.ts'
import { INTERLOCKCTL, runProgram } from '../support/control-command.ts'
import { controlRig } from '../support/control-rig.ts'
import type { ControlRig } from '../support/control-rig.ts'
import { eventually } from '../support/eventually.ts'

interface Printed {
  readonly complete: boolean
  readonly daemons: readonly (EvacuationReport & { readonly control: string; readonly failure: string | null })[]
}

const wordsOf = (urls: readonly string[], ...words: string[]) => [
  ...urls.flatMap((url) => ['--control', url]),
  ...words,
]
const run = (urls: readonly string[], ...words: string[]) => runProgram(INTERLOCKCTL, wordsOf(urls, ...words))

/** Two daemons with an export of the same name: that of the second is on a slow disk, and it has a fenced one too. */
async function slowAndFenced(): Promise<readonly [ControlRig, ControlRig]> {
  const [one, two] = [await controlRig(), await controlRig()]
  for (const { exports } of [one, two]) exports.put('vda')
  two.exports.put('vdb', { state: 'fenced' })
  two.exports.setOutstanding('vda', { submitted: 3, bytes: 12_288 })
  return [one, two]
}

/** As a close that drains says it now and then. */
async function drainOn({ exports }: ControlRig, name: string): Promise<void> {
  const { outstanding } = await exports.status(name)
  exports.emit(name, { kind: 'drain', outstanding, step: 'draining', elapsedMs: 1_500 })
}

test('two daemons are emptied at once, and one report has the receipts of both', async () => {
  const [one, two] = [await controlRig(), await controlRig()]
  for (const name of ['a1', 'a2']) one.exports.put(name)
  two.exports.put('b1', { generation: 7 })
  const json = await run([one.url, two.url], '-o', 'json', 'evacuate')
  expect(json).toMatchObject({ status: 0, stderr: '' })
  const printed = JSON.parse(json.stdout) as Printed
  expect(printed.complete).toBe(true)
  expect(printed.daemons.map(({ control, exports }) => [control, exports.map((each) => each.export)])).toEqual([
    [one.url, ['a1', 'a2']],
    [two.url, ['b1']],
  ])
  expect(printed.daemons[1]?.exports[0]?.receipt).toMatchObject({ generation: 7, reason: 'handover', state: 'closed' })

  const again = await run([one.url, two.url], 'evacuate')
  expect(again.status).toBe(0)
  expect(again.stdout).toContain(`${one.url}: 2 exports in 1.2s: 2 closed; nothing of this daemon can reach a disk`)
  const asked = one.exports.calls.filter(({ verb }) => verb === 'evacuate').map(({ options }) => options)
  const defaults = { early: false, unsubmitted: 'drain', requests: 'park', parallel: null, timeoutMs: null }
  expect(asked).toEqual([defaults, defaults])
})

test('what still drains is named with what is left, and the status is 4; every option arrives', async () => {
  const { exports, url, client } = await controlRig()
  exports.put('quick')
  exports.put('stuck')
  exports.setOutstanding('stuck', { submitted: 2, bytes: 8192, oldestMs: 61_000 })
  const words = ['evacuate', '--early', '--parallel', '3', '--unsubmitted', 'abort', '--requests', 'refuse']
  const draining = await run([url], ...words, '--timeout', '300ms')
  expect(draining.status).toBe(4)
  expect(draining.stderr).toContain("1 of 2 exports are not closed: 'stuck'")
  expect(draining.stdout).toMatch(/stuck +NOT CLOSED .*still-draining.*2 requests \(2 submitted\), 8 KiB, oldest 1m1s/)
  expect(draining.stdout).toMatch(/quick +closed/)
  expect(exports.calls.find(({ verb }) => verb === 'evacuate')?.options).toEqual({
    early: true,
    unsubmitted: 'abort',
    requests: 'refuse',
    parallel: 3,
    timeoutMs: 300,
  })
  const error: unknown = await client.evacuate({ timeoutMs: 1 }).catch((thrown: unknown) => thrown)
  expect(error).toBeInstanceOf(ControlProblem)
  expect(error).toMatchObject({ code: 'still-draining', status: 504 })
  expect(evacuationReportOf(error)?.exports).toHaveLength(2)
  exports.finishClose('stuck')
  expect(await run([url], 'evacuate')).toMatchObject({ status: 0 })
})

test('the gravest of several daemons counts', async () => {
  const [good, refusing, failing] = [await controlRig(), await controlRig(), await controlRig()]
  for (const { exports } of [good, refusing, failing]) exports.put('vda')
  refusing.exports.put('vda', { state: 'fenced' })
  failing.exports.refuseNext('close', new Refusal('sync-failed', 'the disk is gone'))
  expect((await run([good.url, refusing.url], 'evacuate')).status).toBe(3)
  const worse = await run([refusing.url, failing.url], 'evacuate')
  expect(worse.status).toBe(1)
  expect(worse.stdout).toContain('sync-failed: the disk is gone')
  const nobody = await run([good.url, 'unix:/nonexistent/control.sock'], 'evacuate')
  expect(nobody.status).toBe(5)
  expect(nobody.stdout).toMatch(/vda +closed/)
  expect(nobody.stdout).toContain('unix:/nonexistent/control.sock: NOT EVACUATED')
})

test('without a terminal a plain line now and then: what is fenced has not gone, and who is slow is named', async () => {
  const [one, two] = await slowAndFenced()
  const program = spawnNode(INTERLOCKCTL, wordsOf([one.url, two.url], 'evacuate'))
  const closing = async () => (await two.exports.status('vda')).state === 'closing' && two.exports.subscribers > 0
  await eventually('the close and who looks at it', closing, { timeoutMs: 20_000 })
  await drainOn(two, 'vda')
  const line = await program.until('progress', 20_000, () => /^.*have gone.*\n/m.exec(program.stderr)?.[0])
  const slow = `slow: vda of ${two.url}`
  expect(line).toMatch(/^1 of 3 exports have gone, 1 are closing with 3 requests left, 1 fenced, /)
  expect(line).toMatch(/ after \d+\.\ds\n$/)
  expect(line).toContain(`, ${slow} after `)
  two.exports.finishClose('vda')
  const { status, stdout, stderr } = await program.exited
  expect(status).toBe(3)
  expect(stdout).toMatch(/vdb +NOT CLOSED/)
  expect(stderr).not.toContain('\u001b')
})

test('on a terminal one live line, gone in the end; of one daemon the names alone', async () => {
  const [, two] = await slowAndFenced()
  const command = [process.execPath, INTERLOCKCTL, ...wordsOf([two.url], 'evacuate')].join(' ')
  const terminal = spawnProgram('script', ['--quiet', '--return', '--command', command, '/dev/null'])
  const shown = (words: string) => () => terminal.stdout.includes(`\r\u001b[2K${words}`)
  await terminal.until('a live line', 20_000, shown('0 of 2 exports have gone, 1 are closing'))
  await drainOn(two, 'vda')
  const slow = '0 of 2 exports have gone, 1 are closing with 3 requests left, 1 fenced, slow: vda after '
  await terminal.until('what is slow', 20_000, shown(slow))
  two.exports.finishClose('vda')
  const { status, stdout } = await terminal.exited
  expect(status).toBe(3)
  expect(stdout).toContain('\r\u001b[2KNAME')
})

test('every other verb asks one daemon', async () => {
  const { url } = await controlRig()
  const refused = await run([url, url], 'status')
  expect(refused).toMatchObject({ status: 2, stdout: '' })
  expect(refused.stderr).toContain('give --control once')
})

test('numbers and durations that are none are wrong usage', async () => {
  const { url } = await controlRig()
  expect((await run([url], 'evacuate', '--parallel', '0')).status).toBe(2)
  expect((await run([url], 'evacuate', '--timeout', '30')).status).toBe(2)
})
