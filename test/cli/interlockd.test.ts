/**
 * The program `interlockd`: the built one, as a process. What it says to wrong usage, how it starts and how it ends.
 */

import { createServer } from 'node:net'
import { existsSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { connect } from '../../src/client/index.ts'
import { spawnNode, spawnProgram } from '../support/child-process.ts'
import { INTERLOCKD, runControl, runProgram } from '../support/control-command.ts'
import type { Program, ProgramOptions } from '../support/foreign-program.ts'
import { temporaryDirectory } from '../support/temporary-directory.ts'

interface Place {
  readonly directory: string
  readonly file: string
  readonly url: string
}

/** A configuration with one export over a new image, everything inside one temporary directory. */
function place(...more: string[]): Place {
  const directory = temporaryDirectory('daemon')
  const image = join(directory, 'a.raw')
  writeFileSync(image, '')
  truncateSync(image, 16 * 1024 * 1024)
  const url = `unix:${join(directory, 'c.sock')}`
  const file = join(directory, 'interlockd.toml')
  const lines = [
    'state_directory = "state"',
    'engine = "file"',
    `listen = "unix:${join(directory, 'n.sock')}"`,
    `control = "${url}"`,
    ...more,
    '[ownership]',
    'kind = "none"',
    '[[export]]',
    'name = "vda"',
    'path = "a.raw"',
  ]
  writeFileSync(file, lines.join('\n'))
  return { directory, file, url }
}

async function startDaemon({ file }: Place, argv: readonly string[] = [], options?: ProgramOptions): Promise<Program> {
  const program = spawnNode(INTERLOCKD, ['--config', file, ...argv], options)
  await program.until('ready', 30_000, () => messagesOf(program).includes('ready'))
  return program
}

const linesOf = ({ stderr }: { readonly stderr: string }): Record<string, unknown>[] =>
  stderr
    .split('\n')
    .filter((line) => line.startsWith('{') && line.endsWith('}'))
    .map((line) => JSON.parse(line) as Record<string, unknown>)

const saidAtHangup = (program: Program): Record<string, unknown>[] =>
  linesOf(program).filter(({ msg }) => String(msg).startsWith('SIGHUP: '))

const messagesOf = (said: { readonly stderr: string }): unknown[] => linesOf(said).map(({ msg }) => msg)

describe('words', () => {
  test('version and help on standard output', async () => {
    expect(await runProgram(INTERLOCKD, ['--version'])).toMatchObject({
      status: 0,
      stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/),
      stderr: '',
    })
    expect(await runProgram(INTERLOCKD, ['--help'])).toMatchObject({
      status: 0,
      stdout: expect.stringContaining('--export <name=path>'),
    })
  })

  test('check-config: 0 and a verdict, or 1 and each mistake with its line', async () => {
    const good = place()
    expect(await runProgram(INTERLOCKD, ['check-config', good.file])).toEqual({
      status: 0,
      stdout: `${good.file} is well formed: 1 export\n`,
      stderr: '',
    })
    const bad = place('workers = "many"', 'frobs = 1')
    const { status, stdout, stderr } = await runProgram(INTERLOCKD, ['check-config', bad.file])
    expect({ status, stdout }).toEqual({ status: 1, stdout: '' })
    expect(stderr.split('\n')[0]).toBe(
      `interlockd: ${bad.file}:5: 'workers' must be a whole number from 1 to 64, and is "many"`,
    )
    expect(stderr.split('\n')[1]).toMatch(/:6: 'frobs' is not a known key/)
  })

  test('wrong usage and wrong configuration: 2', async () => {
    const bad = place('frobs = 1')
    for (const argv of [['--frob'], ['--workers', 'x'], ['--config', bad.file]]) {
      expect(await runProgram(INTERLOCKD, argv)).toMatchObject({ status: 2, stdout: '' })
    }
  })
})

