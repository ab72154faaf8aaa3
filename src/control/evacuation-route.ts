/**
 * The route that empties a daemon. A 200 means that every export is closed or handed over: whoever looks at nothing but
 * the status may let the other hosts start. Everything else is a problem document with the same report inside.
 */

import type { EvacuationOptions, EvacuationReport, ExportVerbs } from '../exports/verbs.ts'
import { Refusal } from '../foundation/refusal.ts'
import * as schemas from './evacuation-schemas.ts'
import { jsonAnswer, responses } from './route-kit.ts'
import type { ControlApp, Repeatable } from './route-kit.ts'
import { ChangingHeaders } from './schemas.ts'

const NAMED_MAX = 8

export function evacuationRoute(app: ControlApp, verbs: ExportVerbs, repeatable: Repeatable): void {
  app.post(
    '/v1/evacuate',
    {
      schema: {
        tags: ['exports'],
        summary: 'Close every export: with reason handover, all at once',
        description:
          'Answers 200 with the report once every export is closed (or, with `early`, handed over). Else the problem ' +
          'has the `report`: 504 when all that is missing is still draining as `timeoutMs` is over, 409 when an export ' +
          'cannot be closed. It can be asked for again: closed exports answer the receipt that they gave before.',
        headers: ChangingHeaders,
        body: schemas.EvacuationBody,
        response: responses(
          { 200: schemas.EvacuationReport },
          'idempotency-conflict',
          'evacuation-incomplete',
          'still-draining',
        ),
      },
    },
    async (request, reply) =>
      repeatable.answer(request, reply, async () => {
        const report = await verbs.evacuate(optionsOf(request.body))
        if (!report.complete) throw incomplete(report)
        return jsonAnswer(200, report)
      }),
  )
}

function incomplete(report: EvacuationReport): Refusal {
  const left = report.exports.filter(({ outcome }) => outcome === 'notClosed')
  const named = left.slice(0, NAMED_MAX).map((one) => `'${one.export}'`)
  const more = left.length > named.length ? ` and ${left.length - named.length} more` : ''
  const onlyDraining = left.every(({ problem }) => problem?.code === 'still-draining')
  const detail = `${left.length} of ${report.exports.length} exports are not closed: ${named.join(', ')}${more}`
  return new Refusal(onlyDraining ? 'still-draining' : 'evacuation-incomplete', detail, { report })
}

function optionsOf(body: schemas.EvacuationBody): EvacuationOptions {
  return {
    early: body.early ?? false,
    unsubmitted: body.unsubmitted ?? 'drain',
    requests: body.requests ?? 'park',
    parallel: body.parallel ?? null,
    timeoutMs: body.timeoutMs ?? null,
  }
}
