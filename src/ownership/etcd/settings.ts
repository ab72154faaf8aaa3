/**
 * How etcd is reached and by whom, as the configuration says it. Nothing is read from the files that are named here: that
 * is done when they are needed, and again when they may have changed.
 */

export interface EtcdSettings {
  /** Of one cluster, as URLs without a path; all http or all https. */
  readonly endpoints: readonly string[]
  /** Ends in a slash; what follows it in a key is the image id. */
  readonly prefix: string
  /** How long one read or change of a record may take, over all endpoints and attempts. */
  readonly timeoutMs: number
  readonly caFile: string | null
  readonly certificateFile: string | null
  readonly keyFile: string | null
  readonly user: string | null
  readonly userFile: string | null
  readonly passwordFile: string | null
}

/** A subset of the daemon's log: fields first, then one sentence. */
export interface EtcdLog {
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
}