describe('a start that fails', () => {
  test('says why and ends with 1', async () => {
    const there = place()
    const { status, stderr, stdout } = await runProgram(INTERLOCKD, [
      ...['--config', there.file],
      ...['--export', `vda=${join(there.directory, 'not-there.raw')}`],
    ])
    expect({ status, stdout }).toEqual({ status: 1, stdout: '' })
    expect(linesOf({ stderr }).at(-1)).toMatchObject({ level: 'fatal', code: 'image-missing' })
    expect(existsSync(join(there.directory, 'c.sock'))).toBe(false)
  })

  test('too few descriptors: the number that is needed is named', async () => {
    const there = place()
    const command = ['--nofile=1000:1000', process.execPath, INTERLOCKD, '--config', there.file]
    const outcome = await spawnProgram('prlimit', command).exited
    expect(outcome.status).toBe(1)
    const said = linesOf(outcome).at(-1)
    expect(said).toMatchObject({ level: 'fatal', code: 'bad-request' })
    expect(said?.['msg']).toContain('need 1426 file descriptors, and this process may have 1000')
  })

  test('so does an address that is taken', async () => {
    const there = place()
    const squatter = createServer()
    await new Promise<void>((resolve) => squatter.listen(join(there.directory, 'c.sock'), resolve))
    onTestFinished(() => void squatter.close())
    const outcome = await runProgram(INTERLOCKD, ['--config', there.file])
    expect(outcome.status).toBe(1)
    expect(linesOf(outcome).at(-1)).toMatchObject({ level: 'fatal', code: 'listen-failed' })
  })
})

