/** A range of bytes of an export. `offset` and `length` are bytes, and `offset + length` is a safe integer. */
export interface Range {
  readonly offset: number
  readonly length: number
}

/** A range that a new write must wait for because a write of an earlier generation may still land in it. */
export interface Hold extends Range {
  readonly generation: number
}

/** Whether they have a byte in common. An empty range has no byte. */
export function overlaps(a: Range, b: Range): boolean {
  return Math.max(a.offset, b.offset) < Math.min(a.offset + a.length, b.offset + b.length)
}
