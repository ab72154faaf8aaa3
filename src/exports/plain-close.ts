/** The close that nobody gave options for: everything drains, newcomers are parked, and it is waited for. */

import type { CloseReason } from '../interlock/receipt.ts'
import type { CloseOptions } from './verbs.ts'

export function plainClose(reason: CloseReason): CloseOptions {
  return {
    early: false,
    unsubmitted: 'drain',
    requests: 'park',
    disconnect: false,
    reason,
    nonce: null,
    wait: true,
    timeoutMs: null,
  }
}
