/**
 * The program `interlockctl` as people and scripts use it: the built one, as a process, against a real control server.
 * What it prints where and how it ends are its contract.
 */

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { controlRig } from '../support/control-rig.ts'
import type { ControlRig } from '../support/control-rig.ts'
import type { Program } from '../support/foreign-program.ts'
import { INTERLOCKCTL, runControl, runProgram, startControl } from '../support/control-command.ts'
import { spawnProgram } from '../support/child-process.ts'
import { eventually } from '../support/eventually.ts'
import { receiptOf, statusOf } from '../support/fake-exports.ts'
import { temporaryDirectory } from '../support/temporary-directory.ts'

const CLEAR_LINE = '\r\u001b[2K'
const close = { early: false, unsubmitted: 'drain', requests: 'park', disconnect: false, reason: 'handover' }

describe('status', () => {
  test('is a table that a person reads', async () => {
    const rig = await controlRig()
    rig.exports.put('vda')
    rig.exports.put('vdb', { state: 'standby', generation: 0, clients: [], stateReason: 'held by\u001b[31m host-2' })
    rig.exports.setOutstanding('vda', { submitted: 4, bytes: 16_384, oldestMs: 1500 })
    const { status, stdout, stderr } = await runControl(rig, ['status'])
    expect(stdout.split('\n')).toEqual([
      'NAME  STATE      SIZE  GENERATION  CLIENTS  REQUESTS  OLDEST  ENGINE  NOTE',
      'vda   open     10 GiB           3        1         4    1.5s  file',
      'vdb   standby  10 GiB           -        0         0          file    held by·[31m host-2',
      '',
    ])
    expect(stderr).toBe('')
    expect(status).toBe(0)
  })

  test('of one says everything, and as JSON what the API says', async () => {
    const rig = await controlRig()
    rig.exports.put('vda', {
      lastReceipt: receiptOf(statusOf('vda')),
      holds: [{ offset: 0, length: 4096, generation: 2, waiting: 1 }],
    })
    const text = await runControl(rig, ['status', 'vda'])
    expect(text.stdout).toMatch(/^state {9}open$/m)
    expect(text.stdout).toMatch(/^holds {9}0\+4096 of generation 2$/m)
    expect(text.stdout).toMatch(/^last receipt {2}generation 3 closed for handover/m)
    expect(text.stdout).toMatch(/127\.0\.0\.1:4711/)
    const json = await runControl(rig, ['-o', 'json', 'status', 'vda'])
    expect(JSON.parse(json.stdout)).toEqual(await rig.exports.status('vda'))
    const list = await runControl(rig, ['status', '-o', 'json'])
    expect(JSON.parse(list.stdout)).toHaveLength(1)
  })

  test('of nothing says so', async () => {
    const rig = await controlRig()
    expect((await runControl(rig, ['status'])).stdout).toBe('no exports\n')
  })
})

test('requests', async () => {
  const rig = await controlRig()
  rig.exports.put('vda')
  rig.exports.setOutstanding('vda', { submitted: 2 })
  const { stdout } = await runControl(rig, ['requests', 'vda'])
  expect(stdout.split('\n').slice(0, 2)).toEqual([
    'CLIENT  COOKIE            COMMAND  OFFSET  LENGTH  PHASE       AGE',
    '     1  0000000000000000  WRITE         0    4096  submitted  1.5s',
  ])
})

