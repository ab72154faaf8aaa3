/** Values that options and arguments of several verbs share, checked as they are parsed, with words for who mistyped. */

import { InvalidArgumentError, Option } from 'commander'
import { checkExportName, checkImageId } from '../config/check.ts'
import { parseDurationMs } from '../config/quantity.ts'

export function exportName(text: string): string {
  const checked = checkExportName(text)
  if (checked.ok) return checked.value
  throw new InvalidArgumentError(`It ${checked.problem}.`)
}

export function imageId(text: string): string {
  const checked = checkImageId(text)
  if (checked.ok) return checked.value
  throw new InvalidArgumentError(`It ${checked.problem}.`)
}

export function duration(text: string): number {
  const durationMs = parseDurationMs(text)
  if (durationMs !== undefined) return durationMs
  throw new InvalidArgumentError('It must be a duration such as "30s" or "500ms".')
}

export function allowUnsafe(): Option {
  return new Option('--allow-unsafe <code>', 'open although the preflight finds this; may be repeated').argParser(
    (code: string, before: readonly string[] | undefined) => [...(before ?? []), code],
  )
}
