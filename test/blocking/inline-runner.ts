/**
 * Runs blocking calls on the thread of the test, by the same code that a blocking thread runs. For tests of what is made
 * of such calls; what threads add is tested with threads.
 */

import { perform } from '../../src/blocking/calls.ts'
import type { BlockingCall, BlockingResultOf, BlockingRunner } from '../../src/blocking/calls.ts'

export const inlineRunner: BlockingRunner = {
  run<C extends BlockingCall>(call: C): Promise<BlockingResultOf<C['kind']>> {
    return Promise.resolve(perform(call) as BlockingResultOf<C['kind']>)
  },
}
