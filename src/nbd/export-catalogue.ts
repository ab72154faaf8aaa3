/**
 * What a negotiation needs to know about the exports, and what comes out of it. Synchronous, because a negotiation
 * decides at once: whoever implements it answers from what it knows and waits for nothing.
 */

/** An export that accepts a client now. Strings are what `isProtocolString` allows; blocks are powers of two. */
export interface ExportOffer {
  /** The canonical name; differs from the one asked for when that was the default. */
  readonly name: string
  /** Empty for none. */
  readonly description: string
  readonly sizeBytes: number
  readonly transmissionFlags: number
  /** At least 512 and `minimumBlockBytes`. */
  readonly preferredBlockBytes: number
  /** 1 unless requests of other alignments are to be discouraged; at most 65,536. */
  readonly minimumBlockBytes: number
}

/** `message` is shown to whoever runs the client. */
export interface ExportRefusal {
  readonly refused: 'unknown' | 'shutdown'
  readonly message: string
}

export interface ExportCatalogue {
  /** Everything a client may be told of, in the order it is to be listed. */
  list(): readonly { readonly name: string; readonly description: string }[]
  offer(name: string): ExportOffer | ExportRefusal
}

/** What client and server have agreed on when the transmission phase begins. */
export interface TransmissionTerms {
  /** The canonical name. */
  readonly exportName: string
  /** The size that the client was told. */
  readonly sizeBytes: number
  readonly transmissionFlags: number
  readonly minimumBlockBytes: number
  readonly preferredBlockBytes: number
  readonly payloadBytesMax: number
  /** The client asked for the block sizes, and so must keep to them. */
  readonly knowsBlockSizes: boolean
}