describe('close', () => {
  test('gives the receipt as a document, which can be given to open', async () => {
    const rig = await controlRig()
    rig.exports.put('vda')
    const { status, stdout, stderr } = await runControl(rig, ['close', 'vda'])
    expect(status).toBe(0)
    expect(stderr).toBe('')
    expect(JSON.parse(stdout)).toEqual(receiptOf(statusOf('vda')))
    expect((await runControl(rig, ['close', 'vda', '-o', 'json'])).stdout).toBe(stdout)
    const file = join(temporaryDirectory(), 'receipt.json')
    writeFileSync(file, stdout)
    expect((await runControl(rig, ['open', 'vda', '--receipt', file])).status).toBe(0)
    rig.exports.put('vda', { state: 'closed' })
    expect((await runControl(rig, ['open', 'vda', '--receipt', '-'], { input: stdout })).status).toBe(0)
    const opens = rig.exports.calls.filter(({ verb }) => verb === 'open')
    expect(opens.map(({ options }) => options)).toEqual([
      { receipt: receiptOf(statusOf('vda')), takeover: false, timeoutMs: null },
      { receipt: receiptOf(statusOf('vda')), takeover: false, timeoutMs: null },
    ])
  })

  test('on a terminal the receipt is text for people', async () => {
    const rig = await controlRig()
    rig.exports.put('vda')
    const { stdout } = await onTerminal(rig, 'close vda').exited
    expect(stdout).toMatch(/^closed {6}vda, generation 3, for handover\r$/m)
    expect(stdout).toMatch(/^took {8}15\.8 ms \(drain 12\.5 ms, sync 1\.3 ms, record 2\.0 ms\)\r$/m)
    expect((await onTerminal(rig, 'close vda -o json').exited).stdout).toMatch(/"state": "closed"/)
  })

  test.each([
    [[], { ...close, nonce: null, wait: true, timeoutMs: null }],
    [
      [
        '--early',
        '--unsubmitted',
        'abort',
        '--requests',
        'refuse',
        '--disconnect',
        '--timeout',
        '30s',
        '--nonce',
        'n1',
        '--reason',
        'shutdown',
      ],
      {
        early: true,
        unsubmitted: 'abort',
        requests: 'refuse',
        disconnect: true,
        reason: 'shutdown',
        nonce: 'n1',
        wait: true,
        timeoutMs: 30_000,
      },
    ],
    [['--no-wait'], { ...close, nonce: null, wait: false, timeoutMs: null }],
  ])('passes on %j', async (flags, options) => {
    const rig = await controlRig()
    rig.exports.put('vda')
    await runControl(rig, ['close', 'vda', ...flags])
    expect(rig.exports.calls.find(({ verb }) => verb === 'close')?.options).toEqual(options)
  })

  test('still draining when the time is over: 4, and what is left', async () => {
    const rig = await controlRig()
    rig.exports.put('vda')
    rig.exports.setOutstanding('vda', { submitted: 3, held: 1, bytes: 16_384, oldestMs: 12_000 })
    const { status, stdout, stderr } = await runControl(rig, ['close', 'vda', '--timeout', '50ms'])
    expect(status).toBe(4)
    expect(stdout).toBe('')
    expect(stderr).toMatch(/still-draining: .*; left: 4 requests \(1 held, 3 submitted\), 16 KiB, oldest 12\.0s\n$/)
    const json = await runControl(rig, ['close', 'vda', '--timeout', '50ms', '-o', 'json'])
    expect(JSON.parse(json.stderr)).toMatchObject({ code: 'still-draining', outstanding: { held: 1 } })
  })

  test('without waiting it says what to do next', async () => {
    const rig = await controlRig()
    rig.exports.put('vda')
    rig.exports.setOutstanding('vda', { submitted: 3 })
    const { status, stdout } = await runControl(rig, ['close', 'vda', '--no-wait'])
    expect(status).toBe(0)
    expect(stdout).toBe('vda is closing; ask again for the receipt\n')
  })

  test('without a terminal a plain line now and then', async () => {
    const rig = await controlRig()
    rig.exports.put('vda')
    rig.exports.setOutstanding('vda', { submitted: 3, bytes: 12_288, oldestMs: 400 })
    const program = startControl(rig, ['close', 'vda'])
    const line = await program.until('progress', 20_000, () => /^vda: .*\n/m.exec(program.stderr)?.[0])
    expect(line).toMatch(/^vda: draining, 3 requests \(3 submitted\), 12 KiB, oldest 400ms left after \d/)
    rig.exports.finishClose('vda')
    const { status, stdout, stderr } = await program.exited
    expect(status).toBe(0)
    expect(stdout).toMatch(/"state": "closed"/)
    expect(stderr).not.toContain('\u001b')
  })

  test('on a terminal one live line, gone in the end', async () => {
    const rig = await controlRig()
    rig.exports.put('vda')
    rig.exports.setOutstanding('vda', { submitted: 3, bytes: 12_288 })
    const terminal = onTerminal(rig, 'close vda')
    await terminal.until('a live line', 20_000, () =>
      terminal.stdout.includes(`${CLEAR_LINE}vda: draining, 3 requests`),
    )
    rig.exports.emit('vda', {
      kind: 'drain',
      outstanding: (await rig.exports.status('vda')).outstanding,
      step: 'fdatasync',
      elapsedMs: 1,
    })
    await terminal.until('the step', 20_000, () => terminal.stdout.includes('vda: fdatasync, 3 requests'))
    rig.exports.finishClose('vda')
    const { status, stdout } = await terminal.exited
    expect(status).toBe(0)
    expect(stdout).toContain(`${CLEAR_LINE}closed`)
  })
})

