/**
 * The description of the control API as a running server gives it, laid out as docs/openapi.json is. The script that
 * writes the file and the test that compares it both come here, so that they cannot disagree about the layout.
 */

import { pino } from 'pino'
import { format, resolveConfig } from 'prettier'
import { programVersion } from '../../src/cli/program-version.ts'
import { buildControlApp } from '../../src/control/control-app.ts'
import { EventStreams } from '../../src/control/event-streams.ts'
import { Metrics } from '../../src/control/metrics.ts'
import { FakeExports } from './fake-exports.ts'

export const API_DESCRIPTION_FILE = new URL('../../docs/openapi.json', import.meta.url)

export async function apiDescription(): Promise<string> {
  const verbs = new FakeExports()
  const facts = {
    version: programVersion(),
    instance: 'run',
    notReady: () => null,
    negotiating: () => 0,
    recordsUnreachableMs: () => 0,
    workers: () => [],
  }
  const events = new EventStreams(verbs, facts.instance)
  const metrics = new Metrics(verbs, facts)
  const app = await buildControlApp({ verbs, facts, events, metrics, log: pino({ level: 'silent' }) })
  const answer = await app.inject({ url: '/v1/openapi.json', headers: { host: 'localhost' } })
  events.close()
  metrics.close()
  await app.close()
  const options = await resolveConfig(API_DESCRIPTION_FILE)
  return format(answer.body, { ...options, parser: 'json' })
}
