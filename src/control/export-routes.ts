/**
 * The routes of the exports: what comes in is checked against its schema, filled up with defaults, and handed to the
 * verbs; what they answer goes out unchanged. No decision about an export is taken here.
 */

import { Refusal } from '../foundation/refusal.ts'
import type { RefusalCode } from '../foundation/refusal.ts'
import type { CloseOptions, ExportDefinition, ExportVerbs, OpenOptions } from '../exports/verbs.ts'
import type { Receipt } from '../interlock/receipt.ts'
import { LIMITS } from '../config/limits.ts'
import { jsonAnswer, noAnswer, responses } from './route-kit.ts'
import type { ControlApp, Repeatable } from './route-kit.ts'
import * as schemas from './schemas.ts'

const EXPORTS = '/v1/exports'
const EXPORT = '/v1/exports/:name'
const TAGS = ['exports']

/** What can keep an image from being opened; `add` opens too. */
const IMAGE_REFUSALS = [
  'image-missing',
  'image-kind',
  'image-permission',
  'image-size',
  'image-links',
  'image-no-direct',
  'image-changed',
  'stack-unsafe',
  'cluster-locks',
  'image-io',
  'record-io',
  'shutting-down',
  'idempotency-conflict',
] as const satisfies readonly RefusalCode[]

const OPEN_REFUSALS = [
  'export-unknown',
  'wrong-state',
  'held-by-other',
  'receipt-required',
  'receipt-mismatch',
  'record-unreadable',
  'takeover-failed',
  'image-in-use',
  'still-draining',
  ...IMAGE_REFUSALS,
] as const satisfies readonly RefusalCode[]

const CLEAR_REFUSALS = [
  'export-unknown',
  'wrong-state',
  'receipt-required',
  'receipt-mismatch',
  'takeover-failed',
  'record-io',
  'idempotency-conflict',
] as const satisfies readonly RefusalCode[]

export function exportRoutes(app: ControlApp, verbs: ExportVerbs, repeatable: Repeatable): void {
  readingRoutes(app, verbs)
  collectionRoutes(app, verbs, repeatable)
  closeRoute(app, verbs, repeatable)
  openingRoutes(app, verbs, repeatable)
  adoptRoute(app, verbs, repeatable)
}

function readingRoutes(app: ControlApp, verbs: ExportVerbs): void {
  app.get(
    EXPORTS,
    { schema: { tags: TAGS, summary: 'All exports', response: responses({ 200: schemas.ExportList }) } },
    async () => ({ exports: await verbs.list() }),
  )
  app.get(
    EXPORT,
    {
      schema: {
        tags: TAGS,
        summary: 'One export',
        params: schemas.ExportParams,
        response: responses({ 200: schemas.ExportStatus }, 'export-unknown'),
      },
    },
    async ({ params }) => verbs.status(params.name),
  )
  app.get(
    `${EXPORT}/requests`,
    {
      schema: {
        tags: TAGS,
        summary: 'Each request that is not answered yet',
        params: schemas.ExportParams,
        querystring: schemas.RequestsQuery,
        response: responses({ 200: schemas.RequestList }, 'export-unknown'),
      },
    },
    async ({ params, query }) => verbs.requests(params.name, query.limit ?? LIMITS.requestsListedMax),
  )
  stackRoutes(app, verbs)
}

/** Both only look, and answer within a second: with everything, or with what they wait for. */
function stackRoutes(app: ControlApp, verbs: ExportVerbs): void {
  const refusals = ['image-missing', 'image-kind', 'image-permission', 'image-io'] as const
  app.get(
    `${EXPORT}/stack`,
    {
      schema: {
        tags: TAGS,
        summary: 'What is under the image, as it was at the last open or standby',
        params: schemas.ExportParams,
        response: responses({ 200: schemas.StackReport }, 'export-unknown', ...refusals),
      },
    },
    async ({ params }) => verbs.stack(params.name),
  )
  app.post(
    '/v1/check',
    {
      schema: {
        tags: TAGS,
        summary: 'What is under any image, and whether it may move',
        description: 'Nothing is written. What has not answered within `timeoutMs` (900 ms) is named in `waitingFor`.',
        body: schemas.CheckBody,
        response: responses({ 200: schemas.StackReport }, ...refusals),
      },
    },
    async ({ body }) => verbs.check(body.path, body.timeoutMs ?? null),
  )
}

