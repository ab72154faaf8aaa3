/**
 * A typed client of the control API: `connect('unix:/run/interlockd/control.sock').close('vda')`. It needs nothing of
 * the daemon but a socket, and runs wherever node:http does.
 */

export { connect, ControlClient, evacuationReportOf } from './control-client.ts'
export type {
  CallOptions,
  ChangeOptions,
  ClearOptions,
  NewExport,
  OwnershipAnswer,
  RequestList,
} from './control-client.ts'
export type { EventOptions, StreamEvent } from './event-stream.ts'
export { outcomeOf } from './outcome.ts'
export type { Outcome } from './outcome.ts'
export { ControlProblem, ControlUnreachable } from './problem.ts'
export type { Problem } from './problem.ts'
export type { CloseOptions, CloseOutcome, ExportDefinition, ExportEvent, ExportStatus } from '../exports/verbs.ts'
export type { EvacuatedExport, EvacuationOptions, EvacuationReport } from '../exports/verbs.ts'
export type { AdoptOptions, OpenOptions, ClientStatus, OwnershipReport, RecordSummary } from '../exports/verbs.ts'
export type { StackFinding, StackLayer, StackReport, StackVerdict } from '../exports/verbs.ts'
export type { CloseReason, Durability, Holder, Receipt } from '../interlock/receipt.ts'
export type { ExportState, XenbusState } from '../interlock/lifecycle.ts'
export type { PhaseCounts, RequestInspection, RequestPhase } from '../plane-link/reports.ts'
export type { RefusalCode } from '../foundation/refusal.ts'
