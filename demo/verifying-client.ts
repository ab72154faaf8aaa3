/**
 * The client of docker/compose.yaml: a guest under load that is moved. It writes to the first server until its connection
 * ends, goes on at the next one with what was not answered, and reads everything back. Its exit status is the verdict.
 *
 * Usage: verifying-client HOST:PORT HOST:PORT... (in the order in which the disk moves)
 */

import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { NbdFrontend } from '../test/support/nbd-frontend.ts'
import { VerifyingWriter } from '../test/support/verifying-writer.ts'

const DEPTH = 32
const BLOCKS = 2_048
/** So many are answered by the last server before the client is content. */
const WRITES_AT_THE_END = 3_000
const CONNECT_PATIENCE_MS = 60_000
const DEADLINE_MS = 180_000

interface Server {
  readonly host: string
  readonly port: number
}

const began = performance.now()
const sockets: Socket[] = []

function tell(text: string): void {
  console.log(`${((performance.now() - began) / 1000).toFixed(2).padStart(6)} s  ${text}`)
}

async function attach({ host, port }: Server): Promise<NbdFrontend> {
  const until = performance.now() + CONNECT_PATIENCE_MS
  for (;;) {
    const socket = connect({ host, port, noDelay: true })
    sockets.push(socket)
    const frontend = new NbdFrontend(socket)
    try {
      await frontend.negotiate('vda')
      return frontend
    } catch (error) {
      socket.destroy()
      if (performance.now() > until) throw new Error(`no disk at ${host}:${port}`, { cause: error })
    }
    await sleep(200)
  }
}

async function run(servers: readonly Server[]): Promise<boolean> {
  const [first, ...others] = servers
  if (first === undefined) throw new Error('no server was named')
  const writer = new VerifyingWriter(await attach(first), BLOCKS)
  tell(`writing to ${first.host}, ${DEPTH} writes in flight`)
  for (const next of others) {
    const before = writer.answeredCount
    await writer.write(DEPTH, () => false)
    tell(`the connection has ended after ${writer.answeredCount - before} answered writes`)
    const reissued = writer.moveTo(await attach(next))
    tell(`goes on at ${next.host}; ${reissued} unanswered writes are sent again`)
  }
  const enough = writer.answeredCount + WRITES_AT_THE_END
  if ((await writer.write(DEPTH, () => writer.answeredCount >= enough)) === 'lost')
    throw new Error('the last server has cut the connection')
  tell(`${writer.answeredCount} writes were answered; the longest took ${writer.longestMs.toFixed(0)} ms`)
  const lost = await writer.lostWrites()
  for (const { block, expected, found } of lost.slice(0, 8))
    tell(`block ${block} must hold ${expected.join(' or ')}, and holds ${found ?? 'a mixture'}`)
  console.log(
    lost.length === 0
      ? 'VERDICT: nothing lost.'
      : `VERDICT: DATA LOST. ${lost.length} blocks are not what they must be.`,
  )
  return lost.length === 0
}

async function deadline(): Promise<never> {
  await sleep(DEADLINE_MS, undefined, { ref: false })
  throw new Error(`VERDICT: none within ${DEADLINE_MS / 1000} s.`)
}

try {
  const servers = process.argv.slice(2).map((text) => {
    const [host = '', port = ''] = text.split(':')
    return { host, port: Number(port) }
  })
  process.exitCode = (await Promise.race([run(servers), deadline()])) ? 0 : 1
} catch (error) {
  console.error(error)
  process.exitCode = 1
} finally {
  for (const socket of sockets) socket.destroy()
}
