/**
 * The log that nbdkit's log filter writes, read as events: what the disk was asked, when it began and when it ended, by
 * a clock and a program that are not ours. An operation without an end is still in the disk (`endMs` is infinite).
 * The log counts in microseconds of UTC (the program runs with TZ=UTC); times here are milliseconds since the epoch,
 * with a fraction, so they compare with Date.now() of the same machine.
 */

import { readFileSync } from 'node:fs'

export type WitnessKind = 'Read' | 'Write' | 'Zero' | 'Trim' | 'Flush' | 'Cache' | 'Extents'

export interface WitnessEvent {
  readonly kind: WitnessKind
  readonly connection: number
  readonly id: number
  /** Bytes; 0 for a flush. */
  readonly offset: number
  readonly length: number
  readonly fua: boolean
  readonly startMs: number
  /** Infinity while it has not ended. */
  endMs: number
  /** False once it ended with an error, and while it has not ended. */
  succeeded: boolean
}

const LINE =
  /^(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)\.(\d{6}) connection=(\d+) (\.\.\.)?(Read|Write|Zero|Trim|Flush|Cache|Extents) id=(\d+)(.*)$/u

export function parseWitnessLog(text: string): WitnessEvent[] {
  const events: WitnessEvent[] = []
  const open = new Map<string, WitnessEvent>()
  for (const line of text.split('\n')) {
    const match = LINE.exec(line)
    if (match === null) continue
    const [, day, second, fraction, connection, leaving, kind, id, rest = ''] = match
    const timeMs = Date.parse(`${day}T${second}Z`) + Number(fraction) / 1_000
    const key = `${connection}/${id}`
    if (leaving !== undefined) {
      const event = open.get(key)
      if (event === undefined) throw new Error(`the witness log ends what it never began: ${line}`)
      event.endMs = timeMs
      event.succeeded = /return=0\b/u.test(rest)
      open.delete(key)
      continue
    }
    const event: WitnessEvent = {
      kind: kind as WitnessKind,
      connection: Number(connection),
      id: Number(id),
      offset: member(rest, 'offset'),
      length: member(rest, 'count'),
      fua: member(rest, 'fua') === 1,
      startMs: timeMs,
      endMs: Number.POSITIVE_INFINITY,
      succeeded: false,
    }
    events.push(event)
    open.set(key, event)
  }
  return events
}

function member(text: string, name: string): number {
  const match = new RegExp(`\\b${name}=(0x[0-9a-f]+|\\d+)`, 'u').exec(text)
  return match?.[1] === undefined ? 0 : Number(match[1])
}

/** A witness log, and the questions that tests ask of it. */
export class WitnessLog {
  readonly path: string

  constructor(path: string) {
    this.path = path
  }

  events(): WitnessEvent[] {
    return parseWitnessLog(readFileSync(this.path, 'utf8'))
  }

  /** What changes bytes: writes, zeroes and trims, in the order in which the disk began them. */
  writes(): WitnessEvent[] {
    return this.events().filter(changesBytes)
  }

  flushes(): WitnessEvent[] {
    return this.events().filter((event) => event.kind === 'Flush')
  }

  /** What has begun and not ended. */
  inDisk(): WitnessEvent[] {
    return this.events().filter((event) => event.endMs === Number.POSITIVE_INFINITY)
  }

  /** Everything but reads that began at or after the time. */
  changesAfter(timeMs: number): WitnessEvent[] {
    return this.events().filter((event) => event.startMs >= timeMs && (changesBytes(event) || event.kind === 'Flush'))
  }

  /** Whether everything that changes bytes had ended by the time. */
  allEndedBefore(timeMs: number): boolean {
    return this.writes().every((event) => event.endMs < timeMs)
  }

  /** The first successful flush that began after the given time, which had ended by the other one. */
  flushBetween(sinceMs: number, untilMs: number): WitnessEvent | undefined {
    return this.flushes().find((flush) => flush.succeeded && flush.startMs >= sinceMs && flush.endMs <= untilMs)
  }

  /** Closed is quiet: every change of bytes had ended by the time, and a flush that began after the last of them too. */
  wasQuietAt(timeMs: number): boolean {
    return this.allEndedBefore(timeMs) && this.flushBetween(this.lastWriteEndMs(), timeMs) !== undefined
  }

  /** When the last change of bytes ended: -Infinity if there was none, Infinity if one has not ended. */
  lastWriteEndMs(): number {
    return Math.max(...this.writes().map((event) => event.endMs), Number.NEGATIVE_INFINITY)
  }

  /** Pairs of changes of the same bytes that were in the disk at the same time, of those that began since then. */
  overlappingPairs(sinceMs = 0): (readonly [WitnessEvent, WitnessEvent])[] {
    const writes = this.writes().filter((event) => event.startMs >= sinceMs)
    return writes.flatMap((first, index) =>
      writes
        .slice(index + 1)
        .filter((second) => sameBytes(first, second) && first.startMs < second.endMs && second.startMs < first.endMs)
        .map((second) => [first, second] as const),
    )
  }
}

function changesBytes(event: WitnessEvent): boolean {
  return event.kind === 'Write' || event.kind === 'Zero' || event.kind === 'Trim'
}

function sameBytes(first: WitnessEvent, second: WitnessEvent): boolean {
  return first.offset < second.offset + second.length && second.offset < first.offset + first.length
}
