/** What the intake needs of a logger: a subset of pino's. Fields first, then one sentence. */
export interface IntakeLog {
  debug(fields: object, message: string): void
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
}
