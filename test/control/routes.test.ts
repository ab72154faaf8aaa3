/**
 * The control API from outside: a real server on a real Unix socket, spoken to by hand and by the real client.
 */

import { describe, expect, test } from 'vitest'
import { Compile } from 'typebox/compile'
import { Refusal, REFUSALS } from '../../src/foundation/refusal.ts'
import type { RefusalCode } from '../../src/foundation/refusal.ts'
import * as schemas from '../../src/control/schemas.ts'
import { ControlProblem, ControlUnreachable } from '../../src/client/index.ts'
import { controlRig } from '../support/control-rig.ts'
import { receiptOf, statusOf } from '../support/fake-exports.ts'

const json = { 'content-type': 'application/json' }

describe('verbs', () => {
  test('list and status are as the schemas say', async () => {
    const { exports, client, raw } = await controlRig()
    exports.put('vda', { lastReceipt: receiptOf(statusOf('vda')) })
    exports.put('vdb', { state: 'standby', holder: null })
    expect((await client.list()).map(({ name }) => name)).toEqual(['vda', 'vdb'])
    const answer = await raw({ path: '/v1/exports' })
    expect([...Compile(schemas.ExportList).Errors(answer.json)]).toEqual([])
    expect(await client.status('vda')).toEqual(await exports.status('vda'))
  })

  test('requests are listed up to a limit', async () => {
    const { exports, client, raw } = await controlRig()
    exports.put('vda')
    exports.setOutstanding('vda', { submitted: 3 })
    const all = await client.requests('vda')
    expect(all).toMatchObject({ truncated: false })
    expect(all.requests).toHaveLength(3)
    expect(await client.requests('vda', { limit: 2 })).toMatchObject({ truncated: true })
    expect((await raw({ path: '/v1/exports/vda/requests?limit=0' })).status).toBe(400)
    expect((await raw({ path: '/v1/exports/vda/requests?limit=x' })).status).toBe(400)
  })

  test('add fills in the defaults, says where, and remove takes it away', async () => {
    const { exports, client, raw } = await controlRig()
    const body = JSON.stringify({ name: 'a:b@c+d', path: '/srv/x.raw' })
    const added = await raw({ method: 'POST', path: '/v1/exports', headers: json, body })
    expect(added.status).toBe(201)
    expect(added.headers['location']).toBe('/v1/exports/a%3Ab%40c%2Bd')
    expect(exports.calls[0]?.options).toEqual({
      name: 'a:b@c+d',
      path: '/srv/x.raw',
      description: '',
      imageId: null,
      readOnly: false,
      durability: 'sync',
      clients: 'exclusive',
      standby: false,
      standbyReads: 'serve',
      clusterLocks: false,
      cache: 'direct',
    })
    expect((await client.status('a:b@c+d')).path).toBe('/srv/x.raw')
    await client.remove('a:b@c+d')
    expect(await client.list()).toEqual([])
  })

  test('close answers 200 with the receipt, and the same again', async () => {
    const { exports, client } = await controlRig()
    exports.put('vda')
    const first = await client.close('vda')
    expect(first).toEqual({ done: true, receipt: receiptOf(statusOf('vda')) })
    expect(await client.close('vda')).toEqual(first)
    expect(exports.calls.find(({ verb }) => verb === 'close')?.options).toEqual({
      early: false,
      unsubmitted: 'drain',
      requests: 'park',
      disconnect: false,
      reason: 'handover',
      nonce: null,
      wait: true,
      timeoutMs: null,
    })
  })

  test('close with wait false answers 202 with the status', async () => {
    const { exports, client, raw } = await controlRig()
    exports.put('vda')
    exports.setOutstanding('vda', { submitted: 4, bytes: 16_384 })
    expect(await client.close('vda', { wait: false })).toMatchObject({ done: false, status: { state: 'closing' } })
    const again = await raw({ method: 'POST', path: '/v1/exports/vda/close', headers: json, body: '{"wait":false}' })
    expect(again.status).toBe(202)
    exports.finishClose('vda')
    expect(await client.close('vda')).toMatchObject({ done: true })
  })

  test('close that runs out of time is a 504 with what is outstanding', async () => {
    const { exports, client } = await controlRig()
    exports.put('vda')
    exports.setOutstanding('vda', { submitted: 4, bytes: 16_384, oldestMs: 700 })
    const failure = await client.close('vda', { timeoutMs: 5 }).catch((error: unknown) => error)
    expect(failure).toBeInstanceOf(ControlProblem)
    expect(failure).toMatchObject({
      status: 504,
      code: 'still-draining',
      document: { state: 'closing', outstanding: { submitted: 4, bytes: 16_384, oldestMs: 700 }, orphans: 0 },
    })
  })

  test('a waiting close gets its receipt when the disk is done', async () => {
    const { exports, client } = await controlRig()
    exports.put('vda')
    exports.setOutstanding('vda', { submitted: 1 })
    const waiting = client.close('vda')
    for await (const event of client.events()) {
      if (event.kind === 'ready' && exports.calls.some(({ verb }) => verb === 'close')) break
      if (event.kind === 'transition' && event.to === 'closing') break
    }
    const receipt = exports.finishClose('vda', { generation: 9 })
    expect(await waiting).toEqual({ done: true, receipt })
  })

  test('open, clear, standby and fence pass on what they are given', async () => {
    const { exports, client } = await controlRig()
    exports.put('vda', { state: 'closed', generation: 3 })
    const receipt = receiptOf(statusOf('vda'))
    expect(await client.open('vda', { receipt, timeoutMs: 30_000 })).toMatchObject({ state: 'open', generation: 4 })
    expect(await client.clear('vda', { takeover: true })).toMatchObject({ holds: [] })
    expect(await client.fence('vda')).toMatchObject({ state: 'fenced' })
    expect(await client.standby('vda')).toMatchObject({ state: 'standby', nonce: 'nonce-1' })
    expect(exports.calls.map(({ verb, options }) => [verb, options])).toEqual([
      ['open', { receipt, takeover: false, timeoutMs: 30_000 }],
      ['clear', { receipt: null, takeover: true }],
      ['fence', undefined],
      ['standby', undefined],
    ])
  })

  test('a body may be absent, with or without saying that it is JSON', async () => {
    const { exports, raw } = await controlRig()
    exports.put('vda')
    const plain = await raw({ method: 'POST', path: '/v1/exports/vda/fence' })
    expect(plain.status).toBe(200)
    const empty = await raw({ method: 'POST', path: '/v1/exports/vda/standby', headers: json })
    expect(empty.status).toBe(200)
  })
})

