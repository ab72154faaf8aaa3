/**
 * The routes by which the two ends of a handover are compared: which image and which record a daemon sees, in which
 * version. One reads; the other has the record written anew first, so that a copy of it made earlier gives itself away.
 */

import { Type } from 'typebox'
import type { ExportVerbs } from '../exports/verbs.ts'
import { responses } from './route-kit.ts'
import type { ControlApp } from './route-kit.ts'
import { CloseReasonName, ExportParams, HolderName, NoBody, nullable } from './schemas.ts'

const count = Type.Integer({ minimum: 0 })

const RecordSummary = Type.Object({
  sequence: count,
  generation: count,
  state: Type.Enum(['opening', 'open', 'closing', 'closed', 'fenced']),
  closeReason: nullable(CloseReasonName),
  holder: Type.Object({ ...HolderName.properties, name: Type.String() }),
  heldHere: Type.Boolean({ description: 'The holder is the host that answers.' }),
  draining: Type.Array(count, { description: 'Generations that were handed over early and may still write.' }),
  takeoverBy: nullable(Type.String()),
  receiptNonce: nullable(Type.String()),
  fingerprint: Type.String({ description: 'The same at two daemons that have read this record in the same home.' }),
})

export const OwnershipReport = Type.Object(
  {
    export: Type.String(),
    declaredId: nullable(Type.String()),
    image: nullable(
      Type.Object({
        realPath: Type.String(),
        kind: Type.Enum(['file', 'block']),
        device: Type.String(),
        inode: count,
        wwid: nullable(Type.String()),
        sizeBytes: count,
      }),
    ),
    home: Type.Object({
      kind: Type.Enum(['directory', 'etcd', 'none']),
      shared: Type.Boolean(),
      place: Type.String(),
    }),
    formats: Type.Object({ record: count, receipt: count }),
    record: nullable(RecordSummary),
    unreadable: nullable(Type.String()),
  },
  { description: 'The image and the record as this daemon sees them.' },
)

const Answer = Type.Object(
  { version: Type.String({ description: "The daemon's." }), ...OwnershipReport.properties },
  { description: 'The image and the record as this daemon sees them.' },
)

export function ownershipRoutes(app: ControlApp, verbs: ExportVerbs, version: string): void {
  const tags = ['exports']
  const params = ExportParams
  const response = responses({ 200: Answer }, 'export-unknown', 'record-io')
  app.get(
    '/v1/exports/:name/ownership',
    { schema: { tags, summary: 'Which image and which record this daemon sees, now', params, response } },
    async (request) => ({ version, ...(await verbs.ownership(request.params.name)) }),
  )
  app.post(
    '/v1/exports/:name/renew',
    {
      schema: {
        tags,
        summary: 'The same, after the record was written anew where it is ours and open',
        params,
        body: NoBody,
        response,
      },
    },
    async (request) => ({ version, ...(await verbs.renew(request.params.name)) }),
  )
}
