/**
 * A migration written by hand, for orchestrators who want to see every step: verbs, events, receipt, errors as values, and
 * the way back. `interlockd/handover` does all of this and more; this is what is under it.
 *
 *   npx tsx examples/migrate-by-hand.ts NAME unix:/source.sock unix:/destination.sock
 */

import { connect, outcomeOf } from 'interlockd/client'
import type { ControlClient, Problem } from 'interlockd/client'

const [name = 'vda', sourceUrl = '', destinationUrl = ''] = process.argv.slice(2)
const source = connect(sourceUrl)
const destination = connect(destinationUrl)

/** Tells what happens at the source until its receipt is there. */
async function follow(daemon: ControlClient, signal: AbortSignal): Promise<void> {
  for await (const event of daemon.events({ export: name, signal })) {
    if (event.kind === 'transition') console.log(`source: ${event.from} -> ${event.to}`)
    if (event.kind === 'drain') console.log(`source: ${event.outstanding.submitted} requests are in the kernel`)
    if (event.kind === 'receipt') return
  }
}

function explain(problem: Problem): string {
  // The code decides which further members there are.
  if (problem.code === 'still-draining') return `${problem.outstanding?.submitted ?? 0} requests are outstanding`
  if (problem.code === 'held-by-other') return `${problem.holder?.name ?? 'somebody'} has it`
  return `${problem.code}: ${problem.detail}`
}

async function bringBack(why: string): Promise<void> {
  console.error(`taken back: ${why}`)
  const reopened = await outcomeOf(source.open(name, { timeoutMs: 5_000 }))
  // Refused: the destination may have been faster. No answer: nobody here can tell. Either way, look before anything else.
  console.error(reopened.kind === 'done' ? 'the source has it open' : 'unclear: look at both ends')
  process.exitCode = 1
}

async function migrate(): Promise<void> {
  // Before the guest stops: the destination waits, and gives out a nonce where no record is shared.
  const { nonce } = await destination.standby(name)
  const over = new AbortController()
  const following = follow(source, over.signal)
  try {
    // The guest stops here. The close runs beside whatever else there is to do.
    await source.close(name, { wait: false, nonce })
    const closed = await outcomeOf(source.close(name, { timeoutMs: 30_000, nonce }))
    if (closed.kind === 'unreachable') {
      await bringBack(closed.reason)
      return
    }
    if (closed.kind === 'refused') {
      await bringBack(explain(closed.problem))
      return
    }
    if (!closed.value.done) {
      await bringBack('it is still closing')
      return
    }
    const { receipt } = closed.value
    const proof = nonce === null ? {} : { receipt }
    const opened = await outcomeOf(destination.open(name, { ...proof, timeoutMs: 5_000 }))
    if (opened.kind === 'unreachable') {
      await bringBack(opened.reason)
      return
    }
    if (opened.kind === 'refused') {
      await bringBack(explain(opened.problem))
      return
    }
    // The guest goes on here.
    console.log(`generation ${receipt.generation} closed: ${receipt.drained.requests} requests drained`)
    console.log(`generation ${opened.value.generation} is open at the destination`)
    await following
  } finally {
    over.abort()
  }
}

await migrate()
