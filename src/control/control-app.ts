/**
 * The HTTP application of the control API: routes, checks, errors, description. It listens nowhere; the control server
 * gives it the requests of its sockets. Every error leaves as a problem document, also those that no route ever sees.
 */

import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import Fastify, { LogController } from 'fastify'
import type { FastifyBaseLogger, FastifyReply, FastifyRequest } from 'fastify'
import type { ExportVerbs } from '../exports/verbs.ts'
import { isLoopback } from '../foundation/endpoint.ts'
import { Refusal } from '../foundation/refusal.ts'
import { LIMITS } from '../config/limits.ts'
import type { DaemonFacts } from './daemon-facts.ts'
import type { EventStreams } from './event-streams.ts'
import { evacuationRoute } from './evacuation-route.ts'
import { exportRoutes } from './export-routes.ts'
import { IdempotencyMemory } from './idempotency.ts'
import type { Metrics } from './metrics.ts'
import { observationRoutes } from './observation-routes.ts'
import { describeApi, nameSchemas } from './openapi.ts'
import { ownershipRoutes } from './ownership-routes.ts'
import { PROBLEM_MEDIA_TYPE, problemOf, refusalOf } from './problem.ts'
import { Repeatable } from './route-kit.ts'
import type { ControlApp } from './route-kit.ts'
import { compileSchemaCheck } from './schema-check.ts'

export interface ControlParts {
  readonly verbs: ExportVerbs
  readonly facts: DaemonFacts
  readonly events: EventStreams
  readonly metrics: Metrics
  readonly log: FastifyBaseLogger
}

export async function buildControlApp(parts: ControlParts): Promise<ControlApp> {
  const app: ControlApp = Fastify({
    loggerInstance: parts.log,
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: LIMITS.controlBodyBytesMax,
    routerOptions: { maxParamLength: 1024 },
    frameworkErrors: (error, request, reply) => {
      sendProblem(error, request, reply)
    },
  }).withTypeProvider<TypeBoxTypeProvider>()
  app.setValidatorCompiler(compileSchemaCheck)
  // Answers are typed by the verbs and written as they are; the schemas of answers are only their description.
  app.setSerializerCompiler(() => (payload) => JSON.stringify(payload))
  app.setErrorHandler((error, request, reply) => {
    sendProblem(error, request, reply)
  })
  app.setNotFoundHandler((request, reply) => {
    sendProblem(new Refusal('not-found', `There is no ${request.method} ${request.url}.`), request, reply)
  })
  acceptEmptyBodies(app)
  app.addHook('onRequest', (request, _reply, done) => {
    refuseBrowsers(request)
    done()
  })
  app.addHook('onResponse', (request, reply, done) => {
    logRequest(request, reply)
    done()
  })
  const methods = collectMethods(app)
  declareRoutes(app, parts)
  app.get('/v1/openapi.json', { schema: { hide: true } }, () => describeRoutes(parts))
  refuseOtherMethods(app, methods)
  await app.ready()
  return app
}

function declareRoutes(app: ControlApp, parts: ControlParts): void {
  const repeatable = new Repeatable(new IdempotencyMemory())
  exportRoutes(app, parts.verbs, repeatable)
  evacuationRoute(app, parts.verbs, repeatable)
  ownershipRoutes(app, parts.verbs, parts.facts.version)
  observationRoutes(app, parts)
}

/** By the same routes in an application that serves nobody: few ask, and no start has to load what describes them. */
async function describeRoutes(parts: ControlParts): Promise<object> {
  const { default: swagger } = await import('@fastify/swagger')
  const app: ControlApp = Fastify({ loggerInstance: parts.log }).withTypeProvider<TypeBoxTypeProvider>()
  app.setValidatorCompiler(compileSchemaCheck)
  await app.register(swagger, describeApi(parts.facts.version))
  declareRoutes(app, parts)
  await app.ready()
  return nameSchemas(app.swagger())
}

/** Which methods each address takes, known once all routes are declared. */
function collectMethods(app: ControlApp): Map<string, Set<string>> {
  const methods = new Map<string, Set<string>>()
  app.addHook('onRoute', ({ url, method }) => {
    const known = methods.get(url) ?? new Set()
    for (const each of [method].flat()) known.add(each)
    methods.set(url, known)
  })
  return methods
}

/** A known address with a method that it does not take is a 405 that names those it takes, not a 404. */
function refuseOtherMethods(app: ControlApp, methods: ReadonlyMap<string, ReadonlySet<string>>): void {
  const all = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'] as const
  for (const [url, taken] of [...methods]) {
    const allow = [...taken].sort().join(', ')
    const method = all.filter((candidate) => !taken.has(candidate))
    app.route({
      url,
      method: [...method],
      schema: { hide: true },
      handler: (request, reply) => {
        void reply.header('allow', allow)
        throw new Refusal('method-not-allowed', `${request.url} takes ${allow}, not ${request.method}.`)
      },
    })
  }
}

/** The verbs' bodies have defaults for everything, so an absent body is an empty one. */
function acceptEmptyBodies(app: ControlApp): void {
  const parse = app.getDefaultJsonParser('error', 'error')
  app.removeContentTypeParser('text/plain')
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (request, body, done) => {
    if (body === '') done(null, {})
    else void parse(request, body.toString(), done)
  })
  app.addHook('preValidation', (request, _reply, done) => {
    request.body ??= {}
    done()
  })
}

/**
 * A web page must not be able to close an export through the browser of somebody who runs a daemon on loopback: pages
 * give themselves away by Origin, and a name that was made to resolve to loopback by Host.
 */
function refuseBrowsers(request: FastifyRequest): void {
  if (request.headers.origin !== undefined) throw new Refusal('cross-site', 'Requests with an Origin are not served.')
  // The peers of a Unix socket have no address, and no browser reaches one.
  if (request.socket.remoteAddress === undefined) return
  if (isLoopback({ scheme: 'tcp', host: request.hostname.replace(/^\[(.*)\]$/, '$1'), port: 0 })) return
  throw new Refusal('cross-site', `The host '${request.hostname}' is not an address of loopback.`)
}

function sendProblem(error: unknown, request: FastifyRequest, reply: FastifyReply): void {
  const { refusal, bug } = refusalOf(error)
  if (bug) request.log.error({ err: error, method: request.method, url: request.url }, 'a control request failed')
  const problem = problemOf(refusal, request.url)
  void reply.code(problem.status).header('content-type', PROBLEM_MEDIA_TYPE).send(JSON.stringify(problem))
}

function logRequest(request: FastifyRequest, reply: FastifyReply): void {
  const facts = {
    method: request.method,
    url: request.url,
    status: reply.statusCode,
    elapsedMs: Math.round(reply.elapsedTime),
  }
  const changes = request.method === 'POST' || request.method === 'DELETE'
  if (changes) request.log.info(facts, 'control request')
  else request.log.debug(facts, 'control request')
}
