/**
 * The shapes of the API: what comes in is checked against them, what goes out is described by them. The types of the
 * exports' face are the original; `test/control/schemas.test.ts` and the compiler see to it that both say the same.
 */

import { Type } from 'typebox'
import type { Static } from 'typebox'
import { EXPORT_NAME_PATTERN, LIMITS } from '../config/limits.ts'
import { CLEARED_BY, CLOSE_REASONS, DURABILITIES } from '../interlock/receipt.ts'

const count = Type.Integer({ minimum: 0 })
const strict = { additionalProperties: false } as const

export const ExportName = Type.String({ pattern: EXPORT_NAME_PATTERN, maxLength: LIMITS.exportNameBytesMax })
export const ExportParams = Type.Object({ name: ExportName })

export const nullable = <T extends Parameters<typeof Type.Union>[0][number]>(schema: T) =>
  Type.Union([schema, Type.Null()])
const timestamp = Type.String({ description: 'ISO 8601, UTC.' })
const durability = Type.Enum([...DURABILITIES])
const cache = Type.Enum(['direct', 'buffered'])
const clientsMode = Type.Enum(['exclusive', 'shared'])
export const CloseReasonName = Type.Enum([...CLOSE_REASONS])
export const ExportState = Type.Enum(['standby', 'opening', 'open', 'closing', 'closed', 'fenced'])
const timeoutMs = nullable(Type.Integer({ minimum: 0, maximum: LIMITS.durationMsMax }))

const allowUnsafe = Type.Array(Type.String({ minLength: 1, maxLength: 64 }), {
  maxItems: 32,
  description: 'Codes of the preflight that are accepted.',
})

export const Range = Type.Object({ offset: count, length: count })
export const HolderName = Type.Object({ host: Type.String(), boot: Type.String(), instance: Type.String() })

const FenceReport = Type.Object(
  { command: Type.String(), plug: Type.String(), exitStatus: count, output: Type.String() },
  { description: 'How the holder before was fenced, where the generation began by a takeover.' },
)

/** Not strict: a receipt may come from a later version, which has more to say. */
export const Receipt = Type.Object(
  {
    version: Type.Enum([1]),
    export: Type.String(),
    image: Type.Object({ path: Type.String(), size: count, device: Type.String(), inode: count }),
    generation: count,
    holder: HolderName,
    state: Type.Enum(['closed']),
    closedAt: timestamp,
    durability,
    drained: Type.Object({ requests: count, writes: count, bytes: count }),
    aborted: Type.Array(
      Type.Object({ client: count, cookie: Type.String(), command: Type.String(), offset: count, length: count }),
    ),
    indeterminate: Type.Array(Range),
    reason: CloseReasonName,
    nonce: Type.String(),
    clearedBy: Type.Enum([...CLEARED_BY]),
    unsafe: Type.Optional(Type.Array(Type.String())),
    fence: Type.Optional(FenceReport),
    elapsedMs: Type.Object({
      drain: Type.Number({ minimum: 0 }),
      sync: Type.Number({ minimum: 0 }),
      record: Type.Number({ minimum: 0 }),
      total: Type.Number({ minimum: 0 }),
    }),
  },
  { description: 'Proof, in numbers, of what a close drained and how it was made durable.' },
)

export const ExportDefinitionBody = Type.Object(
  {
    name: ExportName,
    path: Type.String({ minLength: 1, maxLength: 4095, pattern: '^/[^\\u0000]*$', description: 'An absolute path.' }),
    description: Type.Optional(Type.String({ maxLength: LIMITS.descriptionBytesMax })),
    imageId: Type.Optional(nullable(ExportName)),
    readOnly: Type.Optional(Type.Boolean()),
    durability: Type.Optional(durability),
    clients: Type.Optional(clientsMode),
    standby: Type.Optional(Type.Boolean()),
    standbyReads: Type.Optional(Type.Enum(['serve', 'park'])),
    clusterLocks: Type.Optional(Type.Boolean()),
    cache: Type.Optional(cache),
    allowUnsafe: Type.Optional(allowUnsafe),
  },
  strict,
)

export const CloseBody = Type.Object(
  {
    early: Type.Optional(
      Type.Boolean({ description: 'Answer before the slow writes are done, with their ranges held.' }),
    ),
    unsubmitted: Type.Optional(Type.Enum(['drain', 'abort'])),
    requests: Type.Optional(Type.Enum(['park', 'refuse'])),
    disconnect: Type.Optional(Type.Boolean()),
    reason: Type.Optional(CloseReasonName),
    nonce: Type.Optional(nullable(Type.String({ minLength: 1, maxLength: 128, pattern: '^[\\x21-\\x7e]+$' }))),
    wait: Type.Optional(Type.Boolean({ description: 'False: answer 202 as soon as the close has begun.' })),
    timeoutMs: Type.Optional(timeoutMs),
  },
  { ...strict, description: '`timeoutMs` bounds the waiting, not the closing.' },
)

export const OpenBody = Type.Object(
  {
    receipt: Type.Optional(nullable(Receipt)),
    takeover: Type.Optional(Type.Boolean()),
    timeoutMs: Type.Optional(timeoutMs),
    awaitClose: Type.Optional(
      Type.Boolean({
        description:
          'Waits up to `timeoutMs` for the close of a holder that has not begun to close, which is refused at once else: ' +
          'for an `open` that is asked for together with the `close`.',
      }),
    ),
    allowUnsafe: Type.Optional(allowUnsafe),
  },
  strict,
)

export const ClearBody = Type.Object(
  { receipt: Type.Optional(nullable(Receipt)), takeover: Type.Optional(Type.Boolean()) },
  strict,
)

export const AdoptBody = Type.Object(
  { copy: Type.Optional(Type.Boolean({ description: 'The image is a copy, and its record came along.' })) },
  strict,
)

