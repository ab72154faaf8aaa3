/** Control servers on TCP: loopback for programs, closed to web pages; and several sockets on one server. */

import { once } from 'node:events'
import { request } from 'node:http'
import { createConnection } from 'node:net'
import { expect, test } from 'vitest'
import { pino } from 'pino'
import { connect } from '../../src/client/index.ts'
import { LIMITS } from '../../src/config/limits.ts'
import { ControlServer } from '../../src/control/control-server.ts'
import { formatEndpoint } from '../../src/foundation/endpoint.ts'
import type { Endpoint } from '../../src/foundation/endpoint.ts'
import { controlRig, factsOf } from '../support/control-rig.ts'
import { eventually } from '../support/eventually.ts'
import { FakeExports } from '../support/fake-exports.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'

interface TcpRig {
  readonly exports: FakeExports
  readonly server: ControlServer
  readonly endpoint: Extract<Endpoint, { scheme: 'tcp' }>
}

async function tcpRig(host: string): Promise<TcpRig> {
  const exports = new FakeExports()
  exports.put('vda')
  const server = new ControlServer({ verbs: exports, facts: factsOf({ ready: null }), log: pino({ level: 'silent' }) })
  scratchOfTest().defer('control server', () => server.close())
  const endpoint = await server.listen({ scheme: 'tcp', host, port: 0 })
  if (endpoint.scheme !== 'tcp') throw new Error('not TCP')
  return { exports, server, endpoint }
}

function statusWithHost({ endpoint }: TcpRig, host: string): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const headers = { host }
    const { port, host: address } = endpoint
    request({ host: address, port, path: '/v1/exports', headers, agent: false }, (response) => {
      response.resume().on('end', () => resolve(response.statusCode))
    })
      .on('error', reject)
      .end()
  })
}

test.each(['127.0.0.1', '::1', 'localhost'])('the client reaches it on %s', async (host) => {
  const { endpoint } = await tcpRig(host)
  expect(endpoint.port).toBeGreaterThan(0)
  const [status] = await connect(formatEndpoint(endpoint)).list()
  expect(status?.name).toBe('vda')
})

test.each([
  ['127.0.0.1:80', 200],
  ['localhost', 200],
  ['[::1]:9', 200],
  ['disk.example.org', 403],
  ['127.0.0.1.example.org:80', 403],
])('a request for host %s is answered %i', async (host, status) => {
  const rig = await tcpRig('127.0.0.1')
  expect(await statusWithHost(rig, host)).toBe(status)
  expect(rig.exports.calls).toHaveLength(status === 200 ? 1 : 0)
})

test('an address that is taken is refused by name', async () => {
  const { endpoint, server } = await tcpRig('127.0.0.1')
  await expect(server.listen(endpoint)).rejects.toMatchObject({
    code: 'listen-failed',
    message: expect.stringContaining(formatEndpoint(endpoint)),
  })
})

test('several sockets serve the same exports, and all of them end', async () => {
  const { server, path, client, exports } = await controlRig()
  exports.put('vdz')
  const second = await server.listen({ scheme: 'unix', path: `${path}2` })
  const other = connect(formatEndpoint(second))
  expect(await other.list()).toEqual(await client.list())
  await server.close()
  await expect(other.list()).rejects.toMatchObject({ code: 'ENOENT' })
  await expect(client.list()).rejects.toMatchObject({ code: 'ENOENT' })
})

test('where there are many connections, one ends with its next answer', async () => {
  const { path, raw } = await controlRig()
  const keepAlive = { path: '/livez', headers: { connection: 'keep-alive' } }
  expect((await raw(keepAlive)).headers['connection']).toBe('keep-alive')
  const others = Array.from({ length: LIMITS.controlConnectionsKeptMax }, () => createConnection(path))
  await Promise.all(others.map((other) => once(other, 'connect')))
  await eventually('an answer that is the last one', async () => {
    return (await raw(keepAlive)).headers['connection'] === 'close'
  })
  for (const other of others) other.destroy()
  await eventually('an answer that is not', async () => {
    return (await raw(keepAlive)).headers['connection'] === 'keep-alive'
  })
})

test('whoever keeps a connection without asking anything does not keep the server from closing', async () => {
  const { server, path } = await controlRig()
  const idle = createConnection(path)
  await new Promise<void>((resolve) => idle.once('connect', resolve))
  idle.on('error', () => undefined)
  const ended = new Promise<void>((resolve) => idle.once('close', () => resolve()))
  idle.resume()
  await server.close()
  await ended
})
