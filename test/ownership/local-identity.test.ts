import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { beforeEach, expect, test } from 'vitest'
import type { BlockingCall, BlockingRunner } from '../../src/blocking/calls.ts'
import {
  bootIdentity,
  dropOpenToken,
  establishIdentity,
  hasOpenToken,
  leaveOpenToken,
  prepareOpenTokens,
} from '../../src/ownership/local-identity.ts'
import { ERRNO } from '../../src/posix/errno.ts'
import { inlineRunner } from '../blocking/inline-runner.ts'
import { temporaryDirectory } from '../support/temporary-directory.ts'

const HEXADECIMAL = /^[0-9a-f]{32}$/
let state: string

beforeEach(() => {
  state = join(temporaryDirectory(), 'state')
})

const establish = () => establishIdentity(state, inlineRunner)

/** Runs calls for real, and keeps what was asked. */
function recording(): { readonly runner: BlockingRunner; readonly calls: BlockingCall[] } {
  const calls: BlockingCall[] = []
  const runner: BlockingRunner = {
    run: (call) => {
      calls.push(call)
      return inlineRunner.run(call)
    },
  }
  return { runner, calls }
}

test('the host stays the same, each run is another', async () => {
  const [first, second] = [await establish(), await establish()]
  expect(first.host).toMatch(HEXADECIMAL)
  expect(second.host).toBe(first.host)
  expect(second.boot).toBe(first.boot)
  expect(first.instance).toMatch(HEXADECIMAL)
  expect(second.instance).not.toBe(first.instance)
  expect(first.name).toBe(hostname())
  expect(first.boot).toMatch(/^[0-9a-f]{8}-[0-9a-f-]{27}$/)
  expect(bootIdentity()).toBe(first.boot)
})

test('another state directory is another host', async () => {
  const first = await establish()
  rmSync(state, { recursive: true })
  expect((await establish()).host).not.toBe(first.host)
})

test('the identity is private, and nothing else is left', async () => {
  await establish()
  expect(readdirSync(state)).toEqual(['host-identity'])
  expect(statSync(join(state, 'host-identity')).mode & 0o777).toBe(0o600)
  expect(statSync(state).mode & 0o777).toBe(0o700)
})

test('directory, identity and name are durable before they are used', async () => {
  const { runner, calls } = recording()
  const identity = await establishIdentity(state, runner)
  const kinds = calls.map(
    (call) => `${call.kind} ${'path' in call && call.path.includes('host-identity.') ? 'temporary' : ''}`,
  )
  expect(kinds.map((kind) => kind.trim())).toEqual([
    'makeDirectory',
    'syncDirectory',
    'readFile',
    'createFile temporary',
    'link',
    'removeFile temporary',
    'syncDirectory',
    'readFile',
  ])
  expect(readFileSync(join(state, 'host-identity'), 'utf8')).toBe(`${identity.host}\n`)
})

test('of two runs that begin at once both take the identity of the first', async () => {
  const [one, other] = await Promise.all([establish(), establish()])
  expect(one.host).toBe(other.host)
  expect(readdirSync(state)).toEqual(['host-identity'])
})

test.each(['', 'half', `${'0'.repeat(31)}\n`, `${'g'.repeat(32)}\n`, `${'0'.repeat(300)}\n`])(
  'an identity that cannot be read as one is refused, and kept: %j',
  async (content) => {
    mkdirSync(state)
    const path = join(state, 'host-identity')
    writeFileSync(path, content)
    await expect(establish()).rejects.toMatchObject({ code: 'state-directory', message: expect.stringContaining(path) })
    expect(readFileSync(path, 'utf8')).toBe(content)
  },
)

test('a state directory that cannot be is refused with its path and cause', async () => {
  const deep = join(state, 'missing', 'deep')
  await expect(establishIdentity(deep, inlineRunner)).rejects.toThrow(`cannot create ${deep}: ENOENT`)
  writeFileSync(state, '')
  await expect(establish()).rejects.toThrow('ENOTDIR')
})

test('an open token is found until it is dropped, and no other is', async () => {
  await establish()
  await prepareOpenTokens(state, inlineRunner)
  const token = await leaveOpenToken(state, inlineRunner)
  const other = await leaveOpenToken(state, inlineRunner)
  expect(token).toMatch(HEXADECIMAL)
  expect(other).not.toBe(token)
  expect(await hasOpenToken(state, token, inlineRunner)).toBe(true)
  expect(await hasOpenToken(state, 'f'.repeat(32), inlineRunner)).toBe(false)
  expect(await hasOpenToken(state, '../host-identity', inlineRunner)).toBe(false)
  await dropOpenToken(state, token, inlineRunner)
  await dropOpenToken(state, token, inlineRunner)
  expect(await hasOpenToken(state, token, inlineRunner)).toBe(false)
  expect(await hasOpenToken(state, other, inlineRunner)).toBe(true)
})

test('a token that could not be made durable is no token', async () => {
  await establish()
  await prepareOpenTokens(state, inlineRunner)
  const failing: BlockingRunner = {
    run: (call) => (call.kind === 'inTurn' ? (Promise.resolve([0, -ERRNO.EIO]) as never) : inlineRunner.run(call)),
  }
  await expect(leaveOpenToken(state, failing)).rejects.toThrow('cannot make durable')
  expect(existsSync(state)).toBe(true)
})
