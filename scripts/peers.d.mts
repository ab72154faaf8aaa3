export interface MissingPeer {
  readonly what: string
  readonly package: string | null
  readonly groups: readonly string[]
}
export const PEER_GROUPS: readonly string[]
/** The groups that have a test to run. */
export function groupsWithTests(): string[]
export function testFilesOf(group: string): string[]
export function missingPeers(groups?: readonly string[]): MissingPeer[]
/** Installs what can be installed and returns what is missing still. */
export function installPeers(groups?: readonly string[]): MissingPeer[]
export function describeMissing(missing: readonly MissingPeer[]): string[]
/** For tests: the path of a program, or an error that names its package. */
export function requirePeer(program: string): string
