/**
 * Durations and sizes as people write them: `500ms`, `30s`, `64MiB`. A number without a unit is not a duration, because
 * half of its readers would be wrong about the unit; a size without one is bytes. Pure.
 */

const DURATION_UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }
const SIZE_UNITS: Readonly<Record<string, number>> = { B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3, TiB: 1024 ** 4 }

/** Whole milliseconds, or undefined where the text is no duration or too long to be counted exactly. */
export function parseDurationMs(text: string): number | undefined {
  return parseQuantity(text, DURATION_UNITS)
}

/** Bytes, or undefined where the text is no size or too large to be counted exactly. */
export function parseSizeBytes(text: string): number | undefined {
  return parseQuantity(/^\d+$/.test(text) ? `${text}B` : text, SIZE_UNITS)
}

export function formatDurationMs(durationMs: number): string {
  if (durationMs < 1000) return `${Math.round(durationMs)}ms`
  if (durationMs < 60_000) return `${(durationMs / 1000).toFixed(1)}s`
  const totalSeconds = Math.round(durationMs / 1000)
  const hours = Math.floor(totalSeconds / 3600)
  const minutes = Math.floor((totalSeconds % 3600) / 60)
  const seconds = totalSeconds % 60
  return hours > 0 ? `${hours}h${minutes}m` : `${minutes}m${seconds}s`
}

export function formatSizeBytes(sizeBytes: number): string {
  let shown = sizeBytes
  for (const unit of ['B', 'KiB', 'MiB', 'GiB']) {
    if (shown < 1024) return `${Number.isInteger(shown) ? shown : shown.toFixed(1)} ${unit}`
    shown /= 1024
  }
  return `${Number.isInteger(shown) ? shown : shown.toFixed(1)} TiB`
}

function parseQuantity(text: string, units: Readonly<Record<string, number>>): number | undefined {
  const match = /^(\d+(?:\.\d+)?) ?([A-Za-z]+)$/.exec(text)
  const unit = match?.[2]
  if (match === null || unit === undefined || !Object.hasOwn(units, unit)) return undefined
  const value = Math.round(Number(match[1]) * (units[unit] ?? 0))
  return Number.isSafeInteger(value) ? value : undefined
}
