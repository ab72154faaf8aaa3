import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { LocalHost } from '../../src/ownership/local-host.ts'
import type { ShelvedReceipt } from '../../src/ownership/receipt-shelf.ts'
import { inlineRunner } from '../blocking/inline-runner.ts'
import { spawnNode, waitForLine } from '../support/child-process.ts'
import { temporaryDirectory } from '../support/temporary-directory.ts'
import { IMAGE, OTHER, receiptOf } from './record-samples.ts'

const RIG = join(import.meta.dirname, 'run-rig.mjs')

function establish(state: string): Promise<LocalHost> {
  return LocalHost.establish(state, inlineRunner)
}

test('a run knows itself, a run beside it, and one that is over', async () => {
  const state = temporaryDirectory()
  const one = await establish(state)
  const other = await establish(state)
  const holder = await one.newHolder()
  expect(await one.kinship(holder)).toBe('this-run')
  expect(await other.kinship(holder)).toBe('living-run')
  await one.close()
  expect(await other.kinship(holder)).toBe('dead-run')
  expect(await other.kinship({ ...holder, boot: 'earlier' })).toBe('earlier-boot')
  expect(await other.kinship(OTHER)).toBe('other-host')
  await other.close()
})

test('without its open token a holder of our name is another host', async () => {
  const state = temporaryDirectory()
  const host = await establish(state)
  const holder = await host.newHolder()
  expect(await host.kinship({ ...holder, openToken: 'f'.repeat(32) })).toBe('other-host')
  expect(await host.kinship({ ...holder, openToken: '../host-identity' })).toBe('other-host')
  await host.forget(holder)
  expect(await host.kinship(holder)).toBe('other-host')
  await host.close()
})

test('a state directory that was cloned does not know what was opened since', async () => {
  const state = temporaryDirectory()
  const original = await establish(state)
  const before = await original.newHolder()
  const clone = temporaryDirectory()
  writeFileSync(join(clone, 'host-identity'), readFileSync(join(state, 'host-identity')))
  mkdirSync(join(clone, 'open-tokens'))
  writeFileSync(join(clone, 'open-tokens', before.openToken), '')
  const since = await original.newHolder()
  const cloned = await establish(clone)
  expect(cloned.identity.host).toBe(original.identity.host)
  expect(await cloned.kinship(since)).toBe('other-host')
  // What was open at the time of the cloning is the limit: both have that token.
  expect(await cloned.kinship(before)).not.toBe('other-host')
  await original.close()
  await cloned.close()
})

test('a process that was killed is over, and its file goes with the next run', async () => {
  const state = temporaryDirectory()
  const child = spawnNode(RIG, [state])
  const line = await waitForLine(child, /^holder .*$/)
  const holder = JSON.parse(line.slice('holder '.length)) as typeof OTHER
  const host = await establish(state)
  expect(await host.kinship(holder)).toBe('living-run')
  child.signal('SIGSTOP')
  expect(await host.kinship(holder)).toBe('living-run')
  await child.stop('SIGKILL')
  expect(await host.kinship(holder)).toBe('dead-run')
  expect(readdirSync(join(state, 'runs'))).toHaveLength(2)
  const next = await establish(state)
  expect(readdirSync(join(state, 'runs'))).toHaveLength(2)
  await host.close()
  await next.close()
  expect(readdirSync(join(state, 'runs'))).toEqual([])
})

function shelved(generation: number): ShelvedReceipt {
  return { imageId: 'vda', image: IMAGE, receipt: receiptOf(generation) }
}

test('a receipt stays until it is dropped, across runs', async () => {
  const state = temporaryDirectory()
  const host = await establish(state)
  expect(await host.receipts.get('vda')).toBeNull()
  await host.receipts.put('vda', shelved(3))
  await host.receipts.put('vda', shelved(4))
  await host.receipts.put('vdb', shelved(9))
  await host.close()
  const next = await establish(state)
  expect(await next.receipts.get('vda')).toEqual(shelved(4))
  await next.receipts.drop('vda')
  await next.receipts.drop('vda')
  expect(await next.receipts.get('vda')).toBeNull()
  expect(await next.receipts.get('vdb')).toEqual(shelved(9))
  await next.close()
})

test('a receipt that cannot be understood is none', async () => {
  const state = temporaryDirectory()
  const host = await establish(state)
  writeFileSync(join(state, 'receipts', 'vda.json'), '{"version":')
  expect(await host.receipts.get('vda')).toBeNull()
  writeFileSync(join(state, 'receipts', 'vda.json'), JSON.stringify({ ...shelved(3), image: undefined }))
  expect(await host.receipts.get('vda')).toBeNull()
  await host.close()
})
