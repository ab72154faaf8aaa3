/**
 * The event stream from end to end: a real server, a real client, connections that break, readers that do not read.
 */

import { createConnection } from 'node:net'
import { createServer, request } from 'node:http'
import type { IncomingMessage } from 'node:http'
import { describe, expect, test } from 'vitest'
import { ControlProblem, ControlUnreachable } from '../../src/client/index.ts'
import type { ControlClient, EventOptions, StreamEvent } from '../../src/client/index.ts'
import { EventStreams } from '../../src/control/event-streams.ts'
import { controlRig } from '../support/control-rig.ts'
import type { ControlRig } from '../support/control-rig.ts'
import { eventually } from '../support/eventually.ts'
import { FakeExports } from '../support/fake-exports.ts'
import { scratchOfTest, temporaryDirectory } from '../support/temporary-directory.ts'

/** Collects events until told to stop; `until` waits for one that matches. */
class Collected {
  readonly events: StreamEvent[] = []
  readonly ended: Promise<unknown>
  readonly #abort = new AbortController()

  constructor(client: ControlClient, options: EventOptions = {}) {
    scratchOfTest().defer('event stream', () => {
      this.stop()
    })
    this.ended = this.#run(client, options).catch((error: unknown) => error)
  }

  stop(): void {
    this.#abort.abort()
  }

  count(kind: StreamEvent['kind']): number {
    return this.events.filter((event) => event.kind === kind).length
  }

  async until(kind: StreamEvent['kind'], count = 1): Promise<void> {
    await eventually(`${count} of ${kind}`, () => this.count(kind) >= count)
  }

