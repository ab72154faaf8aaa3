/** The shapes of an evacuation: what is asked, and the report. `test/control/schemas.test.ts` compares them with the types. */

import { Type } from 'typebox'
import type { Static } from 'typebox'
import { LIMITS } from '../config/limits.ts'
import type { RefusalCode } from '../foundation/refusal.ts'
import * as schemas from './schemas.ts'

const nullable = <T extends Parameters<typeof Type.Union>[0][number]>(schema: T) => Type.Union([schema, Type.Null()])
const count = Type.Integer({ minimum: 0 })
const sinceBeginning = nullable(
  Type.Number({ minimum: 0, description: 'Milliseconds since the evacuation began; null: not yet.' }),
)

export const EvacuationBody = Type.Object(
  {
    early: Type.Optional(
      Type.Boolean({ description: 'Hand over early what can be; the rest is closed in the ordinary way.' }),
    ),
    unsubmitted: Type.Optional(Type.Enum(['drain', 'abort'])),
    requests: Type.Optional(Type.Enum(['park', 'refuse'])),
    parallel: Type.Optional(
      nullable(
        Type.Integer({
          minimum: 1,
          maximum: LIMITS.exportsMax,
          description: 'Closes at once, at most; null is all of them.',
        }),
      ),
    ),
    timeoutMs: Type.Optional(nullable(Type.Integer({ minimum: 0, maximum: LIMITS.durationMsMax }))),
  },
  { additionalProperties: false, description: '`timeoutMs` bounds the waiting, not the closing.' },
)

export const EvacuatedExport = Type.Object({
  export: Type.String(),
  outcome: Type.Enum(['closed', 'handedOver', 'idle', 'notClosed']),
  state: schemas.ExportState,
  generation: count,
  beganMs: sinceBeginning,
  endedMs: sinceBeginning,
  receipt: nullable(schemas.Receipt),
  problem: nullable(
    Type.Object(
      { code: Type.Unsafe<RefusalCode>(Type.String()), detail: Type.String(), outstanding: schemas.PhaseCounts },
      { description: 'Why it is not closed.' },
    ),
  ),
})

export const EvacuationReport = Type.Object(
  {
    complete: Type.Boolean({ description: 'Every export is closed, handed over, or idle.' }),
    quiet: Type.Boolean({ description: 'Complete, and nothing of this daemon can reach a disk any more.' }),
    startedAt: Type.String({ description: 'ISO 8601, UTC.' }),
    elapsedMs: Type.Number({ minimum: 0 }),
    exports: Type.Array(EvacuatedExport),
  },
  { description: 'What became of each export.' },
)

export type EvacuationBody = Static<typeof EvacuationBody>
