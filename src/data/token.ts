/**
 * Tokens of engine operations: what kind of operation, which row, and how often the row was used before. They stay
 * below 2^30, so that they are small integers to the JavaScript engine. The reuse count turns a completion that comes
 * twice into an assertion failure instead of a corrupted request.
 */

export const TokenKind = {
  request: 0,
  receive: 1,
  send: 2,
  streamEnded: 3,
  fileRemoved: 4,
  exportSync: 5,
  strayEnded: 6,
} as const
export type TokenKind = (typeof TokenKind)[keyof typeof TokenKind]

export const TOKEN_INDEX_MAX = 0xffff
const REUSE_MASK = 0xff

export function makeToken(kind: TokenKind, index: number, reuse: number): number {
  return ((reuse & REUSE_MASK) << 19) | (index << 3) | kind
}

export function tokenKind(token: number): number {
  return token & 7
}

export function tokenIndex(token: number): number {
  return (token >> 3) & TOKEN_INDEX_MAX
}

export function tokenFits(token: number, reuse: number): boolean {
  return token >> 19 === (reuse & REUSE_MASK)
}