function collectionRoutes(app: ControlApp, verbs: ExportVerbs, repeatable: Repeatable): void {
  app.post(
    EXPORTS,
    {
      schema: {
        tags: TAGS,
        summary: 'Add an export',
        description: 'It opens by itself if its record allows that, else it waits in standby and says why.',
        headers: schemas.ChangingHeaders,
        body: schemas.AddBody,
        response: responses({ 201: schemas.ExportStatus }, 'export-exists', 'image-exported', ...IMAGE_REFUSALS),
      },
    },
    async (request, reply) =>
      repeatable.answer(request, reply, async () => {
        const adopt = request.body.adopt === true ? { copy: false } : null
        const status = await verbs.add(definitionOf(request.body), adopt)
        return jsonAnswer(201, status, { location: `${EXPORTS}/${encodeURIComponent(status.name)}` })
      }),
  )
  app.delete(
    EXPORT,
    {
      schema: {
        tags: TAGS,
        summary: 'Remove an export that is not open',
        headers: schemas.ChangingHeaders,
        params: schemas.ExportParams,
        response: responses(
          { 204: { type: 'null', description: 'Removed.' } },
          'export-unknown',
          'wrong-state',
          'idempotency-conflict',
        ),
      },
    },
    async (request, reply) =>
      repeatable.answer(request, reply, async () => {
        await verbs.remove(request.params.name)
        return noAnswer
      }),
  )
}

function closeRoute(app: ControlApp, verbs: ExportVerbs, repeatable: Repeatable): void {
  app.post(
    `${EXPORT}/close`,
    {
      schema: {
        tags: TAGS,
        summary: 'Close an export: drained, durable, recorded',
        description:
          'Answers 200 with the receipt once nothing can reach the disk any more; 202 with the status when `wait` is ' +
          'false; 504 with what is outstanding when `timeoutMs` is over first: the export stays `closing`, ask again.',
        params: schemas.ExportParams,
        headers: schemas.ChangingHeaders,
        body: schemas.CloseBody,
        response: responses(
          { 200: schemas.Receipt, 202: schemas.ExportStatus },
          'export-unknown',
          'wrong-state',
          'export-fenced',
          'early-refused',
          'idempotency-conflict',
          'sync-failed',
          'still-draining',
        ),
      },
    },
    async (request, reply) =>
      repeatable.answer(request, reply, async () => {
        const outcome = await closeTellingWhatIsLeft(verbs, request.params.name, closeOptionsOf(request.body))
        return outcome.done ? jsonAnswer(200, outcome.receipt) : jsonAnswer(202, outcome.status)
      }),
  )
}

