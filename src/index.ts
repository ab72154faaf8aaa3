/**
 * The library's face: the daemon and its configuration, for programs that run it inside themselves, and the client of
 * its control API (also as `interlockd/client`, which loads nothing else).
 */

export { startDaemon } from './daemon.ts'
export type { Daemon, StopOutcome } from './daemon.ts'
export { ConfigurationError } from './config/configuration.ts'
export type { Configuration, OwnershipConfiguration } from './config/configuration.ts'
export { checkConfigurationFile, completeExport, loadConfiguration } from './config/load.ts'
export { hostOfThisProcess } from './config/defaults.ts'
export type { Host } from './config/defaults.ts'
export { DEFAULT_OPERATOR_LIMITS, LIMITS } from './config/limits.ts'
export type { OperatorLimits } from './config/limits.ts'
export { Refusal, REFUSALS } from './foundation/refusal.ts'
export type { Endpoint } from './foundation/endpoint.ts'
export * from './client/index.ts'