describe('other verbs', () => {
  test('open, standby, clear and fence', async () => {
    const rig = await controlRig()
    rig.exports.put('vda', { state: 'standby' })
    const verbs = [
      ['open', 'vda', '--timeout', '5s'],
      ['fence', 'vda'],
      ['standby', 'vda'],
      ['clear', 'vda', '--takeover'],
    ]
    for (const argv of verbs) expect(await runControl(rig, argv)).toMatchObject({ status: 0, stderr: '' })
    expect(rig.exports.calls.map(({ verb, options }) => [verb, options])).toEqual([
      ['open', { receipt: null, takeover: false, timeoutMs: 5000 }],
      ['fence', undefined],
      ['standby', undefined],
      ['clear', { receipt: null, takeover: true }],
    ])
  })

  test('add and remove', async () => {
    const rig = await controlRig()
    const directory = temporaryDirectory()
    const flags = ['--read-only', '--clients', 'shared', '--standby', '--cache', 'buffered', '--image-id', 'd7']
    const added = await runControl(rig, ['add', 'vdc=images/c.raw', ...flags], { directory })
    expect(added.status).toBe(0)
    expect(rig.exports.calls[0]?.options).toMatchObject({
      name: 'vdc',
      path: join(directory, 'images/c.raw'),
      readOnly: true,
      clients: 'shared',
      standby: true,
      cache: 'buffered',
      imageId: 'd7',
      durability: 'sync',
    })
    expect((await runControl(rig, ['remove', 'vdc'])).stdout).toBe('vdc is removed\n')
    expect(await rig.exports.list()).toEqual([])
  })

  test('an idempotency key runs a request once', async () => {
    const rig = await controlRig()
    rig.exports.put('vda')
    const argv = ['fence', 'vda', '--idempotency-key', 'k1']
    const first = await runControl(rig, argv)
    expect(await runControl(rig, argv)).toEqual(first)
    expect(rig.exports.calls).toHaveLength(1)
  })

  test('watch prints a line per event, JSON lines for programs, and ends by Ctrl-C', async () => {
    const rig = await controlRig()
    rig.exports.put('vda')
    const text = startControl(rig, ['watch'])
    const json = startControl(rig, ['watch', 'vda', '-o', 'json'])
    await text.until('watching', 20_000, () => text.stderr.includes('watching'))
    await json.until('ready', 20_000, () => json.stdout.includes('{"kind":"ready"}'))
    await rig.exports.fence('vda')
    rig.exports.emit('vdb', { kind: 'fault', detail: 'two\nlines' })
    await text.until('both', 20_000, () => text.stdout.includes('vdb'))
    expect(text.stdout.split('\n').slice(0, 2)).toEqual([
      '2026-01-02T03:04:05.000Z  vda  open -> fenced: fenced by hand',
      '2026-01-02T03:04:05.000Z  vdb  FAULT: two·lines',
    ])
    await json.until('the transition', 20_000, () => json.stdout.includes('fenced'))
    text.signal('SIGINT')
    json.signal('SIGINT')
    expect(await text.exited).toMatchObject({ status: 0, stderr: 'watching\n' })
    const lines = (await json.exited).stdout.trim().split('\n')
    expect(lines.map((line) => (JSON.parse(line) as { kind: string }).kind)).toEqual(['ready', 'transition'])
  })

  test('watch ends when nobody reads it', async () => {
    const rig = await controlRig()
    const command = `exec ${process.execPath} ${INTERLOCKCTL} --control ${rig.url} watch | head -n 1`
    const pipeline = spawnProgram('sh', ['-c', command])
    await eventually('watching', () => rig.exports.subscribers > 0 && pipeline.stderr.includes('watching'), {
      timeoutMs: 20_000,
    })
    await eventually('the end', () => {
      rig.exports.emit('vda', { kind: 'added' })
      return !pipeline.running
    })
    expect(await pipeline.exited).toMatchObject({ status: 0, stdout: expect.stringMatching(/vda {2}added\n$/) })
  })
})