export const AddBody = Type.Object(
  {
    ...ExportDefinitionBody.properties,
    adopt: Type.Optional(Type.Boolean({ description: 'Accept the image as it is found, as by the verb `adopt`.' })),
  },
  strict,
)

export const NoBody = Type.Object({}, strict)

export const PhaseCounts = Type.Object({
  parsed: count,
  admitted: count,
  held: count,
  submitted: count,
  cleared: Type.Integer({ minimum: 0, description: 'Cleared and not yet answered.' }),
  bytes: count,
  oldestMs: Type.Number({ minimum: 0 }),
})

const ClientStatus = Type.Object({
  id: count,
  peer: Type.String(),
  since: timestamp,
  writer: Type.Boolean(),
  outstanding: PhaseCounts,
})

export const ExportStatus = Type.Object(
  {
    name: Type.String(),
    path: Type.String(),
    description: Type.String(),
    size: count,
    blockSize: count,
    state: ExportState,
    xenbusState: Type.Enum([2, 3, 4, 5, 6]),
    stateReason: nullable(Type.String()),
    generation: count,
    readOnly: Type.Boolean(),
    durability,
    cache,
    clientsMode,
    unsafe: Type.Array(Type.String()),
    engine: Type.Object({ kind: Type.Enum(['io_uring', 'file']), reason: Type.String() }),
    worker: count,
    holder: nullable(HolderName),
    clients: Type.Array(ClientStatus),
    outstanding: PhaseCounts,
    orphans: count,
    holds: Type.Array(Type.Object({ offset: count, length: count, generation: count, waiting: count })),
    heldForMs: Type.Number({ minimum: 0 }),
    clearedBy: nullable(Type.Enum(['drain', 'lock', 'reboot', 'fence'])),
    indeterminate: Type.Array(Range),
    totals: Type.Object({
      reads: count,
      writes: count,
      flushes: count,
      trims: count,
      bytesRead: count,
      bytesWritten: count,
      errors: count,
    }),
    nonce: nullable(Type.String()),
    lastReceipt: nullable(Receipt),
  },
  { description: 'An export as it is now.' },
)

const stackVerdict = Type.Enum(['safe', 'condition', 'unsafe'])

export const StackReport = Type.Object(
  {
    path: Type.String(),
    realPath: nullable(Type.String()),
    verdict: stackVerdict,
    codes: Type.Array(Type.String()),
    layers: Type.Array(
      Type.Object({
        depth: count,
        kind: Type.Enum(['file', 'fileSystem', 'device', 'unknown']),
        words: Type.String(),
        verdict: stackVerdict,
        findings: Type.Array(
          Type.Object({
            code: Type.String(),
            severity: Type.Enum(['note', 'condition', 'unsafe']),
            detail: Type.String(),
            mend: Type.String(),
          }),
        ),
        facts: Type.Record(Type.String(), Type.Unknown()),
      }),
    ),
    waitingFor: nullable(Type.String()),
    at: timestamp,
  },
  { description: 'What is under an image, and whether it may move.' },
)

export const CheckBody = Type.Object(
  {
    path: Type.String({ minLength: 1, maxLength: 4095, pattern: '^/[^\\u0000]*$', description: 'An absolute path.' }),
    timeoutMs: Type.Optional(timeoutMs),
  },
  strict,
)

export const ExportList = Type.Object(
  { exports: Type.Array(ExportStatus) },
  { description: 'In the order in which they were added.' },
)

export const RequestList = Type.Object(
  {
    requests: Type.Array(
      Type.Object({
        clientId: count,
        cookie: Type.String(),
        command: Type.String(),
        offset: count,
        length: count,
        phase: Type.Enum(['parsed', 'admitted', 'held', 'submitted', 'cleared']),
        ageMs: Type.Number({ minimum: 0 }),
        orphan: Type.Boolean(),
      }),
    ),
    truncated: Type.Boolean(),
  },
  { description: 'The requests, and whether there are more.' },
)

export const RequestsQuery = Type.Object(
  { limit: Type.Optional(Type.Integer({ minimum: 1, maximum: LIMITS.requestsListedMax })) },
  strict,
)

export const EventsQuery = Type.Object({ export: Type.Optional(ExportName) }, strict)

export const EventsHeaders = Type.Object({ 'last-event-id': Type.Optional(Type.String({ maxLength: 256 })) })

const textOf = (mediaType: string, description: string) => ({
  description,
  content: { [mediaType]: { schema: Type.String() } },
})
export const EventStream = textOf('text/event-stream', 'An endless stream.')
export const Text = textOf('text/plain', 'One line per value.')
export const Alive = Type.Object({ alive: Type.Boolean() }, { description: 'It answers.' })
export const Ready = Type.Object({ ready: Type.Boolean() }, { description: 'It serves.' })

export const ChangingHeaders = Type.Object({
  'idempotency-key': Type.Optional(
    Type.String({
      minLength: 1,
      maxLength: LIMITS.idempotencyKeyBytesMax,
      description: 'The same request with the same key gets the same answer; another request is refused.',
    }),
  ),
})

export const ProblemDocument = Type.Object(
  {
    type: Type.String(),
    title: Type.String(),
    status: Type.Integer(),
    detail: Type.String(),
    instance: Type.String(),
    code: Type.String({ description: 'Stable; programs decide by it.' }),
  },
  { description: 'RFC 9457. Some codes add members, such as `outstanding` with `still-draining`.' },
)

export type CloseBody = Static<typeof CloseBody>
export type OpenBody = Static<typeof OpenBody>
export type ClearBody = Static<typeof ClearBody>
export type ExportDefinitionBody = Static<typeof ExportDefinitionBody>
