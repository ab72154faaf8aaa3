/**
 * Connections that a client keeps: which calls share one, what becomes of a call whose connection has died, and that
 * they keep neither the client's program nor the daemon from ending.
 */

import { createConnection, createServer } from 'node:net'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { connect, ControlClient, ControlUnreachable } from '../../src/client/index.ts'
import { IDLE_MS_MAX } from '../../src/client/http-exchange.ts'
import { LIMITS } from '../../src/config/limits.ts'
import { controlRig } from '../support/control-rig.ts'
import type { ControlRig } from '../support/control-rig.ts'
import { PROJECT } from '../support/controlled-daemon.ts'
import { startAgain, startDaemon } from '../support/daemon.ts'
import { eventually } from '../support/eventually.ts'
import { runProgram } from '../support/foreign-program.ts'
import { makeImage } from '../support/image.ts'
import { receiptOf, statusOf } from '../support/fake-exports.ts'
import { scratchOfTest, temporaryDirectory } from '../support/temporary-directory.ts'

type Call = (client: ControlClient) => Promise<unknown>

/** Harmless to carry out twice. */
const REPEATED: Readonly<Record<string, Call>> = {
  list: (client) => client.list(),
  status: (client) => client.status('vda'),
  requests: (client) => client.requests('vda'),
  stack: (client) => client.stack('vda'),
  check: (client) => client.check('/srv/vda.raw'),
  ownership: (client) => client.ownership('vda'),
  renew: (client) => client.renew('vda'),
  close: (client) => client.close('vda'),
  evacuate: (client) => client.evacuate(),
  open: (client) => client.open('vda', { receipt: receiptOf(statusOf('vda')) }),
  standby: (client) => client.standby('vda'),
  adopt: (client) => client.adopt('vda'),
  ready: (client) => client.ready(),
}

const ONCE: Readonly<Record<string, Call>> = {
  add: (client) => client.add({ name: 'vdb', path: '/srv/vdb.raw' }, { idempotencyKey: 'key-1' }),
  remove: (client) => client.remove('vda'),
  clear: (client) => client.clear('vda', { takeover: true }),
  fence: (client) => client.fence('vda'),
  'open with a takeover': (client) => client.open('vda', { takeover: true }),
}

describe('which calls share a connection', () => {
  test('every call of the client is here', () => {
    const calls = Object.getOwnPropertyNames(ControlClient.prototype)
    const known = [...Object.keys(REPEATED), ...Object.keys(ONCE), 'open', 'events', 'constructor']
    expect(calls.filter((call) => !known.includes(call))).toEqual([])
  })

  test('one serves one call after the other, also those of other clients; events have another', async () => {
    const rig = await controlRig()
    rig.exports.put('vda')
    const relay = await relayTo(rig)
    await relay.client.status('vda')
    await relay.client.close('vda')
    await relay.client.status('nobody').catch(() => undefined)
    await connect(relay.url).open('vda', { receipt: receiptOf(statusOf('vda')) })
    expect(relay.connectionsCount).toBe(1)
    const events = relay.client.events()
    await events.next()
    await relay.client.status('vda')
    expect(relay.connectionsCount).toBe(2)
    await events.return()
    await relay.client.status('vda')
    expect(relay.connectionsCount).toBe(2)
  })

  test('of those that many calls at once have needed, two stay', async () => {
    const rig = await controlRig()
    rig.exports.put('vda')
    const relay = await relayTo(rig)
    await Promise.all(Array.from({ length: 6 }, () => relay.client.status('vda')))
    expect(relay.connectionsCount).toBe(6)
    await eventually('two connections', () => relay.openCount === 2)
  })

  test('the daemon keeps its end for longer than the client', async () => {
    const { raw } = await controlRig()
    const { headers } = await raw({ path: '/livez', headers: { connection: 'keep-alive' } })
    const [, seconds] = /^timeout=(\d+)$/u.exec(String(headers['keep-alive'])) ?? []
    expect(Number(seconds) * 1000).toBeGreaterThanOrEqual(2 * IDLE_MS_MAX)
  })
})