describe('how it ends', () => {
  test.each<[string[], RegExp]>([
    [[], /Usage: interlockctl/],
    [['explode'], /unknown command 'explode'/],
    [['close'], /missing required argument 'name'/],
    [['close', 'a/b'], /must be letters, digits/],
    [['close', 'vda', '--timeout', '30'], /must be a duration such as "30s"/],
    [['close', 'vda', '--unsubmitted', 'drop'], /Allowed choices are drain, abort/],
    [['close', 'vda', 'vdb'], /too many arguments/],
    [['status', '-o', 'xml'], /Allowed choices are text, json/],
    [['add', 'vda'], /not of the form NAME=PATH/],
    [['open', 'vda', '--receipt', '/no/such/file'], /--receipt ENOENT/],
    [['--control', 'http://x', 'status'], /--control .*not a URL of the form/],
  ])('2 for %j', async (argv, message) => {
    const rig = await controlRig()
    const { status, stdout, stderr } = await runControl(rig, argv)
    expect(stderr).toMatch(message)
    expect(stdout).toBe('')
    expect(status).toBe(2)
    expect(rig.exports.calls).toEqual([])
  })

  test('3 when it is refused in this state, 1 when it fails', async () => {
    const rig = await controlRig()
    rig.exports.put('vda', { state: 'open' })
    const refused = await runControl(rig, ['open', 'vda'])
    expect(refused).toEqual({
      status: 3,
      stdout: '',
      stderr: "interlockctl: wrong-state: export 'vda' is open and cannot 'open'\n",
    })
    expect(await runControl(rig, ['status', 'nope'])).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('export-unknown'),
    })
  })

  test('5 when no daemon answers', async () => {
    const gone = { url: `unix:${join(temporaryDirectory(), 'c.sock')}` }
    expect(await runControl(gone, ['status'])).toMatchObject({ status: 5, stderr: expect.stringContaining(gone.url) })
    expect(await runControl(gone, ['watch'])).toMatchObject({ status: 5 })
    expect(await runControl({ url: 'tcp:127.0.0.1:1' }, ['close', 'vda'])).toMatchObject({ status: 5 })
  })

  test('0 for help and version, on standard output', async () => {
    const help = await runProgram(INTERLOCKCTL, ['--help'])
    expect(help).toMatchObject({ status: 0, stderr: '' })
    for (const verb of ['status', 'requests', 'close', 'open', 'standby', 'clear', 'fence', 'add', 'remove', 'watch']) {
      expect(help.stdout).toContain(`\n  ${verb} `)
    }
    const version = await runProgram(INTERLOCKCTL, ['--version'])
    expect(version).toMatchObject({ status: 0, stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/) })
  })

  test('an empty INTERLOCK_CONTROL is none', async () => {
    const { stderr } = await runControl({ url: '' }, ['status'])
    expect(stderr).not.toContain('--control')
  })
})

/** The program with a terminal for its standard streams, which all end up in `stdout`. */
function onTerminal(rig: ControlRig, words: string): Program {
  const command = `${process.execPath} ${INTERLOCKCTL} --control ${rig.url} ${words}`
  return spawnProgram('script', ['--quiet', '--return', '--command', command, '/dev/null'])
}