  async #run(client: ControlClient, options: EventOptions): Promise<void> {
    for await (const event of client.events({ signal: this.#abort.signal, ...options })) this.events.push(event)
  }
}

function fault(rig: ControlRig, name: string, detail: string): void {
  rig.exports.emit(name, { kind: 'fault', detail })
}

const faults = (collected: Collected): string[] =>
  collected.events.flatMap((event) => (event.kind === 'fault' ? [event.detail] : []))

describe('events', () => {
  test('come in order, of all exports or of one', async () => {
    const rig = await controlRig()
    const all = new Collected(rig.client)
    const one = new Collected(rig.client, { export: 'vdb' })
    await Promise.all([all.until('ready'), one.until('ready')])
    fault(rig, 'vda', '1')
    fault(rig, 'vdb', '2')
    fault(rig, 'vda', '3\nid: forged\n\ndata: {}')
    fault(rig, 'vdb', '4')
    await Promise.all([all.until('fault', 4), one.until('fault', 2)])
    expect(faults(all)).toEqual(['1', '2', '3\nid: forged\n\ndata: {}', '4'])
    expect(faults(one)).toEqual(['2', '4'])
    all.stop()
    expect(await all.ended).toBeUndefined()
  })

  test('go on after a lost connection, without a gap and without doubles', async () => {
    const rig = await controlRig()
    const { client, cut } = await throughRelay(rig)
    const collected = new Collected(client)
    await collected.until('ready')
    fault(rig, 'vda', '1')
    await collected.until('fault', 1)
    cut()
    fault(rig, 'vda', '2')
    fault(rig, 'vda', '3')
    await collected.until('ready', 2)
    fault(rig, 'vda', '4')
    await collected.until('fault', 4)
    expect(faults(collected)).toEqual(['1', '2', '3', '4'])
    expect(collected.count('missed')).toBe(0)
  })

  test('say so when some are gone for good', async () => {
    const rig = await controlRig()
    const { client, cut } = await throughRelay(rig)
    const collected = new Collected(client)
    await collected.until('ready')
    cut()
    for (let number = 0; number < 1500; number++) fault(rig, 'vda', String(number))
    await collected.until('ready', 2)
    expect(collected.count('missed')).toBe(1)
    expect(faults(collected).at(-1)).toBe('1499')
  })

  test('an id of another run has missed everything', async () => {
    const { raw, exports, path } = await controlRig()
    exports.emit('vda', { kind: 'added' })
    const text = await firstBytes(path, { 'last-event-id': 'run0-17' }, 'ready')
    expect(text).toMatch(/event: missed\n[^]*event: added\n[^]*event: ready\n/)
    expect((await raw({ path: '/v1/events?export=a%2Fb' })).status).toBe(400)
  })

  test('a first connection that fails is an error; without reconnect so is a later one', async () => {
    const rig = await controlRig()
    const { client, cut } = await throughRelay(rig)
    const once = new Collected(client, { reconnect: false })
    await once.until('ready')
    cut()
    expect(await once.ended).toBeInstanceOf(ControlUnreachable)
    await rig.server.close()
    expect(await new Collected(rig.client).ended).toBeInstanceOf(ControlUnreachable)
  })

  test('a reader who goes away is forgotten', async () => {
    const rig = await controlRig()
    const collected = new Collected(rig.client)
    await collected.until('ready')
    collected.stop()
    await collected.ended
    await eventually('no streams', async () => {
      const { text } = await rig.raw({ path: '/metrics' })
      return text.includes('interlockd_event_streams 0')
    })
  })
})

describe('bounds of the event streams', () => {
  const bounds = { kept: 10, keptBytes: 100_000, streams: 1, backlogBytes: 200_000, heartbeatMs: 20 }

  test('a reader that does not read is cut, and others are not', async () => {
    const { exports, port, streams } = await streamServer({ ...bounds, streams: 2 })
    const slow = createConnection(port, '127.0.0.1')
    slow.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n')
    slow.on('error', () => undefined)
    slow.pause()
    const reader = await readerOf(port)
    await eventually('two streams', () => streams.count === 2)
    const detail = 'x'.repeat(50_000)
    await eventually('the slow one is cut', () => {
      exports.emit('vda', { kind: 'fault', detail })
      return streams.count === 1
    })
    await eventually('the other still reads', () => reader.text().includes(detail))
    slow.destroy()
  })

  test('heartbeats come, and there are only so many streams', async () => {
    const { port, streams } = await streamServer(bounds)
    const reader = await readerOf(port)
    await eventually('a heartbeat', () => reader.text().includes(': heartbeat'))
    expect(() => {
      streams.checkRoom()
    }).toThrow(/1 event streams already/)
  })

  test('the server says busy', async () => {
    const rig = await controlRig()
    const many = Array.from({ length: 256 }, () => new Collected(rig.client))
    await Promise.all(many.map((collected) => collected.until('ready')))
    const error = await new Collected(rig.client).ended
    expect(error).toBeInstanceOf(ControlProblem)
    expect(error).toMatchObject({ code: 'busy', status: 503 })
  })
})

/** Event streams behind a bare HTTP server, to give them bounds that a test can reach. */
async function streamServer(bounds: ConstructorParameters<typeof EventStreams>[2]) {
  const exports = new FakeExports()
  const streams = new EventStreams(exports, 'run1', bounds)
  const server = createServer((_incoming, response) => {
    streams.attach(response, { exportName: undefined, lastEventId: undefined })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  scratchOfTest().defer('stream server', () => {
    streams.close()
    server.closeAllConnections()
    server.close()
  })
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  return { exports, streams, port: address.port }
}

async function readerOf(port: number): Promise<{ text(): string }> {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    request({ port, host: '127.0.0.1', agent: false }, resolve).on('error', reject).end()
  })
  let text = ''
  response.on('data', (piece: Buffer) => (text += piece.toString()))
  response.on('error', () => undefined)
  return { text: () => text }
}

/** A client whose connections pass through a relay that the test can cut. */
async function throughRelay(rig: ControlRig): Promise<{ client: ControlClient; cut: () => void }> {
  const { createServer: createRelay } = await import('node:net')
  const { connect } = await import('../../src/client/index.ts')
  const open = new Set<() => void>()
  const relay = createRelay((near) => {
    const far = createConnection(rig.path)
    const end = (): void => {
      near.destroy()
      far.destroy()
      open.delete(end)
    }
    open.add(end)
    near.on('error', end).on('close', end).pipe(far)
    far.on('error', end).on('close', end).pipe(near)
  })
  const path = `${temporaryDirectory('relay')}/r.sock`
  await new Promise<void>((resolve) => relay.listen(path, resolve))
  const cut = (): void => {
    for (const end of [...open]) end()
  }
  scratchOfTest().defer('relay', () => {
    cut()
    relay.close()
  })
  return { client: connect(`unix:${path}`), cut }
}

function firstBytes(socketPath: string, headers: Record<string, string>, until: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const outgoing = request({ socketPath, path: '/v1/events', headers, agent: false }, (response) => {
      let text = ''
      response.on('data', (piece: Buffer) => {
        text += piece.toString()
        if (!text.includes(`event: ${until}\ndata: {}\n\n`)) return
        outgoing.destroy()
        resolve(text)
      })
      response.on('error', () => undefined)
    })
    outgoing.on('error', reject).end()
  })
}