describe('every error is a problem document', () => {
  test.each(Object.keys(REFUSALS) as RefusalCode[])('%s', async (code) => {
    const { exports, raw } = await controlRig()
    exports.put('vda')
    exports.refuseNext('status', new Refusal(code, 'what exactly', { more: 7, code: 'forged', status: 1 }))
    const answer = await raw({ path: '/v1/exports/vda' })
    expect(answer.headers['content-type']).toBe('application/problem+json; charset=utf-8')
    expect(answer.status).toBe(REFUSALS[code].status)
    expect(answer.json).toEqual({
      type: `urn:interlockd:problem:${code}`,
      title: REFUSALS[code].title,
      status: REFUSALS[code].status,
      detail: 'what exactly',
      instance: '/v1/exports/vda',
      code,
      more: 7,
    })
    expect([...Compile(schemas.ProblemDocument).Errors(answer.json)]).toEqual([])
  })

  test.each<[string, RefusalCode, Parameters<Awaited<ReturnType<typeof controlRig>>['raw']>[0], RegExp]>([
    ['no such address', 'not-found', { path: '/v2/exports' }, /GET \/v2\/exports/],
    [
      'another method',
      'method-not-allowed',
      { method: 'PUT', path: '/v1/exports/vda' },
      /takes DELETE, GET, HEAD, not PUT/,
    ],
    ['no such export', 'export-unknown', { path: '/v1/exports/nope' }, /'nope'/],
    ['a name that cannot be', 'bad-request', { path: '/v1/exports/a%2Fb' }, /name/],
    ['a broken escape', 'bad-request', { path: '/v1/exports/%zz' }, /%zz/],
    ['a name without end', 'not-found', { path: `/v1/exports/${'a'.repeat(2000)}` }, /./],
    ['no JSON', 'bad-request', { method: 'POST', path: '/v1/exports/vda/close', headers: json, body: '{' }, /JSON/],
    [
      'another media type',
      'media-type',
      { method: 'POST', path: '/v1/exports/vda/close', headers: { 'content-type': 'text/plain' }, body: '{}' },
      /application\/json/,
    ],
    [
      'an unknown member',
      'bad-request',
      { method: 'POST', path: '/v1/exports/vda/close', headers: json, body: '{"erly":true}' },
      /erly/,
    ],
    [
      'a wrong value',
      'bad-request',
      { method: 'POST', path: '/v1/exports/vda/close', headers: json, body: '{"unsubmitted":"drop"}' },
      /\/unsubmitted.*abort/,
    ],
    ['a list', 'bad-request', { method: 'POST', path: '/v1/exports/vda/close', headers: json, body: '[]' }, /object/],
    [
      'a poisoned prototype',
      'bad-request',
      { method: 'POST', path: '/v1/exports/vda/close', headers: json, body: '{"__proto__":{}}' },
      /./,
    ],
    [
      'a relative path',
      'bad-request',
      { method: 'POST', path: '/v1/exports', headers: json, body: '{"name":"a","path":"b"}' },
      /\/path/,
    ],
    [
      'a receipt that is none',
      'bad-request',
      { method: 'POST', path: '/v1/exports/vda/open', headers: json, body: '{"receipt":{"version":1}}' },
      /receipt/,
    ],
    [
      'a page in a browser',
      'cross-site',
      { method: 'POST', path: '/v1/exports/vda/fence', headers: { origin: 'https://example.org' } },
      /Origin/,
    ],
    [
      'too much',
      'body-too-large',
      { method: 'POST', path: '/v1/exports', headers: json, body: ' '.repeat(5_000_000) },
      /large/,
    ],
  ])('%s', async (_what, code, exchange, detail) => {
    const { exports, raw } = await controlRig()
    exports.put('vda')
    const answer = await raw(exchange)
    expect(answer.json).toMatchObject({ code, status: REFUSALS[code].status, instance: exchange.path })
    expect(answer.status).toBe(REFUSALS[code].status)
    expect(JSON.stringify(answer.json)).toMatch(detail)
    expect(answer.headers['content-type']).toMatch(/^application\/problem\+json/)
    expect(exports.calls.filter(({ verb }) => verb !== 'status')).toEqual([])
  })

  test('405 names the methods that are taken', async () => {
    const { raw } = await controlRig()
    expect((await raw({ method: 'DELETE', path: '/v1/exports' })).headers['allow']).toBe('GET, HEAD, POST')
  })

  test('a bug keeps its details to the log', async () => {
    const { exports, raw, logged } = await controlRig()
    exports.put('vda')
    exports.refuseNext('status', new Error('secret of the house'))
    const answer = await raw({ path: '/v1/exports/vda' })
    expect(answer.json).toMatchObject({ code: 'internal', status: 500 })
    expect(answer.text).not.toMatch(/secret/)
    expect(JSON.stringify(logged)).toMatch(/secret of the house/)
  })

  test('bytes that are no HTTP', async () => {
    const { path } = await controlRig()
    const { createConnection } = await import('node:net')
    const text = await new Promise<string>((resolve, reject) => {
      let received = ''
      const socket = createConnection(path, () => socket.write('NBDMAGIC\r\n\r\n'))
      socket.on('data', (piece: Buffer) => (received += piece.toString()))
      socket.on('close', () => resolve(received))
      socket.on('error', reject)
    })
    expect(text).toMatch(/^HTTP\/1.1 400 Bad Request\r\n/)
    expect(text).toMatch(/"code":"bad-request"/)
  })
})