function openingRoutes(app: ControlApp, verbs: ExportVerbs, repeatable: Repeatable): void {
  const response = responses({ 200: schemas.ExportStatus }, 'export-unknown', 'wrong-state', 'idempotency-conflict')
  const openResponse = responses({ 200: schemas.ExportStatus }, ...OPEN_REFUSALS)
  const params = schemas.ExportParams
  const headers = schemas.ChangingHeaders
  app.post(
    `${EXPORT}/open`,
    {
      schema: {
        tags: TAGS,
        summary: 'Open an export for writing',
        params,
        headers,
        body: schemas.OpenBody,
        response: openResponse,
      },
    },
    async (request, reply) =>
      repeatable.answer(request, reply, async () => {
        const { timeoutMs, awaitClose, allowUnsafe } = request.body
        const options: OpenOptions = {
          ...proofOf(request.body),
          timeoutMs: timeoutMs ?? null,
          ...(awaitClose !== undefined && { awaitClose }),
          ...(allowUnsafe !== undefined && { allowUnsafe }),
        }
        return jsonAnswer(200, await verbs.open(request.params.name, options))
      }),
  )
  app.post(
    `${EXPORT}/clear`,
    {
      schema: {
        tags: TAGS,
        summary: "Drop a predecessor's holds, on proof",
        params,
        headers,
        body: schemas.ClearBody,
        response: responses({ 200: schemas.ExportStatus }, ...CLEAR_REFUSALS),
      },
    },
    async (request, reply) =>
      repeatable.answer(request, reply, async () =>
        jsonAnswer(200, await verbs.clear(request.params.name, proofOf(request.body))),
      ),
  )
  app.post(
    `${EXPORT}/standby`,
    { schema: { tags: TAGS, summary: 'Wait to be opened', params, headers, body: schemas.NoBody, response } },
    async (request, reply) =>
      repeatable.answer(request, reply, async () => jsonAnswer(200, await verbs.standby(request.params.name))),
  )
  app.post(
    `${EXPORT}/fence`,
    {
      schema: { tags: TAGS, summary: 'Refuse everything from now on', params, headers, body: schemas.NoBody, response },
    },
    async (request, reply) =>
      repeatable.answer(request, reply, async () => jsonAnswer(200, await verbs.fence(request.params.name))),
  )
}

function adoptRoute(app: ControlApp, verbs: ExportVerbs, repeatable: Repeatable): void {
  app.post(
    `${EXPORT}/adopt`,
    {
      schema: {
        tags: TAGS,
        summary: 'Accept an image as it is found: its hard links, or that it is not the recorded one',
        description: 'Opens nothing. Where the record has a holder, that one closes first, except with `copy`.',
        params: schemas.ExportParams,
        headers: schemas.ChangingHeaders,
        body: schemas.AdoptBody,
        response: responses(
          { 200: schemas.ExportStatus },
          'export-unknown',
          'wrong-state',
          'held-by-other',
          'record-unreadable',
          'image-exported',
          ...IMAGE_REFUSALS,
        ),
      },
    },
    async (request, reply) =>
      repeatable.answer(request, reply, async () =>
        jsonAnswer(200, await verbs.adopt(request.params.name, { copy: request.body.copy ?? false })),
      ),
  )
}

/** A close that ran out of time says what it waits for, whoever refused it. */
async function closeTellingWhatIsLeft(verbs: ExportVerbs, name: string, options: CloseOptions) {
  try {
    return await verbs.close(name, options)
  } catch (error) {
    if (!isRefusal(error, 'still-draining') || 'outstanding' in error.members) throw error
    const { state, outstanding, orphans } = await verbs.status(name)
    throw new Refusal(error.code, error.message, { state, outstanding, orphans, ...error.members })
  }
}

function isRefusal(error: unknown, code: RefusalCode): error is Refusal {
  return error instanceof Refusal && error.code === code
}

function closeOptionsOf(body: schemas.CloseBody): CloseOptions {
  return {
    early: body.early ?? false,
    unsubmitted: body.unsubmitted ?? 'drain',
    requests: body.requests ?? 'park',
    disconnect: body.disconnect ?? false,
    reason: body.reason ?? 'handover',
    nonce: body.nonce ?? null,
    wait: body.wait ?? true,
    timeoutMs: body.timeoutMs ?? null,
  }
}

function proofOf(body: schemas.ClearBody): { receipt: Receipt | null; takeover: boolean } {
  return { receipt: body.receipt ?? null, takeover: body.takeover ?? false }
}

function definitionOf(body: schemas.ExportDefinitionBody): ExportDefinition {
  return {
    name: body.name,
    path: body.path,
    description: body.description ?? '',
    imageId: body.imageId ?? null,
    readOnly: body.readOnly ?? false,
    durability: body.durability ?? 'sync',
    clients: body.clients ?? 'exclusive',
    standby: body.standby ?? false,
    standbyReads: body.standbyReads ?? 'serve',
    clusterLocks: body.clusterLocks ?? false,
    cache: body.cache ?? 'direct',
    ...(body.allowUnsafe !== undefined && { allowUnsafe: body.allowUnsafe }),
  }
}
