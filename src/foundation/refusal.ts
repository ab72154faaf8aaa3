/**
 * The catalogue of everything the control plane refuses: one code, one title, one HTTP status, one exit status.
 * A refusal is an answer to an operator. It never stands for a bug (that is an assertion) nor for the disk's errno
 * (that travels in a completion). The detail names what was refused, where, and what to do about it.
 */

interface CatalogueEntry {
  readonly status: number
  readonly title: string
}

export const REFUSALS = {
  'bad-request': { status: 400, title: 'The request is not well formed' },
  'cross-site': { status: 403, title: 'The control API does not serve web pages' },
  'not-found': { status: 404, title: 'There is nothing at this address' },
  'export-unknown': { status: 404, title: 'There is no export of that name' },
  'method-not-allowed': { status: 405, title: 'The address does not take this method' },
  'wrong-state': { status: 409, title: 'The export cannot do that in its present state' },
  'export-exists': { status: 409, title: 'An export of that name exists already' },
  'image-in-use': { status: 409, title: 'The image is in use' },
  'receipt-required': { status: 409, title: 'A receipt of the previous holder is required' },
  'receipt-mismatch': { status: 409, title: 'The receipt does not fit this export' },
  'idempotency-conflict': { status: 409, title: 'The idempotency key was used for another request' },
  'held-by-other': { status: 409, title: 'Another holder has the image open' },
  'record-unreadable': { status: 409, title: 'The ownership record cannot be understood' },
  'record-moved': { status: 409, title: 'The ownership record has another home' },
  'takeover-failed': { status: 409, title: 'The holder could not be fenced' },
  'evacuation-incomplete': { status: 409, title: 'Not every export could be closed' },
  'early-refused': { status: 409, title: 'An early handover is not possible here' },
  'export-fenced': { status: 409, title: 'The export is fenced' },
  'body-too-large': { status: 413, title: 'The body of the request is too large' },
  'media-type': { status: 415, title: 'The body of the request is not JSON' },
  'image-missing': { status: 422, title: 'The image does not exist' },
  'image-kind': { status: 422, title: 'The image is neither a regular file nor a block device' },
  'image-permission': { status: 422, title: 'The image may not be opened' },
  'image-size': { status: 422, title: 'The size of the image cannot be served' },
  'image-links': { status: 422, title: 'The image has more than one hard link' },
  'image-exported': { status: 409, title: 'The image is exported already' },
  'image-no-direct': { status: 422, title: 'The image does not take direct I/O' },
  'image-changed': { status: 422, title: 'The image is not what it was' },
  'record-io': { status: 422, title: 'The ownership record cannot be read or written' },
  'record-unreachable': { status: 503, title: 'The home of the ownership records does not answer' },
  'stack-unsafe': { status: 409, title: 'What is under the image is not safe to migrate' },
  'cluster-locks': { status: 422, title: 'The locks of other hosts cannot be proof here' },
  'image-io': { status: 422, title: 'The image failed' },
  internal: { status: 500, title: 'The daemon made a mistake' },
  'sync-failed': { status: 500, title: 'The image could not be made durable' },
  'worker-died': { status: 500, title: 'The worker that served the export is gone' },
  'listen-failed': { status: 422, title: 'The address cannot be listened on' },
  'still-draining': { status: 504, title: 'Requests are still outstanding' },
  busy: { status: 503, title: 'The daemon does as much of this as it allows' },
  'not-ready': { status: 503, title: 'The daemon is not ready' },
  'state-directory': { status: 500, title: 'The state directory failed' },
  'shutting-down': { status: 503, title: 'The daemon is shutting down' },
} as const satisfies Record<string, CatalogueEntry>

export type RefusalCode = keyof typeof REFUSALS

/** Thrown inside the control plane; becomes application/problem+json at its border. */
export class Refusal extends Error {
  override readonly name = 'Refusal'
  readonly code: RefusalCode
  /** Members added to the problem document, such as what is still outstanding. */
  readonly members: Readonly<Record<string, unknown>>

  constructor(code: RefusalCode, detail: string, members: Readonly<Record<string, unknown>> = {}) {
    super(detail)
    this.code = code
    this.members = members
  }
}
