/**
 * What the control server tells about the daemon as a whole. The composition root provides it; everything is asked for
 * at the moment of the answer, cheaply and without waiting.
 */

export interface WorkerFacts {
  readonly worker: number
  readonly alive: boolean
  readonly connections: number
  readonly arenaBytes: number
  /** What is reserved of the arena now. */
  readonly arenaUsedBytes: number
  /** Rounds of its loop until now, each of them one system call with io_uring; modulo 2^32. */
  readonly turns: number
}

export interface DaemonFacts {
  readonly version: string
  /** Random identity of this run; event numbers are only comparable within one. */
  readonly instance: string
  /** Null once it serves; before that and after, one sentence that says what it waits for. */
  notReady(): string | null
  /** Connections that negotiate, which no export counts yet. */
  negotiating(): number
  /** For how long the home of the records has answered nobody; 0 while it answers. */
  recordsUnreachableMs(): number
  workers(): readonly WorkerFacts[]
}
