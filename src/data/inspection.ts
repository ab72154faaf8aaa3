/** What the worker tells of an export when it is asked: counts, clients, requests. Allocates freely; nothing here is hot. */

import type { RequestTracker } from '../interlock/request-tracker.ts'
import { Phase } from '../interlock/request-tracker.ts'
import { commandName } from '../nbd/constants.ts'
import type { ExportInspection, PhaseCounts, ReportOf, RequestInspection, RequestPhase } from '../plane-link/reports.ts'
import type { Connection } from './connection.ts'
import type { PlaneState } from './plane-state.ts'
import type { ServedExport } from './served-export.ts'

const PHASE_NAMES: Readonly<Record<number, RequestPhase>> = {
  [Phase.PARSED]: 'parsed',
  [Phase.ADMITTED]: 'admitted',
  [Phase.HELD]: 'held',
  [Phase.SUBMITTED]: 'submitted',
  [Phase.CLEARED]: 'cleared',
}

export function inspectExport(
  state: PlaneState,
  served: ServedExport,
  connections: readonly Connection[],
): ExportInspection {
  const { tracker, nowMs } = state
  return {
    clients: connections
      .filter((connection) => connection.state !== 'gone')
      .map((connection) => ({
        clientId: connection.clientId,
        peer: connection.peer,
        sinceMs: nowMs - connection.adoptedMs,
        writer: connection.writer,
        outstanding: countsOf(
          (phase) => tracker.countOf(connection.index, phase),
          tracker.clientBytes(connection.index),
          nowMs - tracker.oldestSinceOfClient(connection.index),
        ),
      })),
    outstanding: countsOf(
      (phase) => tracker.exportCountOf(served.index, phase),
      tracker.exportBytes(served.index),
      nowMs - tracker.oldestSinceOfExport(served.index),
    ),
    orphans: tracker.orphansOfExport(served.index),
    indeterminate: served.indeterminate.list(),
    holds: served.ledger.holds(),
    totals: {
      reads: served.reads,
      writes: served.writes,
      flushes: served.flushes,
      trims: served.trims,
      bytesRead: served.bytesRead,
      bytesWritten: served.bytesWritten,
      errors: served.errors,
    },
  }
}

export function listRequests(state: PlaneState, served: ServedExport, countMax: number): ReportOf<'listRequests'> {
  const { tracker } = state
  const slots: number[] = []
  tracker.slotsOfExport(served.index, (slot) => slots.push(slot))
  slots.sort((a, b) => (tracker.since[a] as number) - (tracker.since[b] as number))
  return {
    requests: slots.slice(0, countMax).map((slot) => describe(state, tracker, slot)),
    truncated: slots.length > countMax,
  }
}

function describe(state: PlaneState, tracker: RequestTracker, slot: number): RequestInspection {
  return {
    clientId: state.connectionOf(slot).clientId,
    cookie: tracker.cookieText(slot),
    command: commandName(tracker.command[slot] as number),
    offset: tracker.offset[slot] as number,
    length: tracker.length[slot] as number,
    phase: PHASE_NAMES[tracker.phase[slot] as number] ?? 'parsed',
    ageMs: state.nowMs - (tracker.since[slot] as number),
    orphan: tracker.isOrphan(slot),
  }
}

function countsOf(count: (phase: Phase) => number, bytes: number, ageMs: number): PhaseCounts {
  return {
    parsed: count(Phase.PARSED),
    admitted: count(Phase.ADMITTED),
    held: count(Phase.HELD),
    submitted: count(Phase.SUBMITTED),
    cleared: count(Phase.CLEARED),
    bytes,
    oldestMs: Math.max(0, Number.isFinite(ageMs) ? ageMs : 0),
  }
}
