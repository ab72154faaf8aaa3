/**
 * What a request is to the interlock: something that reads, something that changes bytes, or a flush. TRIM and
 * WRITE_ZEROES change bytes exactly as WRITE does. Commands travel as the numbers of the NBD specification; this folder
 * knows their kinds and nothing else of the protocol.
 *
 * CACHE and BLOCK_STATUS are reads. A DISC is no request here: it never reaches a gate, a tracker or a ledger.
 */

export const RequestKind = {
  NONE: 0,
  READ: 1,
  WRITE: 2,
  FLUSH: 3,
} as const
export type RequestKind = (typeof RequestKind)[keyof typeof RequestKind]

const KIND_BY_COMMAND: readonly RequestKind[] = [
  RequestKind.READ, // NBD_CMD_READ
  RequestKind.WRITE, // NBD_CMD_WRITE
  RequestKind.NONE, // NBD_CMD_DISC
  RequestKind.FLUSH, // NBD_CMD_FLUSH
  RequestKind.WRITE, // NBD_CMD_TRIM
  RequestKind.READ, // NBD_CMD_CACHE
  RequestKind.WRITE, // NBD_CMD_WRITE_ZEROES
  RequestKind.READ, // NBD_CMD_BLOCK_STATUS
]

/** `NONE` for what is not a request that touches the image. */
export function requestKind(command: number): RequestKind {
  return KIND_BY_COMMAND[command] ?? RequestKind.NONE
}

export function changesBytes(command: number): boolean {
  return KIND_BY_COMMAND[command] === RequestKind.WRITE
}
