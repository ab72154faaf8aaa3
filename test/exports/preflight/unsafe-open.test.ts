/**
 * What the real daemon does with a stack that is not safe: it refuses to open it, opens it for whoever names the code,
 * and then says so wherever somebody could look: status, metrics, receipt. What is safe on a condition opens as ever.
 *
 * @module-tag slow
 */

import { request } from 'node:http'
import { join } from 'node:path'
import { writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { StackReport } from '../../../src/exports/verbs.ts'
import { startDaemon } from '../../support/daemon.ts'
import type { Daemon } from '../../support/daemon.ts'
import { Scratch } from '../../support/scratch.ts'
import { attachLoop } from './stack-rig.ts'

/** For an answer on a machine that has much else to do. */
const PATIENCE_MS = 30_000
const PATIENT = ['--timeout', `${PATIENCE_MS}ms`]

const scratch = new Scratch()
let daemon: Daemon
let image: string
let loop: string

beforeAll(async () => {
  const directory = scratch.directory('unsafe')
  image = join(directory, 'image.raw')
  const other = join(directory, 'other.raw')
  for (const path of [image, other]) writeFileSync(path, Buffer.alloc(1024 * 1024))
  loop = await attachLoop(scratch, other)
  daemon = await startDaemon(scratch, {
    exports: [
      { name: 'plain', path: image },
      { name: 'atstart', path: loop },
    ],
  })
})
afterAll(() => scratch.dispose())

describe('a buffered loop device', () => {
  test('is not opened at the start; the export waits and says why', async () => {
    const status = await daemon.status('atstart')
    expect(status.state).toBe('standby')
    expect(status.stateReason).toContain(`${loop} is buffered: it acknowledges before the disk does`)
    expect(status.stateReason).toContain('--allow-unsafe loop-buffered')
  })

  test('is refused with its code, also where another code is allowed, and with what is no code', async () => {
    const refused = await daemon.api('POST', '/exports/atstart/open', { allowUnsafe: ['nfs-soft'] })
    expect(refused.status).toBe(409)
    expect(refused.body).toMatchObject({ code: 'stack-unsafe', unsafe: ['loop-buffered'] })
    const unknown = await daemon.api('POST', '/exports/atstart/open', { allowUnsafe: ['whatever'] })
    expect(unknown).toMatchObject({ status: 400, body: { code: 'bad-request' } })
    expect((await daemon.status('atstart')).state).toBe('standby')
  })

  test('is opened by name, and says so for as long as it is open, and in the receipt', async () => {
    const opened = await daemon.ctl(['open', 'atstart', '--allow-unsafe', 'loop-buffered'])
    expect(opened.stderr).toBe('')
    expect(opened.status).toBe(0)
    const status = await daemon.status('atstart')
    expect([status.state, status.unsafe]).toEqual(['open', ['loop-buffered']])
    expect(await metrics()).toContain('interlockd_export_unsafe{export="atstart",code="loop-buffered"} 1')
    const { receipt } = await daemon.close('atstart')
    expect(receipt.unsafe).toEqual(['loop-buffered'])
    const again = await daemon.api('POST', '/exports/atstart/open', { receipt })
    expect(again.body, 'the next opening is judged again').toMatchObject({ code: 'stack-unsafe' })
  })

  test('is opened where the configuration names the code', async () => {
    const second = await startDaemon(scratch, {
      exports: [{ name: 'named', path: loop, allow_unsafe: ['loop-buffered'] }],
    })
    const status = await second.status('named')
    expect([status.state, status.unsafe]).toEqual(['open', ['loop-buffered']])
    await second.stop()
  })
})

describe('an image on the disk of this machine', () => {
  test('opens as ever, and its receipt says nothing of it', async () => {
    const status = await daemon.status('plain')
    expect([status.state, status.unsafe]).toEqual(['open', []])
    expect(await metrics()).not.toContain('interlockd_export_unsafe{export="plain"')
    const { receipt } = await daemon.close('plain')
    expect(receipt).not.toHaveProperty('unsafe')
  })

  test('its stack is data of the control API, and so is that of any path', async () => {
    const stack = await daemon.ask<StackReport>('GET', '/exports/plain/stack')
    expect(stack.layers[0]).toMatchObject({ kind: 'file', depth: 0, facts: { path: image } })
    const checked = await daemon.ask<StackReport>('POST', '/check', { path: loop, timeoutMs: PATIENCE_MS })
    expect(checked.codes).toContain('loop-buffered')
    const missing = await daemon.api('POST', '/check', { path: `${image}.none`, timeoutMs: PATIENCE_MS })
    expect(missing).toMatchObject({ status: 422, body: { code: 'image-missing' } })
  })

  test('interlockctl check: a verdict in words, and a status for scripts', async () => {
    const safe = await daemon.ctl(['check', image, ...PATIENT])
    expect(safe.status).toBe(0)
    expect(JSON.parse(safe.stdout)).toMatchObject({ path: image })
    const unsafe = await daemon.ctl(['-o', 'text', 'check', loop, ...PATIENT])
    expect(unsafe.status).toBe(3)
    expect(unsafe.stdout).toContain(`${loop} is NOT safe to migrate: loop-buffered`)
    const local = await daemon.ctl(['check', '--local', loop, ...PATIENT])
    expect(local.status).toBe(3)
    expect((await daemon.ctl(['check', `${image}.none`, ...PATIENT])).status).toBe(1)
  })
})

function metrics(): Promise<string> {
  return new Promise((resolve, reject) => {
    request({ socketPath: daemon.controlPath, path: '/metrics', agent: false }, (answer) => {
      let text = ''
      answer.setEncoding('utf8').on('data', (part: string) => (text += part))
      answer.on('end', () => {
        resolve(text)
      })
    })
      .on('error', reject)
      .end()
  })
}
