/**
 * The process in which `interlockctl check --local` looks at a stack: one question by message, one answer. It ends when
 * whoever started it goes away, or kills it.
 */

import { BlockingPool } from './blocking/blocking-pool.ts'
import { Preflight } from './exports/preflight/preflight.ts'
import { Refusal } from './foundation/refusal.ts'
import type { LocalAnswer, LocalQuestion } from './local-check.ts'

const threads = new BlockingPool('preflight', 1)
const preflight = new Preflight(threads)

process.on('message', (question: LocalQuestion) => {
  void answer(question).then((answered) => process.send?.(answered))
})
process.on('disconnect', () => process.kill(process.pid, 'SIGKILL'))

// The first answer of the thread says that everything has started.
await threads.run({ kind: 'readTexts', paths: [] })
process.send?.('ready')

async function answer({ path, timeoutMs }: LocalQuestion): Promise<LocalAnswer> {
  try {
    return { report: await preflight.check(path, { users: true, timeoutMs }) }
  } catch (error) {
    if (error instanceof Refusal) return { refused: { code: error.code, detail: error.message } }
    return { refused: { code: 'internal', detail: error instanceof Error ? error.message : String(error) } }
  }
}
