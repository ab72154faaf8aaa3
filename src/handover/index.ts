/**
 * Handing disks over, for orchestrators: a whole handover with its way back (`handOver`), the steps of it for those who
 * have something to do in between (`DiskHandover`, `DiskGroup`), and the timeline of what happened. It knows nothing of a
 * daemon but its control API.
 */

export { DiskGroup } from './disk-group.ts'
export { DiskHandover } from './disk-handover.ts'
export { StepFailed, failureOf } from './ending.ts'
export type { End, Ending, Failure } from './ending.ts'
export { handOver, rehearse } from './handover.ts'
export type { DryRun, HandoverOptions, HandoverResult } from './handover.ts'
export { FINDING_CODES, objections, sentenceOf } from './preflight.ts'
export type { Finding, FindingCode, FindingSeverity, PreflightReport } from './preflight.ts'
export type { SameImageProof } from './same-image.ts'
export { standingOf } from './standing.ts'
export type { Standing } from './standing.ts'
export { DEFAULT_TERMS } from './terms.ts'
export type { HandoverTerms } from './terms.ts'
export { STEPS } from './timeline.ts'
export type { Moment, Part, Sample, Step, TimelineDocument } from './timeline.ts'
export { drawTimeline } from './timeline-drawing.ts'
export { lookAt, newestRecord, tell } from './view.ts'
export type { Disk, EndView, View } from './view.ts'
export type { WayBackOptions } from './way-back.ts'
export { migrateQemu } from './qemu-migration.ts'
export type { MigrationPlan, MigrationResult } from './qemu-migration.ts'
export type { MigrationEnding } from './migration-ending.ts'
export { MIGRATION_STEPS } from './migration-course.ts'
export type { Downtime, MigrationMoment, MigrationStep } from './migration-course.ts'
