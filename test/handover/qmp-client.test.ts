/**
 * The monitor's client against real QEMUs, over both kinds of socket; and, for what a QEMU cannot be made to do, against
 * a server that hangs up at the wrong moment.
 */

import { existsSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { Endpoint } from '../../src/foundation/endpoint.ts'
import { connectQmp } from '../../src/handover/qmp-client.ts'
import type { QmpClient, ReceivedEvent } from '../../src/handover/qmp-client.ts'
import { spawnProgram } from '../support/child-process.ts'
import { eventually } from '../support/eventually.ts'
import type { Program } from '../support/foreign-program.ts'
import { freePort } from '../support/free-port.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'

interface Rig {
  readonly program: Program
  readonly endpoint: Endpoint
}

async function startQemu(scheme: 'unix' | 'tcp'): Promise<Rig> {
  const path = join(scratchOfTest().directory('qmp'), 'qmp.sock')
  const port = await freePort()
  const program = spawnProgram('qemu-system-x86_64', [
    ...['-machine', 'none', '-S', '-nodefaults', '-display', 'none', '-accel', 'tcg'],
    ...['-qmp', scheme === 'unix' ? `unix:${path},server=on,wait=off` : `tcp:127.0.0.1:${port},server=on,wait=off`],
  ])
  if (scheme === 'unix') await program.until('socket of QEMU', 60_000, () => existsSync(path))
  return { program, endpoint: scheme === 'unix' ? { scheme, path } : { scheme, host: '127.0.0.1', port } }
}

async function connected({ endpoint }: Rig): Promise<QmpClient> {
  return eventually(
    'a monitor',
    async () => {
      const outcome = await connectQmp(endpoint)
      return outcome.ok && outcome.value
    },
    { timeoutMs: 60_000 },
  )
}

describe.each(['unix', 'tcp'] as const)('a QEMU over %s', (scheme) => {
  test('greets, answers each command with its own answer, refuses in its own words', async () => {
    const rig = await startQemu(scheme)
    const client = await connected(rig)
    expect(client.version).toMatch(/^\d+\.\d+\.\d+$/u)
    const [status, refused, name] = await Promise.all([
      client.execute('query-status'),
      client.execute('fly', { high: true }),
      client.execute('query-name'),
    ])
    expect(status).toMatchObject({ ok: true, value: { status: 'prelaunch', running: false } })
    expect(refused).toMatchObject({ ok: false, problem: { kind: 'refused', class: 'CommandNotFound' } })
    expect(name).toEqual({ ok: true, value: {} })
    client.close()
  })

  test('tells its events to everybody who listens, and says when it is gone', async () => {
    const rig = await startQemu(scheme)
    const client = await connected(rig)
    const streams = [client.events(), client.events()] as const
    expect(await client.execute('cont')).toMatchObject({ ok: true })
    expect(await client.execute('stop')).toMatchObject({ ok: true })
    for (const stream of streams) {
      const names = [await stream.next(), await stream.next()].map(({ value }) => (value as ReceivedEvent).name)
      expect(names).toEqual(['RESUME', 'STOP'])
    }
    const ends = streams.map((stream) => stream.next())
    rig.program.signal('SIGKILL')
    expect(await Promise.all(ends)).toEqual([
      { done: true, value: undefined },
      { done: true, value: undefined },
    ])
    expect(await client.execute('query-status')).toMatchObject({ ok: false, problem: { kind: 'lost' } })
  })
})

test('a monitor that somebody else has says nothing: the greeting is waited for only so long', async () => {
  const rig = await startQemu('unix')
  const first = await connected(rig)
  const second = await connectQmp(rig.endpoint, 300)
  expect(second).toMatchObject({ ok: false, problem: { kind: 'silent' } })
  first.close()
  const third = await connected(rig)
  expect(await third.execute('query-status')).toMatchObject({ ok: true })
  third.close()
})

test('nobody there is a value too', async () => {
  const path = join(scratchOfTest().directory('qmp'), 'nobody.sock')
  expect(await connectQmp({ scheme: 'unix', path })).toMatchObject({ ok: false, problem: { kind: 'lost' } })
})

/** A monitor of our own, which answers each line as told. */
async function startMonitor(answer: (command: { execute: string; id: number }) => string | null): Promise<Endpoint> {
  const scratch = scratchOfTest()
  const path = join(scratch.directory('qmp'), 'monitor.sock')
  const server = createServer((socket) => {
    socket.on('error', () => undefined)
    socket.write('{"QMP": {"version": {}, "capabilities": []}}\n')
    socket.setEncoding('utf8').on('data', (text: string) => {
      for (const line of text.trim().split('\n')) {
        const said = answer(JSON.parse(line) as { execute: string; id: number })
        if (said === null) socket.destroy()
        else socket.write(said)
      }
    })
  })
  await new Promise<void>((resolve) => server.listen(path, resolve))
  scratch.defer('monitor', () => {
    server.close()
  })
  return { scheme: 'unix', path }
}

test.each([
  ['a connection that is lost', null, 'lost'],
  ['an answer that is no JSON', 'login: \n', 'lost'],
  ['no answer', '', 'silent'],
] as const)('%s ends every command that waits', async (_what, answer, kind) => {
  const endpoint = await startMonitor(({ execute, id }) =>
    execute === 'qmp_capabilities' ? `{"return": {}, "id": ${id}}\n` : answer,
  )
  const outcome = await connectQmp(endpoint)
  if (!outcome.ok) throw new Error(outcome.problem.detail)
  const client = outcome.value
  const patienceMs = kind === 'silent' ? 300 : 30_000
  const answers = await Promise.all([client.execute('stop', {}, patienceMs), client.execute('cont', {}, patienceMs)])
  expect(answers).toMatchObject([
    { ok: false, problem: { kind } },
    { ok: false, problem: { kind } },
  ])
  client.close()
})
