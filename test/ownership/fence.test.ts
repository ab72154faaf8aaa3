import { chmodSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { fenceHost, fenceProblem } from '../../src/ownership/fence.ts'
import type { FenceSettings } from '../../src/ownership/fence.ts'
import { eventually } from '../support/eventually.ts'
import { temporaryDirectory } from '../support/temporary-directory.ts'
import { HOLDER, OTHER } from './record-samples.ts'

const SELF = { host: 'c'.repeat(32), name: 'gamma' }

function settingsFor(script: string, overrides: Partial<FenceSettings> = {}): FenceSettings & { readonly at: string } {
  const at = temporaryDirectory()
  const program = join(at, 'fence_test')
  writeFileSync(program, `#!/bin/sh\ncd ${at}\n${script}\n`)
  chmodSync(program, 0o755)
  const settings = { command: [program, '--quick'], timeoutMs: 10_000, options: { ip: '10.0.0.1' } }
  return { ...settings, plugs: { [HOLDER.host]: 'by-identity', [OTHER.name]: 'by-name' }, ...overrides, at }
}

test('the command is told what to switch off, on its standard input', async () => {
  const settings = settingsFor('cat > said; echo "$@" > called; echo done; echo more >&2')
  const report = await fenceHost(settings, HOLDER, SELF)
  expect(report).toEqual({
    command: `${settings.at}/fence_test --quick`,
    plug: 'by-identity',
    exitStatus: 0,
    output: expect.stringMatching(/done\n/u) as string,
  })
  expect(readFileSync(join(settings.at, 'said'), 'utf8')).toBe('ip=10.0.0.1\naction=off\nplug=by-identity\n')
  expect(readFileSync(join(settings.at, 'called'), 'utf8')).toBe('--quick\n')
  expect((await fenceHost(settings, OTHER, SELF)).plug).toBe('by-name')
})

test('an operator cannot turn the action into another one', async () => {
  const settings = settingsFor('cat', { options: { action: 'status', plug: 'other' } })
  const { output } = await fenceHost(settings, HOLDER, SELF)
  expect(output.split('\n').filter((line) => line.startsWith('action='))).toEqual(['action=off'])
  expect(output).toContain('plug=by-identity')
})

test('a status other than 0 is reported, with what was said last', async () => {
  const report = await fenceHost(
    settingsFor('yes unreachable | head -c 9000; printf "\\033[1mno\\n"; exit 3'),
    HOLDER,
    SELF,
  )
  expect(report.exitStatus).toBe(3)
  expect(report.output.length).toBeLessThanOrEqual(2048)
  expect(report.output.endsWith('·[1mno\n')).toBe(true)
})

test('a command that does not end is killed with all that it started, and has not fenced', async () => {
  const settings = settingsFor('sleep 300 & echo $! > child; wait', { timeoutMs: 400 })
  const report = await fenceHost(settings, HOLDER, SELF)
  expect(report).toMatchObject({
    exitStatus: 137,
    output: expect.stringContaining('did not end within 400 ms') as string,
  })
  const child = Number(readFileSync(join(settings.at, 'child'), 'utf8'))
  await eventually('the child to be gone', () => {
    try {
      return / [ZX] /u.test(readFileSync(`/proc/${child}/stat`, 'utf8'))
    } catch {
      return true
    }
  })
})

test('a command that is missing, or reads nothing, has not fenced by that', async () => {
  const missing = await fenceHost({ ...settingsFor(''), command: ['/nonexistent/fence'] }, HOLDER, SELF)
  expect(missing).toMatchObject({ exitStatus: 127, output: expect.stringContaining('ENOENT') as string })
  expect((await fenceHost(settingsFor('exec <&-; exit 1'), HOLDER, SELF)).exitStatus).toBe(1)
})

test('whom nothing can fence is told beforehand', async () => {
  const none: FenceSettings = { command: null, timeoutMs: 1000, options: {}, plugs: {} }
  expect(fenceProblem(none, HOLDER, SELF)?.message).toContain('no [fence] command')
  await expect(fenceHost(none, HOLDER, SELF)).rejects.toMatchObject({ code: 'takeover-failed' })
  const settings = settingsFor('exit 0', { plugs: { gamma: '1' } })
  expect(fenceProblem(settings, HOLDER, SELF)?.message).toContain('"alpha"')
  expect(fenceProblem(settings, { ...HOLDER, name: 'gamma' }, SELF)).toBeNull()
  // Names of what every object has are no plugs.
  expect(fenceProblem(settings, { ...HOLDER, name: 'constructor' }, SELF)?.code).toBe('takeover-failed')
})

test('nobody switches himself off: of a machine with our identity only its own name tells which one it is', async () => {
  const settings = settingsFor('true', { plugs: { [HOLDER.host]: 'by-identity', clone: 'by-name' } })
  const self = { host: HOLDER.host, name: HOLDER.name }
  expect(fenceProblem(settings, HOLDER, self)?.message).toContain('would switch off this host')
  const clone = { ...HOLDER, name: 'clone' }
  expect((await fenceHost(settings, clone, self)).plug).toBe('by-name')
  expect(fenceProblem(settings, { ...HOLDER, name: 'unknown' }, self)?.code).toBe('takeover-failed')
})
