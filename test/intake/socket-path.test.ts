import { once } from 'node:events'
import { existsSync, lstatSync, readdirSync, statSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import * as wire from '../nbd/handshake-script.ts'
import { temporaryDirectory } from '../support/temporary-directory.ts'
import { readToEnd, refusalOfIntake, startIntake } from './intake-process.ts'
import type { IntakeProcess } from './intake-process.ts'

const SOCKET_NAME = 'nbd.sock'

async function serves(intake: IntakeProcess): Promise<boolean> {
  const socket = await intake.connect()
  socket.end(Buffer.concat([wire.clientFlags(3), wire.option(wire.ABORT)]))
  return (await readToEnd(socket)).length === 18 + 20
}

describe('the path of a Unix socket', () => {
  it('has mode 0660 unless another is asked for, and nothing beside it but the lock', async () => {
    const directory = temporaryDirectory('intake')
    await startIntake({ url: `unix:${join(directory, SOCKET_NAME)}` })
    await startIntake({ url: `unix:${join(directory, 'other')}`, socketMode: 0o600 })
    expect(statSync(join(directory, SOCKET_NAME)).mode & 0o7777).toBe(0o660)
    expect(statSync(join(directory, 'other')).mode & 0o7777).toBe(0o600)
    expect(readdirSync(directory).sort()).toEqual([SOCKET_NAME, `${SOCKET_NAME}.lock`, 'other', 'other.lock'])
    expect(statSync(join(directory, `${SOCKET_NAME}.lock`)).mode & 0o7777).toBe(0o600)
  })

  it('is taken over from a process that was killed, and gone after one that closed', async () => {
    const directory = temporaryDirectory('intake')
    const path = join(directory, SOCKET_NAME)
    const first = await startIntake({ url: `unix:${path}` })
    await first.program.stop('SIGKILL')
    expect(lstatSync(path).isSocket()).toBe(true)
    const second = await startIntake({ url: `unix:${path}` })
    expect(await serves(second)).toBe(true)
    expect((await second.program.stop('SIGTERM')).status).toBe(0)
    expect(readdirSync(directory)).toEqual([])
  })

  it('is left to the process that listens there', async () => {
    const path = join(temporaryDirectory('intake'), SOCKET_NAME)
    const first = await startIntake({ url: `unix:${path}` })
    const { refused, detail } = await refusalOfIntake({ url: `unix:${path}` })
    expect(refused).toBe('listen-failed')
    expect(detail).toContain('another process')
    expect(await serves(first)).toBe(true)
  })

  it('is left to a stranger that listens there and knows nothing of our lock', async () => {
    const directory = temporaryDirectory('intake')
    const path = join(directory, SOCKET_NAME)
    const stranger = createServer((socket) => socket.end())
    stranger.listen(path)
    await once(stranger, 'listening')
    try {
      expect((await refusalOfIntake({ url: `unix:${path}` })).detail).toContain('somebody listens there')
      expect(lstatSync(path).isSocket()).toBe(true)
      expect(readdirSync(directory)).toEqual([SOCKET_NAME])
    } finally {
      stranger.close()
    }
  })

  it('is not removed in the end if it has become somebody else’s', async () => {
    const directory = temporaryDirectory('intake')
    const path = join(directory, SOCKET_NAME)
    const intake = await startIntake({ url: `unix:${path}` })
    unlinkSync(path)
    writeFileSync(path, 'mine')
    await intake.program.stop('SIGTERM')
    expect(readdirSync(directory)).toEqual([SOCKET_NAME])
  })

  it('is refused when something else is there, even behind a link', async () => {
    const directory = temporaryDirectory('intake')
    const path = join(directory, SOCKET_NAME)
    writeFileSync(path, 'data')
    expect((await refusalOfIntake({ url: `unix:${path}` })).detail).toContain('is not a socket')
    symlinkSync(path, join(directory, 'link'))
    expect((await refusalOfIntake({ url: `unix:${join(directory, 'link')}` })).detail).toContain('is not a socket')
    symlinkSync('/dev/null', join(directory, 'trap.lock'))
    expect((await refusalOfIntake({ url: `unix:${join(directory, 'trap')}` })).detail).toContain('trap.lock')
  })

  it('is refused when it is too long, with the numbers, and served when it just fits', async () => {
    const directory = temporaryDirectory('intake')
    const fits = join(directory, 'x'.repeat(107 - directory.length - 1))
    expect(await serves(await startIntake({ url: `unix:${fits}` }))).toBe(true)
    const { refused, detail } = await refusalOfIntake({ url: `unix:${fits}x` })
    expect(refused).toBe('listen-failed')
    expect(detail).toMatch(/108 bytes.*107/)
    expect(existsSync(`${fits}x`)).toBe(false)
  })

  it('is refused where the directory does not exist', async () => {
    const directory = temporaryDirectory('intake')
    const { detail } = await refusalOfIntake({ url: `unix:${join(directory, 'missing', SOCKET_NAME)}` })
    expect(detail).toContain('ENOENT')
  })
})