describe('idempotency', () => {
  const key = { ...json, 'idempotency-key': 'k1' }
  const fence = { method: 'POST', path: '/v1/exports/vda/fence', headers: key }

  test('the same key and request give the same answer, and run once', async () => {
    const { exports, raw } = await controlRig()
    exports.put('vda')
    const first = await raw(fence)
    exports.put('vda', { state: 'open' })
    const second = await raw(fence)
    expect(second.text).toBe(first.text)
    expect(second.status).toBe(200)
    expect(exports.calls.filter(({ verb }) => verb === 'fence')).toHaveLength(1)
  })

  test('the same key with another request is refused', async () => {
    const { exports, raw } = await controlRig()
    exports.put('vda')
    await raw(fence)
    const other = await raw({ ...fence, path: '/v1/exports/vda/standby' })
    expect(other.json).toMatchObject({ code: 'idempotency-conflict', status: 409 })
    const otherBody = await raw({
      method: 'POST',
      path: '/v1/exports/vda/close',
      headers: { ...json, 'idempotency-key': 'k2' },
    })
    expect(otherBody.status).toBe(409)
    const body = '{"early":true}'
    const changed = await raw({
      method: 'POST',
      path: '/v1/exports/vda/close',
      headers: { ...json, 'idempotency-key': 'k2' },
      body,
    })
    expect(changed.json).toMatchObject({ code: 'idempotency-conflict' })
  })

  test('two at once are one', async () => {
    const { exports, client } = await controlRig()
    exports.put('vda')
    exports.setOutstanding('vda', { submitted: 1 })
    const both = [1, 2].map(() => client.close('vda', {}, { idempotencyKey: 'same' }))
    await expect.poll(() => exports.calls.filter(({ verb }) => verb === 'close').length).toBe(1)
    const receipt = exports.finishClose('vda')
    expect(await Promise.all(both)).toEqual([
      { done: true, receipt },
      { done: true, receipt },
    ])
    expect(exports.calls.filter(({ verb }) => verb === 'close')).toHaveLength(1)
  })

  test('a refusal is remembered, an answer that is no outcome is not', async () => {
    const { exports, client } = await controlRig()
    exports.put('vda', { state: 'fenced' })
    const refused = (): Promise<unknown> =>
      client.close('vda', {}, { idempotencyKey: 'a' }).catch((error: unknown) => error)
    expect(await refused()).toMatchObject({ code: 'wrong-state', instance: '/v1/exports/vda/close' })
    exports.put('vda', { state: 'open' })
    expect(await refused()).toMatchObject({ code: 'wrong-state' })
    exports.setOutstanding('vda', { submitted: 1 })
    const slow = { timeoutMs: 5 }
    const late = await client.close('vda', slow, { idempotencyKey: 'b' }).catch((error: unknown) => error)
    expect(late).toMatchObject({ code: 'still-draining' })
    exports.finishClose('vda')
    expect(await client.close('vda', slow, { idempotencyKey: 'b' })).toMatchObject({ done: true })
  })

  test('a key has a length', async () => {
    const { exports, raw } = await controlRig()
    exports.put('vda')
    expect((await raw({ ...fence, headers: { 'idempotency-key': 'k'.repeat(257) } })).status).toBe(400)
  })
})

