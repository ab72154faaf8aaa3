/**
 * The schemas and the types of the exports' face say the same. Most of this test is done by the compiler: it fails to
 * build where they differ.
 */

import { expect, test } from 'vitest'
import { Compile } from 'typebox/compile'
import type { Static } from 'typebox'
import type { CloseOptions, EvacuationOptions, EvacuationReport } from '../../src/exports/verbs.ts'
import type { ExportDefinition, ExportStatus, OpenOptions, OwnershipReport } from '../../src/exports/verbs.ts'
import type { StackReport } from '../../src/exports/verbs.ts'
import type { Receipt } from '../../src/interlock/receipt.ts'
import type * as evacuation from '../../src/control/evacuation-schemas.ts'
import type * as ownership from '../../src/control/ownership-routes.ts'
import * as schemas from '../../src/control/schemas.ts'
import { receiptOf, statusOf } from '../support/fake-exports.ts'

type DeepReadonly<T> = T extends object ? { readonly [K in keyof T]: DeepReadonly<T[K]> } : T
type Same<A, B> = [A, B] extends [B, A]
  ? keyof A extends keyof B
    ? keyof B extends keyof A
      ? true
      : never
    : never
  : never
type Complete<T> = { readonly [K in keyof T]-?: Exclude<T[K], undefined> }

const sameShapes: readonly true[] = [
  true satisfies Same<DeepReadonly<Static<typeof schemas.Receipt>>, DeepReadonly<Receipt>>,
  true satisfies Same<DeepReadonly<Static<typeof schemas.ExportStatus>>, DeepReadonly<ExportStatus>>,
  true satisfies Same<DeepReadonly<Static<typeof schemas.StackReport>>, DeepReadonly<StackReport>>,
  true satisfies Same<DeepReadonly<Static<typeof ownership.OwnershipReport>>, DeepReadonly<OwnershipReport>>,
  true satisfies Same<DeepReadonly<Complete<schemas.CloseBody>>, DeepReadonly<CloseOptions>>,
  true satisfies Same<DeepReadonly<Complete<evacuation.EvacuationBody>>, DeepReadonly<EvacuationOptions>>,
  true satisfies Same<DeepReadonly<Static<typeof evacuation.EvacuationReport>>, DeepReadonly<EvacuationReport>>,
  true satisfies Same<DeepReadonly<Complete<schemas.OpenBody>>, DeepReadonly<Complete<OpenOptions>>>,
  true satisfies Same<DeepReadonly<Complete<schemas.ExportDefinitionBody>>, DeepReadonly<Complete<ExportDefinition>>>,
]

test('shapes are compared by the compiler', () => {
  expect(sameShapes).toHaveLength(9)
})

test('a receipt that lacks a member is none; one of a later version may say more', () => {
  const check = Compile(schemas.Receipt)
  const receipt = receiptOf(statusOf('vda'))
  expect(check.Check(receipt)).toBe(true)
  expect(check.Check({ ...receipt, surplus: 1 })).toBe(true)
  for (const member of Object.keys(receipt)) {
    expect(check.Check({ ...receipt, [member]: undefined })).toBe(false)
  }
  expect(check.Check({ ...receipt, generation: -1 })).toBe(false)
  expect(check.Check({ ...receipt, state: 'open' })).toBe(false)
})
