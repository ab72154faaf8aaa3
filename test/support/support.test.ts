/**
 * The support of the tests is tested too: a helper that hangs, leaks or succeeds too early makes every test that uses
 * it worthless.
 */

import { existsSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { once } from 'node:events'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { spawnNode, spawnProgram, waitForLine } from './child-process.ts'
import { eventually } from './eventually.ts'
import { freePort } from './free-port.ts'
import { Scratch } from './scratch.ts'
import { temporaryDirectory } from './temporary-directory.ts'

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

describe('eventually', () => {
  test('asks again until there is an answer', async () => {
    let asked = 0
    const answer = await eventually('the third answer', () => (++asked === 3 ? 'yes' : undefined))
    expect({ answer, asked }).toEqual({ answer: 'yes', asked: 3 })
  })

  test('gives up at the deadline and tells what was missing and why', async () => {
    const probe = (): never => {
      throw new Error('connection refused')
    }
    const failure: unknown = await eventually('a daemon', probe, { timeoutMs: 30 }).catch((error: unknown) => error)
    expect(failure).toMatchObject({ message: 'not within 30 ms: a daemon', cause: { message: 'connection refused' } })
  })
})

describe('what a test starts', () => {
  let left = { directory: '', pid: 0 }

  test('lives during the test', async () => {
    const directory = temporaryDirectory('support')
    writeFileSync(join(directory, 'file'), 'content')
    const program = spawnProgram('sleep', ['1000'])
    left = { directory, pid: program.pid }
    await eventually('the program to run', () => isAlive(program.pid))
    expect(existsSync(directory)).toBe(true)
  })

  test('is gone after it', () => {
    expect(left.pid).toBeGreaterThan(0)
    expect(isAlive(left.pid)).toBe(false)
    expect(existsSync(left.directory)).toBe(false)
  })
})

describe('a program', () => {
  test('is waited for by a line of its output', async () => {
    const directory = temporaryDirectory('support')
    const script = join(directory, 'script.mjs')
    writeFileSync(
      script,
      "console.log('one'); setTimeout(() => console.error('ready 7'), 50); setInterval(() => 0, 1000)",
    )
    const program = spawnNode(script, [])
    expect(await waitForLine(program, /^ready \d$/u)).toBe('ready 7')
    expect(await program.stop()).toMatchObject({ status: 143 })
  })

  test('that ends before its line is a failure that shows what it said', async () => {
    const program = spawnProgram('sh', ['-c', 'echo no such export >&2; exit 3'])
    await expect(waitForLine(program, /ready/u)).rejects.toThrow(/no such export/u)
    expect(await program.exited).toMatchObject({ status: 3 })
  })
})

test('a free port can be listened on', async () => {
  const server = createServer().listen(await freePort(), '127.0.0.1')
  await once(server, 'listening')
  server.close()
  await once(server, 'close')
})

test('a scratch undoes everything in reverse although one step fails', async () => {
  const undone: string[] = []
  const scratch = new Scratch()
  scratch.defer('first', () => {
    undone.push('first')
  })
  scratch.defer('broken', () => {
    throw new Error('stuck')
  })
  scratch.defer('last', () => {
    undone.push('last')
  })
  await expect(scratch.dispose()).rejects.toThrow('could not undo: broken')
  expect(undone).toEqual(['last', 'first'])
})