describe('a connection that has died', () => {
  test('before the call that uses it: the call goes out on another', async () => {
    const rig = await controlRig()
    rig.exports.put('vda')
    const relay = await relayTo(rig)
    await relay.client.status('vda')
    // The client learns of the end only when it has already chosen the connection.
    relay.cut()
    await expect(relay.client.close('vda')).resolves.toMatchObject({ done: true })
    expect(rig.exports.calls.filter(({ verb }) => verb === 'close')).toHaveLength(1)
    await relay.client.status('vda')
    relay.cut()
    await relay.end()
    const call = relay.client.status('vda')
    await expect(call).rejects.toThrow(ControlUnreachable)
    await expect(call).rejects.toMatchObject({ code: 'ENOENT' })
  })

  test.each(Object.keys(REPEATED))('%s, whose answer is lost, is sent twice at most', async (verb) => {
    const relay = await keptAndLosing(() => 'all')
    await expect(REPEATED[verb]?.(relay.client)).rejects.toThrow(ControlUnreachable)
    expect(relay.requests).toHaveLength(2)
    expect(relay.requests[1]).toBe(relay.requests[0])
  })

  test.each(Object.keys(ONCE))('%s is never sent twice', async (verb) => {
    const relay = await keptAndLosing(() => 'all')
    await expect(ONCE[verb]?.(relay.client)).rejects.toThrow(ControlUnreachable)
    expect(relay.requests).toHaveLength(1)
    expect(relay.connectionsCount).toBe(2)
  })

  test('nor is what was being answered', async () => {
    const relay = await keptAndLosing(() => 'rest')
    await expect(relay.client.status('vda')).rejects.toThrow(ControlUnreachable)
    expect(relay.requests).toHaveLength(1)
  })

  test('nor what the daemon was busy with', async () => {
    const relay = await keptAndLosing(async () => {
      await sleep(1_300)
      return 'all' as const
    })
    await expect(relay.client.status('vda')).rejects.toThrow(ControlUnreachable)
    expect(relay.requests).toHaveLength(1)
  })
})

describe('a call that is aborted', () => {
  test('takes its connection along, and the next call has another', async () => {
    const rig = await controlRig()
    rig.exports.put('vda')
    rig.exports.setOutstanding('vda', { submitted: 1 })
    const relay = await relayTo(rig)
    await relay.client.status('vda')
    const abort = new AbortController()
    const closing = relay.client.close('vda', {}, { signal: abort.signal })
    await eventually('the close has come', () => rig.exports.calls.some(({ verb }) => verb === 'close'))
    const reason = new Error('no longer wanted')
    abort.abort(reason)
    await expect(closing).rejects.toBe(reason)
    const next = relay.client.status('vda')
    rig.exports.finishClose('vda')
    await expect(next).resolves.toMatchObject({ name: 'vda' })
    expect(relay.requests.filter((request) => request.includes('/close'))).toHaveLength(1)
    expect(relay.connectionsCount).toBe(2)
  })

  test('after its end changes nothing', async () => {
    const rig = await controlRig()
    rig.exports.put('vda')
    const relay = await relayTo(rig)
    const abort = new AbortController()
    await relay.client.status('vda', { signal: abort.signal })
    abort.abort()
    const next = relay.client.status('vda')
    abort.abort()
    await expect(next).resolves.toMatchObject({ name: 'vda' })
    expect(relay.connectionsCount).toBe(1)
  })
})

