/**
 * The image by itself: what it says, as whom it runs, with how little it is content, how it stops, and how it comes back.
 */

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, inject, test } from 'vitest'
import { chooseEngine } from '../../src/engine/choice.ts'
import { startContainerHost } from '../support/container-host.ts'
import type { ContainerHost } from '../support/container-host.ts'
import { PROJECT } from '../support/controlled-daemon.ts'
import { eventually } from '../support/eventually.ts'
import { connectFrontend, numberedBlock } from '../support/nbd-frontend.ts'
import type { Scratch } from '../support/scratch.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { VerifyingWriter } from '../support/verifying-writer.ts'
import { engineOfRun, recordAt, sharedFolder } from './host-pair.ts'

const PROFILE = join(PROJECT, 'docker/seccomp-io-uring.json')
const EPERM = 1

/** One host over an image of its own. */
async function startHost(
  scratch: Scratch,
  words: readonly string[] = [],
): Promise<{ readonly host: ContainerHost; readonly image: string }> {
  const engine = engineOfRun()
  const { folder, image } = sharedFolder(scratch)
  const host = await startContainerHost(scratch, engine, {
    image: inject('containerImages').interlockd,
    name: 'host',
    network: await engine.network(scratch, 'storage'),
    exports: [{ name: 'vda', path: '/srv/vda.raw' }],
    words: ['--volume', `${folder}:/srv`, ...words],
  })
  return { host, image }
}

async function writeOnce(scratch: Scratch, host: ContainerHost): Promise<void> {
  const frontend = await connectFrontend(scratch, await host.address(), 'vda')
  await frontend.request('WRITE', { offset: 0, data: numberedBlock(7) })
  frontend.drop()
}

test('what it says of itself', async () => {
  const engine = engineOfRun()
  const { interlockd } = inject('containerImages')
  const help = await engine.ask(['run', '--rm', '--network', 'none', ...engine.label, interlockd, '--help'])
  for (const part of ['--export', '--config', '/etc/interlockd.toml', '/var/lib/interlockd'])
    expect(help).toContain(part)
  const { Config: configuration } = JSON.parse(
    (await engine.ask(['image', 'inspect', '--format', '{{json .}}', interlockd])) || '{}',
  ) as { Config: Record<string, unknown> }
  expect(configuration).toMatchObject({
    User: '10809:10809',
    StopSignal: 'SIGTERM',
    Healthcheck: { Test: ['CMD', 'interlockctl', 'status'] },
    Labels: { 'org.opencontainers.image.title': 'interlockd' },
    ExposedPorts: { '10809/tcp': {} },
  })
})

test('it serves with nothing but its folders: no writable root, no capability, no locked memory', async () => {
  const scratch = scratchOfTest()
  const { host, image } = await startHost(scratch, [
    ...['--read-only', '--cap-drop', 'ALL', '--security-opt', 'no-new-privileges', '--ulimit', 'memlock=0:0'],
    ...['--health-interval', '1s'],
  ])
  await writeOnce(scratch, host)
  expect(readFileSync(image).subarray(0, 4096)).toEqual(numberedBlock(7))
  const { engine, name } = host
  expect((await engine.run(['exec', name, 'touch', '/opt/interlockd/x'])).status).not.toBe(0)
  expect(await engine.ask(['exec', name, 'interlockctl', 'status', 'vda'])).toContain('open')
  await eventually('its health', async () => (await host.inspect('{{.State.Health.Status}}')) === 'healthy', {
    timeoutMs: 90_000,
  })
})

test('docker stop closes within its period, and the next start opens again', async () => {
  const scratch = scratchOfTest()
  const { host, image } = await startHost(scratch)
  const writer = new VerifyingWriter(await connectFrontend(scratch, await host.address(), 'vda'), 256)
  const writing = writer.write(16, () => false)
  await host.untilInFlight('vda', 1)
  await host.engine.ask(['stop', '--time', '60', host.name])
  expect(await host.inspect('{{.State.ExitCode}} {{.State.OOMKilled}}')).toBe('0 false')
  expect(await recordAt(`${image}.interlock`)).toMatchObject({ state: 'closed', closeReason: 'shutdown' })
  expect(await writing).toBe('lost')
  await host.engine.ask(['start', host.name])
  await host.untilReady()
  expect(await host.status('vda')).toMatchObject({ state: 'open', generation: 2 })
  writer.moveTo(await connectFrontend(scratch, await host.address(), 'vda'))
  expect(await writer.write(16, () => writer.answeredCount > 300)).toBe('enough')
  expect(await writer.lostWrites()).toEqual([])
})

test('a daemon that crashes is started again by the restart policy under a client that comes back', async () => {
  const scratch = scratchOfTest()
  const { host } = await startHost(scratch, ['--restart', 'always'])
  const writer = new VerifyingWriter(await connectFrontend(scratch, await host.address(), 'vda'), 256)
  const writing = writer.write(16, () => false)
  await host.untilInFlight('vda', 1)
  process.kill(Number(await host.inspect('{{.State.Pid}}')), 'SIGKILL')
  expect(await writing).toBe('lost')
  const restarted = async (): Promise<boolean> =>
    (await host.inspect('{{.RestartCount}} {{.State.Running}}')) === '1 true'
  await eventually('the restart', restarted, { timeoutMs: 60_000 })
  await host.untilReady()
  expect(await host.untilOpen('vda')).toMatchObject({ generation: 2, clearedBy: 'lock' })
  const before = writer.answeredCount
  writer.moveTo(await connectFrontend(scratch, await host.address(), 'vda'))
  expect(await writer.write(16, () => writer.answeredCount >= before + 300)).toBe('enough')
  expect(await writer.lostWrites()).toEqual([])
})

/** The number of the error with which the kernel, or the profile, answers io_uring_setup: asked without our code. */
async function ringError(host: ContainerHost): Promise<number> {
  const script = `const koffi = require('/opt/interlockd/node_modules/koffi')
    const call = koffi.load(null).func('long syscall(long number, long entries, void *parameters)')
    call(425, 1, null)
    console.log(koffi.errno())`
  return Number(await host.engine.ask(['exec', host.name, 'node', '-e', script]))
}

test.each(['default', 'shipped', 'strict'] as const)(
  'under the %s profile the engine is chosen and reported',
  async (profile) => {
    const scratch = scratchOfTest()
    const strict = join(scratch.directory('profile'), 'strict.json')
    const shipped = JSON.parse(readFileSync(PROFILE, 'utf8')) as { syscalls: { names: string[] }[] }
    const others = shipped.syscalls.filter(({ names }) => !names.includes('io_uring_setup'))
    writeFileSync(strict, JSON.stringify({ ...shipped, syscalls: others }))
    const words = { default: [], shipped: [`seccomp=${PROFILE}`], strict: [`seccomp=${strict}`] }[profile]
    const { host } = await startHost(
      scratch,
      words.flatMap((word) => ['--security-opt', word]),
    )
    await writeOnce(scratch, host)
    const { engine } = await host.status('vda')
    const forbidden = (await ringError(host)) === EPERM
    if (profile === 'strict') expect(forbidden).toBe(true)
    expect(engine.kind).toBe(forbidden ? 'file' : chooseEngine('auto').kind)
    expect(engine.reason).toMatch(forbidden ? /io_uring.*seccomp/u : /the kernel offers it|there is no io_uring/u)
    if (profile === 'shipped') expect(forbidden).toBe(false)
    const ready = (await host.log()).find(({ msg: said }) => said === 'ready')
    expect(ready).toMatchObject({ engine: { kind: engine.kind } })
  },
)
