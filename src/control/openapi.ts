/**
 * The description of the API (OpenAPI 3.1), made from the routes and their schemas. The library writes every schema out
 * in full wherever it occurs; those that have a name here are put under it once, and referred to.
 */

import { isDeepStrictEqual } from 'node:util'
import type { FastifyDynamicSwaggerOptions } from '@fastify/swagger'
import * as evacuation from './evacuation-schemas.ts'
import * as schemas from './schemas.ts'

const NAMED = {
  Receipt: schemas.Receipt,
  ExportStatus: schemas.ExportStatus,
  ExportDefinition: schemas.ExportDefinitionBody,
  CloseOptions: schemas.CloseBody,
  OpenOptions: schemas.OpenBody,
  ClearOptions: schemas.ClearBody,
  EvacuationOptions: evacuation.EvacuationBody,
  EvacuationReport: evacuation.EvacuationReport,
  PhaseCounts: schemas.PhaseCounts,
  Range: schemas.Range,
  Problem: schemas.ProblemDocument,
} as const

export function describeApi(version: string): FastifyDynamicSwaggerOptions {
  return {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'interlockd control API',
        version,
        description:
          'Exports and their life: close with proof, open elsewhere. Errors are application/problem+json (RFC 9457).',
      },
      tags: [
        { name: 'exports', description: 'Exports and what can be done with them' },
        { name: 'observation', description: 'Events, health and metrics' },
      ],
    },
  }
}

/** The document with the named schemas as components. */
export function nameSchemas(document: object): object {
  const plain = asPlain(document) as { components?: { schemas?: object } }
  const components = Object.fromEntries(
    Object.entries(NAMED).map(([name, schema]) => [name, replaceInside(asPlain(schema), name)]),
  )
  return { ...(replaceNamed(plain) as object), components: { schemas: components } }
}

/** The component itself must not become a reference to itself. */
function replaceInside(schema: unknown, name: string): unknown {
  return mapMembers(schema, (member) => replaceNamed(member, name))
}

function replaceNamed(value: unknown, except?: string): unknown {
  for (const [name, schema] of Object.entries(NAMED)) {
    if (name !== except && isDeepStrictEqual(value, asPlain(schema))) return { $ref: `#/components/schemas/${name}` }
  }
  return mapMembers(value, (member) => replaceNamed(member, except))
}

function mapMembers(value: unknown, map: (member: unknown) => unknown): unknown {
  if (Array.isArray(value)) return value.map(map)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, map(member)]))
}

/** Without what JSON does not carry: the schema library marks its objects with hidden members. */
function asPlain(value: object): unknown {
  return JSON.parse(JSON.stringify(value))
}