describe('the end', () => {
  test('of a program does not wait for a connection that it keeps', async () => {
    const { url, exports } = await controlRig()
    exports.put('vda')
    const client = JSON.stringify(join(PROJECT, 'dist/client/index.js'))
    const program = `import { connect } from ${client}; console.log((await connect('${url}').status('vda')).name)`
    const ended = await runProgram(process.execPath, ['--input-type=module', '-e', program], { timeoutMs: 20_000 })
    expect(ended).toMatchObject({ status: 0, stdout: 'vda\n' })
  })

  test('of a control server does not wait for idle connections', async () => {
    const { client, exports, server } = await controlRig()
    exports.put('vda')
    await Promise.all([client.status('vda'), client.status('vda')])
    const beganMs = performance.now()
    await server.close()
    expect(performance.now() - beganMs).toBeLessThan(0.9 * LIMITS.controlCloseTimeoutMs)
  })

  test('of a daemon is no end for its client: one that is gone is missed at once, one that is back is reached', async () => {
    const scratch = scratchOfTest()
    const path = makeImage(scratch, 1 << 20)
    const first = await startDaemon(scratch, { exports: [{ name: 'vda', path }], standby: true, tcp: false })
    const client = connect(first.controlUrl)
    await client.status('vda')
    await first.stop()
    await expect(client.status('vda')).rejects.toMatchObject({ name: 'ControlUnreachable', code: 'ENOENT' })
    const second = await startAgain(scratch, first)
    await expect(client.standby('vda')).resolves.toMatchObject({ state: 'standby' })
    await second.kill()
    const killedMs = performance.now()
    await expect(client.status('vda')).rejects.toMatchObject({ name: 'ControlUnreachable', code: 'ECONNREFUSED' })
    expect(performance.now() - killedMs).toBeLessThan(10_000)
    await startAgain(scratch, first)
    await expect(client.status('vda')).resolves.toMatchObject({ name: 'vda' })
  })
})

/** What becomes of an answer. */
type Lost = 'none' | 'all' | 'rest'

interface Relay {
  readonly url: string
  readonly client: ControlClient
  /** The first line of each request that was passed on. */
  readonly requests: string[]
  readonly connectionsCount: number
  readonly openCount: number
  lose: (() => Lost | Promise<Lost>) | null
  /** Ends every connection, with nothing said. */
  cut(): void
  /** Whoever connects from now on is refused. */
  end(): Promise<void>
}

/** A way to the server on which connections are counted, and can be lost. */
async function relayTo(rig: ControlRig): Promise<Relay> {
  const open = new Set<() => void>()
  let connectionsCount = 0
  const server = createServer((near) => {
    connectionsCount += 1
    const far = createConnection(rig.path)
    const cut = (): void => {
      near.destroy()
      far.destroy()
      open.delete(cut)
    }
    open.add(cut)
    near.on('data', (request: Buffer) => {
      relay.requests.push(request.toString('latin1').split('\r\n')[0] ?? '')
      far.write(request)
    })
    far.on('data', (answer: Buffer) => void passAnswer(relay, near, answer, cut))
    for (const end of [near, far]) end.on('error', cut).on('close', cut)
  })
  const path = join(temporaryDirectory('relay'), 'relay.sock')
  await new Promise<void>((resolve) => server.listen(path, resolve))
  const relay: Relay = {
    url: `unix:${path}`,
    client: connect(`unix:${path}`),
    requests: [],
    get connectionsCount() {
      return connectionsCount
    },
    get openCount() {
      return open.size
    },
    lose: null,
    cut: () => {
      for (const cut of [...open]) cut()
    },
    end: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
      }),
  }
  scratchOfTest().defer('relay', () => {
    relay.cut()
    server.close()
  })
  return relay
}

async function passAnswer(relay: Relay, near: Socket, answer: Buffer, cut: () => void): Promise<void> {
  switch ((await relay.lose?.()) ?? 'none') {
    case 'none':
      near.write(answer)
      return
    case 'rest':
      near.write(answer.subarray(0, 12), cut)
      return
    case 'all':
      cut()
  }
}

/** A relay over which a connection is kept, and every further answer is lost. */
async function keptAndLosing(lose: () => Lost | Promise<Lost>): Promise<Relay> {
  const rig = await controlRig()
  rig.exports.put('vda')
  const relay = await relayTo(rig)
  await relay.client.status('vda')
  relay.requests.length = 0
  relay.lose = lose
  return relay
}
