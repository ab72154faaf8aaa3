/** Listening sockets: their mode, their stale predecessors, and never taking one from somebody who lives. */

import { chmodSync, lstatSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { createConnection, createServer } from 'node:net'
import type { Server } from 'node:net'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { listenOnSocket } from '../../src/control/control-socket.ts'
import { spawnProgram } from '../support/child-process.ts'
import { eventually } from '../support/eventually.ts'
import { temporaryDirectory } from '../support/temporary-directory.ts'

function serverSaying(word: string): Server {
  const server = createServer((socket) => {
    // Whoever only looks whether we live resets the connection.
    socket.on('error', () => undefined)
    socket.end(word)
  })
  onTestFinished(() => void server.close())
  return server
}

function askWho(path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let said = ''
    const socket = createConnection(path)
    socket.on('data', (piece) => (said += piece.toString()))
    socket.on('error', reject)
    socket.on('close', () => resolve(said))
  })
}

/** A socket whose owner was killed: the file stays, nobody accepts. */
async function leaveStaleSocket(path: string): Promise<void> {
  const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => console.log('up'))`
  const program = spawnProgram(process.execPath, ['-e', script])
  await program.until('listening', 10_000, () => program.stdout.includes('up'))
  process.kill(program.pid, 'SIGKILL')
  await eventually('refused', () =>
    askWho(path).then(
      () => false,
      (error: unknown) => error instanceof Error && 'code' in error && error.code === 'ECONNREFUSED',
    ),
  )
}

test('is reachable for owner and group only, and leaves nothing beside it', async () => {
  const folder = join(temporaryDirectory(), 'made', 'on', 'demand')
  const path = join(folder, 'c.sock')
  const remove = await listenOnSocket(serverSaying('me'), path)
  expect(lstatSync(path).mode & 0o777).toBe(0o660)
  expect(readdirSync(folder)).toEqual(['c.sock', 'c.sock.lock'])
  expect(await askWho(path)).toBe('me')
  remove()
  expect(readdirSync(folder)).toEqual([])
})

test('takes the place of a dead one', async () => {
  const folder = temporaryDirectory()
  const path = join(folder, 'c.sock')
  await leaveStaleSocket(path)
  await listenOnSocket(serverSaying('new'), path)
  expect(await askWho(path)).toBe('new')
  expect(readdirSync(folder)).toEqual(['c.sock', 'c.sock.lock'])
})

test('never that of a living one, nor of anything else', async () => {
  const folder = temporaryDirectory()
  const path = join(folder, 'c.sock')
  await listenOnSocket(serverSaying('first'), path)
  await expect(listenOnSocket(serverSaying('second'), path)).rejects.toThrow(/is in use/)
  expect(await askWho(path)).toBe('first')
  const file = join(folder, 'precious')
  writeFileSync(file, 'data')
  await expect(listenOnSocket(serverSaying('third'), file)).rejects.toThrow(/not a socket/)
  expect(readdirSync(folder).sort()).toEqual(['c.sock', 'c.sock.lock', 'precious'])
})

test('of many that start at once over a dead one, one gets the path and the others know', async () => {
  const folder = temporaryDirectory()
  for (let round = 0; round < 10; round++) {
    const path = join(folder, `${round}.sock`)
    await leaveStaleSocket(path)
    const starts = await Promise.allSettled(
      [0, 1, 2, 3].map((index) => listenOnSocket(serverSaying(`n${index}`), path)),
    )
    const winners = starts.flatMap((start, index) => (start.status === 'fulfilled' ? [`n${index}`] : []))
    expect(winners).toHaveLength(1)
    expect(winners).toContain(await askWho(path))
  }
}, 120_000)

test('on close only its own socket is removed', async () => {
  const folder = temporaryDirectory()
  const path = join(folder, 'c.sock')
  const remove = await listenOnSocket(serverSaying('first'), path)
  rmSync(path)
  writeFileSync(path, 'put there by somebody else')
  remove()
  expect(readdirSync(folder)).toEqual(['c.sock'])
})

test('a folder that cannot be written is an error that names it', async () => {
  if (process.getuid?.() === 0) {
    await expect(listenOnSocket(serverSaying('x'), '/proc/c.sock')).rejects.toThrow(/\/proc/)
    return
  }
  const folder = temporaryDirectory()
  chmodSync(folder, 0o500)
  await expect(listenOnSocket(serverSaying('x'), join(folder, 'c.sock'))).rejects.toThrow(/c\.sock|EACCES/)
})

test('a path without room for the temporary name is refused', async () => {
  const folder = join(temporaryDirectory(), 'x'.repeat(80))
  await expect(listenOnSocket(serverSaying('x'), join(folder, 's'))).rejects.toThrow(/needs \d+ bytes/)
})