describe('a life', () => {
  test('ready, asked, stopped by SIGTERM: everything closed, status 0, no socket left', async () => {
    const there = place()
    const daemon = await startDaemon(there)
    expect(await runControl(there, ['status'])).toMatchObject({
      status: 0,
      stdout: expect.stringMatching(/^vda +open/m),
    })
    await connect(there.url).ready()
    daemon.signal('SIGTERM')
    const { status, stdout, stderr } = await daemon.exited
    expect({ status, stdout }).toEqual({ status: 0, stdout: '' })
    expect(linesOf({ stderr }).at(-1)).toMatchObject({ msg: 'stopped' })
    expect(linesOf({ stderr })).toContainEqual(expect.objectContaining({ msg: 'transition', to: 'closed' }))
    expect(existsSync(join(there.directory, 'c.sock'))).toBe(false)
    expect(existsSync(join(there.directory, 'n.sock'))).toBe(false)
  })

  test('killed and started again it takes its sockets back', async () => {
    const there = place()
    const killed = await startDaemon(there)
    killed.signal('SIGKILL')
    await killed.exited
    expect(existsSync(join(there.directory, 'c.sock'))).toBe(true)
    const again = await startDaemon(there)
    expect(await runControl(there, ['status', 'vda'])).toMatchObject({ status: 0 })
    again.signal('SIGINT')
    expect((await again.exited).status).toBe(0)
  })

  test('a second signal ends it at once, with a last line; the next start is as after a crash', async () => {
    const there = place()
    // Or it may have closed before the second one comes.
    const environment = { INTERLOCKD_FAULT_POINT: 'close: synced:sleep=60000' }
    const daemon = await startDaemon(there, [], { environment })
    daemon.signal('SIGTERM')
    daemon.signal('SIGINT')
    const outcome = await daemon.exited
    expect(outcome.status).toBe(128 + 9)
    expect(linesOf(outcome).at(-1)).toMatchObject({ level: 'fatal', msg: expect.stringMatching(/for the second time/) })
    const again = await startDaemon(there)
    expect(await runControl(there, ['status'])).toMatchObject({ stdout: expect.stringMatching(/^vda +open/m) })
    again.signal('SIGTERM')
    expect((await again.exited).status).toBe(0)
  })

  test('SIGHUP: exports come and go, the log changes its level, and what stays is named', async () => {
    const there = place()
    const config = (level: string, ...exports: string[]): void => {
      const lines =
        readFileSync(there.file, 'utf8')
          .split('[[export]]')[0]
          ?.replace(/log_level.*\n/u, '') ?? ''
      const tables = exports.map((name) => `[[export]]\nname = "${name}"\npath = "${name}.raw"\nstandby = true\n`)
      writeFileSync(there.file, `log_level = "${level}"\n${lines}${tables.join('')}`)
    }
    const again = async (): Promise<Record<string, unknown>> => {
      const before = saidAtHangup(daemon).length
      daemon.signal('SIGHUP')
      await daemon.until('the outcome', 10_000, () => saidAtHangup(daemon).length > before)
      return saidAtHangup(daemon).at(-1) ?? {}
    }
    const daemon = await startDaemon(there)
    for (const name of ['vdb', 'vdc']) {
      writeFileSync(join(there.directory, `${name}.raw`), '')
      truncateSync(join(there.directory, `${name}.raw`), 1024 * 1024)
    }
    config('debug', 'vdb', 'vdc')
    expect(await again()).toMatchObject({
      level: 'warn',
      applied: ['log_level is debug, and was info', "export 'vdb' is added", "export 'vdc' is added"],
      notApplied: [expect.stringMatching(/^export 'vda' stays: .*is open and cannot 'remove'/)],
    })
    expect((await runControl(there, ['status'])).stdout).toMatch(/^vda +open[^]*^vdb +standby[^]*^vdc +standby/m)
    await runControl(there, ['close', 'vda'])
    writeFileSync(there.file, `workers = 2\n${readFileSync(there.file, 'utf8')}`)
    config('debug', 'vdb')
    expect(await again()).toMatchObject({
      applied: ["export 'vda' is removed", "export 'vdc' is removed"],
      notApplied: ['workers counts from the next start'],
    })
    expect((await runControl(there, ['status'])).stdout).toMatch(/^NAME[^\n]*\nvdb +standby[^\n]*\n$/)
    writeFileSync(there.file, 'frobs = 1')
    expect(await again()).toMatchObject({ level: 'error', problems: [expect.stringMatching(/:1: 'frobs'/)] })
    expect(await runControl(there, ['status', 'vdb'])).toMatchObject({ status: 0 })
  })

  test('QEMU with a reconnect delay rides through a stop and the next start, and sees nothing of it', async () => {
    const there = place()
    const daemon = await startDaemon(there)
    const image = `driver=nbd,server.type=unix,server.path=${join(there.directory, 'n.sock')},export=vda,reconnect-delay=120`
    const commands = ['write -P 1 0 64k', 'sleep 1500', 'read -P 1 0 64k', 'write -P 2 64k 64k', 'read -P 2 64k 64k']
    const guest = spawnProgram('qemu-io', [...commands.flatMap((command) => ['-c', command]), '--image-opts', image])
    await guest.until('the first write', 30_000, () => guest.stdout.includes('wrote 65536/65536'))
    daemon.signal('SIGTERM')
    expect((await daemon.exited).status).toBe(0)
    const next = await startDaemon(there)
    const { status, stdout, stderr } = await guest.exited
    expect([status, stderr]).toEqual([0, ''])
    expect(stdout.match(/(?:wrote|read) 65536\/65536 bytes/g)).toHaveLength(4)
    expect(stdout).not.toContain('failed')
    next.signal('SIGTERM')
    expect((await next.exited).status).toBe(0)
  })

  test('two daemons cannot have one control socket', async () => {
    const there = place()
    await startDaemon(there)
    const other = place()
    const second = await runProgram(INTERLOCKD, ['--config', other.file, '--control', there.url])
    expect(second.status).toBe(1)
    expect(linesOf(second).at(-1)).toMatchObject({ level: 'fatal', code: 'listen-failed' })
    expect(await runControl(there, ['status', 'vda'])).toMatchObject({ status: 0 })
  })

  test('people can have a log for people', async () => {
    const there = place('log_format = "pretty"')
    const program = spawnNode(INTERLOCKD, ['--config', there.file])
    await program.until('ready', 30_000, () => /^\[[\d:.]+\] INFO: ready$/m.test(program.stderr))
    program.signal('SIGTERM')
    expect((await program.exited).status).toBe(0)
  })
})
