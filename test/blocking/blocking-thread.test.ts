import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { ERRNO } from '../../src/posix/errno.ts'
import { spawnNode, waitForLine } from '../support/child-process.ts'
import { runChecked } from '../support/foreign-program.ts'
import type { Program } from '../support/foreign-program.ts'
import { scratchOfTest, temporaryDirectory } from '../support/temporary-directory.ts'
import { startWitnessDisk } from '../support/witness-disk.ts'

const RIG = join(import.meta.dirname, 'thread-rig.mjs')

function start(scenario: string, ...parameters: string[]): Program {
  return spawnNode(RIG, [scenario, ...parameters])
}

async function run(scenario: string, ...parameters: string[]): Promise<readonly unknown[]> {
  const outcome = await start(scenario, ...parameters).exited
  expect(outcome).toMatchObject({ status: 0, stderr: '' })
  const lines = outcome.stdout.trim().split('\n')
  return lines.map((line): unknown => JSON.parse(line))
}

test('calls run one at a time in the order given, and failures are their results', async () => {
  expect(await run('order', join(temporaryDirectory(), 'file'))).toEqual([
    { outstanding: 10 },
    {
      results: [
        ...[0, -ERRNO.EEXIST, 0, 0, 'content', -ERRNO.EFBIG, -ERRNO.ENOENT],
        // The third of those in turn did not run: there is a file to read, and for the last call to remove.
        ...[[0, -ERRNO.ENOENT], [-ERRNO.ENOENT, ['content']], 0],
      ],
      answers: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
      outstanding: 0,
    },
    { afterClose: { rejected: 'BlockingThreadGone' } },
  ])
})

test('close waits for what was asked before', async () => {
  const directory = temporaryDirectory()
  expect(await run('close', directory)).toEqual([{ results: Array.from({ length: 50 }, () => 0) }])
  expect(readdirSync(directory)).toHaveLength(50)
})

test('another thread uses a line of its own while the main thread sleeps', async () => {
  expect(await run('line')).toEqual([{ whileMainSlept: 'ok' }, { results: Array.from({ length: 10 }, () => 0) }])
})

test('a bug in the thread rejects what is outstanding and closes every line', async () => {
  const gone = { rejected: 'BlockingThreadGone' }
  expect(await run('death')).toEqual([
    { doomed: [gone, gone], lineClosed: true },
    { later: gone },
    { failure: 'AssertionFailure' },
  ])
})

test('a pool replaces a thread that died, and starts no other for calls that are over soon', async () => {
  const missing = { result: -ERRNO.ENOENT }
  expect(await run('pool')).toEqual([
    { doomed: { rejected: 'BlockingThreadGone' } },
    { results: [missing, missing, missing], afterwards: 0 },
    { fewest: 0 },
  ])
})

test('a pool uses no more threads than its bound', async () => {
  expect(await run('poolBound', join(temporaryDirectory(), 'fifo'))).toEqual([{ busy: 2, more: 0 }, { released: true }])
})

test('a call that hangs has none of the calls of a pool behind it, then or later', async () => {
  expect(await run('poolStuck', join(temporaryDirectory(), 'fifo'))).toEqual([
    { answered: 20, busy: 1 },
    { startedLater: 0 },
    { released: true },
  ])
})

test('threads that only a moment needed leave, although calls never cease', async () => {
  expect(await run('poolRetires', join(temporaryDirectory(), 'fifo'))).toEqual([
    { many: true, few: true },
    { finished: 64 },
  ])
})

test('an idle thread keeps no process alive', async () => {
  expect(await run('idle')).toEqual(['idle'])
})

/** Waits until the rig is in the call, and shows that the rest of it runs. */
async function startStuck(call: object): Promise<Program> {
  const program = start('stuck', JSON.stringify(call))
  expect(await waitForLine(program, /otherAnswered.*}$/)).toBe('{"otherAnswered":20,"stuckOutstanding":1}')
  program.signal('SIGUSR2')
  await waitForLine(program, /^"alive"$/)
  expect(program.stdout).not.toContain('answered"')
  return program
}

test('a call that hangs for ever delays nobody else, and the process still dies by a signal', async () => {
  const fifo = join(temporaryDirectory(), 'fifo')
  await runChecked('mkfifo', [fifo])
  const program = await startStuck({ kind: 'open', path: fifo, flags: 0, mode: 0 })
  expect((await program.stop('SIGTERM')).status).toBe(128 + 15)
})

test('a slow disk delays nobody else, and the process still dies by a signal', async () => {
  const { path } = await startWitnessDisk(scratchOfTest(), { readDelayMs: 2_000 })
  const call = { kind: 'measureImage', path, write: false, direct: true, dataSync: false, exclusive: false }
  const program = await startStuck(call)
  const outcome = await program.stop('SIGTERM')
  expect(outcome.status).toBe(128 + 15)
  expect(outcome.stdout).not.toContain('answered"')
})

test('a thread is small', async () => {
  const [measured] = (await run('memory')) as readonly [{ readonly bytesEach: number }]
  expect(measured.bytesEach).toBeLessThan(32 * 2 ** 20)
})
