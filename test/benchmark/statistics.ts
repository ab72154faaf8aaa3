/** Medians and percentiles of small samples. Pure arithmetic; an empty sample has neither. */

/** Of an even number, the mean of the middle two. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  const upper = sorted[middle]
  if (upper === undefined) throw new Error('nothing has no median')
  const lower = sorted[middle - 1]
  return sorted.length % 2 === 1 || lower === undefined ? upper : (lower + upper) / 2
}

/** The smallest value that at least `percent` of the sample do not exceed. */
export function percentile(values: readonly number[], percent: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  const index = Math.min(sorted.length - 1, Math.max(0, Math.ceil((percent / 100) * sorted.length) - 1))
  const value = sorted[index]
  if (value === undefined) throw new Error('nothing has no percentile')
  return value
}

/** The median of the quotients, pair by pair: what was measured in the same round is compared. */
export function medianRatio(ours: readonly number[], theirs: readonly number[]): number {
  const ratios = ours.flatMap((value, index) => {
    const other = theirs[index]
    return other === undefined || other === 0 ? [] : [value / other]
  })
  return median(ratios)
}