describe('health', () => {
  test('livez always, readyz when it serves', async () => {
    const { raw, facts, client } = await controlRig()
    expect((await raw({ path: '/livez' })).json).toEqual({ alive: true })
    expect((await raw({ path: '/readyz' })).json).toEqual({ ready: true })
    facts.ready = 'two exports are still opening'
    expect((await raw({ path: '/readyz' })).json).toMatchObject({ code: 'not-ready', detail: facts.ready, status: 503 })
    await expect(client.ready()).rejects.toBeInstanceOf(ControlProblem)
    expect((await raw({ path: '/livez' })).status).toBe(200)
  })

  test('metrics', async () => {
    const { raw, exports } = await controlRig()
    exports.put('vda')
    exports.setOutstanding('vda', { submitted: 2, bytes: 8192, oldestMs: 1500 })
    exports.emit('vda', { kind: 'fault', detail: 'fdatasync failed' })
    exports.emit('vda', { kind: 'receipt', receipt: receiptOf(statusOf('vda')) })
    const answer = await raw({ path: '/metrics' })
    expect(answer.headers['content-type']).toMatch(/^text\/plain/)
    const lines = answer.text.split('\n')
    expect(lines).toEqual(
      expect.arrayContaining([
        'interlockd_info{version="1.2.3"} 1',
        'interlockd_ready 1',
        'interlockd_negotiating_connections 2',
        'interlockd_arena_used_bytes{worker="0"} 10',
        'interlockd_worker_turns_total{worker="0"} 7',
        'interlockd_export_state{export="vda",state="open"} 1',
        'interlockd_export_state{export="vda",state="closed"} 0',
        'interlockd_export_generation{export="vda"} 3',
        'interlockd_outstanding_requests{export="vda",phase="submitted"} 2',
        'interlockd_oldest_request_seconds{export="vda"} 1.5',
        'interlockd_requests_total{export="vda",command="write"} 20',
        'interlockd_bytes_total{export="vda",direction="write"} 81920',
        'interlockd_faults_total{export="vda"} 1',
        'interlockd_closes_total{export="vda",reason="handover",cleared_by="drain"} 1',
        'interlockd_close_duration_seconds_count{step="total"} 1',
        'interlockd_export_engine_info{export="vda",kind="file",reason="the test says so"} 1',
      ]),
    )
    await exports.remove('vda').catch(() => exports.put('vda', { state: 'closed' }))
    await exports.remove('vda')
    expect((await raw({ path: '/metrics' })).text).not.toMatch(/interlockd_export_state{export="vda"/)
  })
})

describe('the client', () => {
  test('tells an unreachable daemon from a refusal', async () => {
    const { server, client } = await controlRig()
    await server.close()
    const failure = await client.list().catch((error: unknown) => error)
    expect(failure).toBeInstanceOf(ControlUnreachable)
    expect(failure).toMatchObject({ code: 'ENOENT' })
  })

  test('stops waiting when it is told to', async () => {
    const { exports, client } = await controlRig()
    exports.put('vda')
    exports.setOutstanding('vda', { submitted: 1 })
    const abort = new AbortController()
    const waiting = client.close('vda', {}, { signal: abort.signal })
    await expect.poll(() => exports.calls.length).toBe(1)
    abort.abort(new Error('enough'))
    await expect(waiting).rejects.toThrow('enough')
    expect(await client.status('vda')).toMatchObject({ state: 'closing' })
  })
})

test('closing the server ends what waits, and gives its subscriptions back', async () => {
  const { exports, server, client } = await controlRig()
  exports.put('vda')
  exports.setOutstanding('vda', { submitted: 1 })
  const waiting = client.close('vda').catch((error: unknown) => error)
  await expect.poll(() => exports.calls.length).toBe(1)
  expect(exports.subscribers).toBe(2)
  await server.close()
  expect(await waiting).toBeInstanceOf(ControlUnreachable)
  expect(exports.subscribers).toBe(0)
})
