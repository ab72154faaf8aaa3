/**
 * The routes that only watch: the stream of events, whether the daemon lives and serves, and its metrics.
 */

import { Refusal } from '../foundation/refusal.ts'
import type { DaemonFacts } from './daemon-facts.ts'
import type { EventStreams } from './event-streams.ts'
import type { Metrics } from './metrics.ts'
import { responses } from './route-kit.ts'
import type { ControlApp } from './route-kit.ts'
import * as schemas from './schemas.ts'

const TAGS = ['observation']

export interface Observed {
  readonly facts: DaemonFacts
  readonly events: EventStreams
  readonly metrics: Metrics
}

export function observationRoutes(app: ControlApp, { facts, events, metrics }: Observed): void {
  eventsRoute(app, events)
  app.get(
    '/livez',
    {
      schema: { tags: TAGS, summary: 'Whether the control plane answers', response: responses({ 200: schemas.Alive }) },
    },
    (_request, reply) => reply.send({ alive: true }),
  )
  app.get(
    '/readyz',
    {
      schema: {
        tags: TAGS,
        summary: 'Whether the daemon serves',
        response: responses({ 200: schemas.Ready }, 'not-ready'),
      },
    },
    (_request, reply) => {
      const reason = facts.notReady()
      if (reason !== null) throw new Refusal('not-ready', reason)
      return reply.send({ ready: true })
    },
  )
  app.get(
    '/metrics',
    {
      schema: { tags: TAGS, summary: "Metrics in Prometheus' text format", response: responses({ 200: schemas.Text }) },
    },
    async (_request, reply) => {
      const text = await metrics.scrape(events.count)
      return reply.header('content-type', metrics.contentType).send(text)
    },
  )
}

function eventsRoute(app: ControlApp, events: EventStreams): void {
  app.get(
    '/v1/events',
    {
      schema: {
        tags: TAGS,
        summary: 'Events as they happen',
        description:
          'Server-sent events; the type of each is its `kind`. A reader that comes back with Last-Event-ID gets what ' +
          'it missed, or an event `missed` when that is not kept any more; `ready` says that the rest is live.',
        querystring: schemas.EventsQuery,
        headers: schemas.EventsHeaders,
        response: responses({ 200: schemas.EventStream }, 'busy'),
      },
    },
    async (request, reply) => {
      events.checkRoom()
      const { export: exportName } = request.query
      reply.hijack()
      events.attach(reply.raw, { exportName, lastEventId: request.headers['last-event-id'] })
    },
  )
}
