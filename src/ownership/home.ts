/**
 * The ownership record, and what is asked of the place where it lives. A home keeps one record per image, seen by every
 * host that could open it, and changes it by compare-and-swap only: whoever swaps names the sequence it has read, and
 * wins exactly once. A home decides nothing; who may open what is judged by whoever reads the record.
 *
 * Failures to read or write are `Refusal`s. A swap whose outcome the home could not learn must reject, never guess.
 */

import type { Range } from '../interlock/range.ts'
import type { ClearedBy, CloseReason, FenceReport, Holder, Receipt } from '../interlock/receipt.ts'

export const RECORD_VERSION = 1

export const RECORD_STATES = ['opening', 'open', 'closing', 'closed', 'fenced'] as const
export type RecordState = (typeof RECORD_STATES)[number]

/** What makes the image recognisable, from any host. */
export interface ImageIdentity {
  readonly realPath: string
  /** 'file', or 'block'. */
  readonly kind: 'file' | 'block'
  /** 'major:minor' as the opening host saw it. */
  readonly device: string
  readonly inode: number
  /** WWN, device-mapper uuid or their like; null where there is none. */
  readonly wwid: string | null
  /** Hard links that it had, and that were accepted. */
  readonly links: number
}

/** The daemon run that holds a generation. */
export interface RecordHolder extends Holder {
  /** Random, of this opening; left in the host's state directory before the record names it. */
  readonly openToken: string
  /** For people: the host's name. */
  readonly name: string
}

/** A predecessor that closed early: its writes in these ranges may still land. */
export interface DrainingEntry {
  readonly generation: number
  readonly holder: RecordHolder
  readonly ranges: readonly Range[]
}

/** A takeover under way. While it is the newest record, the holder it is against must not open. */
export interface TakeoverIntent {
  readonly by: RecordHolder
  readonly against: RecordHolder
  /** The generation that is being taken over. */
  readonly generation: number
  /** ISO 8601, UTC. */
  readonly since: string
}

/** How the generation before was found to be over, where that was not by its own close. */
export interface Clearing {
  readonly generation: number
  readonly by: ClearedBy
  /** Only where it was fenced. */
  readonly fence: FenceReport | null
}

/** The record has another home, or is on its way into this one: it opens nothing here. */
export interface HomeChange {
  /** 'gone': to the other home. 'arriving': from there, and not of any use yet. */
  readonly direction: 'gone' | 'arriving'
  /** The other home, in words. */
  readonly home: string
  /** ISO 8601, UTC. */
  readonly since: string
}

export interface OwnershipRecord {
  readonly version: typeof RECORD_VERSION
  /** Grows by one with each swap; the first record has 1. */
  readonly sequence: number
  readonly imageId: string
  readonly image: ImageIdentity
  readonly generation: number
  readonly state: RecordState
  /** Of the newest generation, also when it is closed. */
  readonly holder: RecordHolder
  /** Only in `closing` and `closed`. */
  readonly closeReason: CloseReason | null
  /** Only in `closed`; null there where an operator has said that nobody holds it. */
  readonly receipt: Receipt | null
  readonly draining: readonly DrainingEntry[]
  readonly intent: TakeoverIntent | null
  readonly cleared: Clearing | null
  /** Only in `closed`. */
  readonly moved?: HomeChange
}

/** What a swap writes: the home adds version and sequence. */
export type RecordDraft = Omit<OwnershipRecord, 'version' | 'sequence'>

export type Newest =
  | { readonly kind: 'absent' }
  | { readonly kind: 'record'; readonly record: OwnershipRecord }
  /** There is one and it cannot be understood. Every opening is refused until an operator has repaired it. */
  | { readonly kind: 'unreadable'; readonly sequence: number; readonly detail: string }

export type SwapOutcome =
  | { readonly won: true; readonly record: OwnershipRecord }
  /**
   * Somebody else was first, or the home has moved on. `superseded` is our own record where it was written, and somebody
   * else has already written the next one on top of it; else nothing was written.
   */
  | { readonly won: false; readonly newest: Newest; readonly superseded: OwnershipRecord | null }

export type HomeKind = 'directory' | 'etcd' | 'none'

export interface RecordHome {
  readonly kind: HomeKind
  /** Whether other hosts read and write the same records. */
  readonly shared: boolean
  /** Whether a watch tells within moments, so that nobody has to ask again and again. */
  readonly tellsSoon?: boolean
  /** Where the record is, for messages: a path, a key. */
  describe(): string
  /** Where the image was found; said before anything else is asked of a home that may live beside it. */
  locate(realPath: string): void
  /** As of now, not from a cache. */
  readNewest(): Promise<Newest>
  /** `expected` is the sequence of the newest record that the caller knows; 0 when there was none. Durable when it answers. */
  compareAndSwap(expected: number, draft: RecordDraft): Promise<SwapOutcome>
  /**
   * Best effort: calls the listener some time after somebody else changed the record. Returns the function that ends it.
   * A home that cannot watch lacks this; nothing that is safe may depend on it.
   */
  watch?(listener: (newest: Newest) => void, intervalMs: number): () => void
  /** For operators: what is left of the record, oldest first; the last is the newest. A home without a history lacks it. */
  readAll?(): Promise<readonly Newest[]>
  /**
   * For operators, before something is written on top of an unreadable record: a copy of it goes to where nothing reads,
   * replaces or prunes it. The record itself stays the newest. Says where the copy is. Asked again it is the same.
   */
  setAside?(sequence: number): Promise<string>
  close(): Promise<void>
}

/** The sequence to hand to `compareAndSwap` after `readNewest`. */
export function sequenceOf(newest: Newest): number {
  switch (newest.kind) {
    case 'absent':
      return 0
    case 'record':
      return newest.record.sequence
    case 'unreadable':
      return newest.sequence
  }
}

/**
 * Whether a measured image is the recorded one. Numbers of devices differ between hosts and change at a reboot, so they
 * are compared for nothing; a name that the hardware gave decides where both have one.
 */
export function sameImage(recorded: ImageIdentity, measured: ImageIdentity): boolean {
  if (recorded.kind !== measured.kind) return false
  if (recorded.wwid !== null || measured.wwid !== null) return recorded.wwid === measured.wwid
  if (recorded.kind === 'block') return recorded.realPath === measured.realPath
  return recorded.inode === measured.inode
}
