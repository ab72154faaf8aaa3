/**
 * A real control server on a Unix socket in a temporary directory, over fake exports, and a real client to it. Gone
 * after the running test.
 */

import { request } from 'node:http'
import { join } from 'node:path'
import { pino } from 'pino'
import type { DaemonFacts } from '../../src/control/daemon-facts.ts'
import { ControlServer } from '../../src/control/control-server.ts'
import { connect } from '../../src/client/index.ts'
import type { ControlClient } from '../../src/client/index.ts'
import { FakeExports } from './fake-exports.ts'
import { scratchOfTest } from './temporary-directory.ts'

export interface ControlRig {
  readonly exports: FakeExports
  readonly server: ControlServer
  readonly url: string
  readonly path: string
  readonly client: ControlClient
  /** What the log said, one object per line. */
  readonly logged: Record<string, unknown>[]
  readonly facts: { ready: string | null }
  raw(exchange: RawExchange): Promise<RawAnswer>
}

export interface RawExchange {
  readonly method?: string
  readonly path: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string
}

export interface RawAnswer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly text: string
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- a test looks into it as it likes
  readonly json: any
}

export async function controlRig(): Promise<ControlRig> {
  const scratch = scratchOfTest()
  const path = join(scratch.directory('control'), 'control.sock')
  const exports = new FakeExports()
  const logged: Record<string, unknown>[] = []
  const facts = { ready: null }
  const log = pino(
    { level: 'debug' },
    { write: (line: string) => logged.push(JSON.parse(line) as Record<string, unknown>) },
  )
  const server = new ControlServer({ verbs: exports, facts: factsOf(facts), log })
  scratch.defer('control server', () => server.close())
  await server.listen({ scheme: 'unix', path })
  const url = `unix:${path}`
  return {
    exports,
    server,
    url,
    path,
    client: connect(url),
    logged,
    facts,
    raw: (exchange) => rawExchange(path, exchange),
  }
}

export function factsOf(facts: { ready: string | null }): DaemonFacts {
  return {
    version: '1.2.3',
    instance: 'run1',
    notReady: () => facts.ready,
    negotiating: () => 2,
    recordsUnreachableMs: () => 0,
    workers: () => [{ worker: 0, alive: true, connections: 5, arenaBytes: 1000, arenaUsedBytes: 10, turns: 7 }],
  }
}

/** One request as it is, also a wrong one. */
export function rawExchange(
  socketPath: string,
  { method = 'GET', path, headers = {}, body }: RawExchange,
): Promise<RawAnswer> {
  return new Promise((resolve, reject) => {
    const outgoing = request({ socketPath, method, path, headers, agent: false }, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (piece: string) => (text += piece))
      response.on('error', reject)
      response.on('end', () => {
        const json: unknown =
          (response.headers['content-type'] ?? '').includes('json') && text !== '' ? JSON.parse(text) : undefined
        resolve({ status: response.statusCode ?? 0, headers: response.headers, text, json })
      })
    })
    outgoing.on('error', reject)
    outgoing.end(body)
  })
}
