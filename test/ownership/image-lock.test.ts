import { truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeEach, expect, onTestFinished, test } from 'vitest'
import { lockImage, unlockImage } from '../../src/ownership/image-lock.ts'
import type { ImageClaim, ImageLockOutcome } from '../../src/ownership/image-lock.ts'
import { closeDescriptor } from '../../src/posix/descriptor.ts'
import { ERRNO } from '../../src/posix/errno.ts'
import { OPEN, openFile } from '../../src/posix/file.ts'
import { LOCK_EXCLUSIVE_ELSEWHERE, queryLock, setLock } from '../../src/posix/locks.ts'
import { inlineRunner } from '../blocking/inline-runner.ts'
import { spawnProgram } from '../support/child-process.ts'
import { eventually } from '../support/eventually.ts'
import { runProgram } from '../support/foreign-program.ts'
import { temporaryDirectory } from '../support/temporary-directory.ts'

let path: string

beforeEach(() => {
  path = join(temporaryDirectory(), 'image.raw')
  writeFileSync(path, '')
  truncateSync(path, 2 ** 20)
})

function open(claim: ImageClaim = 'write'): number {
  const descriptor = openFile(path, claim === 'write' ? OPEN.readWrite : OPEN.readOnly)
  onTestFinished(() => {
    closeDescriptor(descriptor)
  })
  return descriptor
}

function lock(descriptor: number, claim: ImageClaim = 'write'): Promise<ImageLockOutcome> {
  return lockImage(inlineRunner, descriptor, claim)
}

const qemuIo = (...parameters: readonly string[]) => runProgram('qemu-io', ['-f', 'raw', ...parameters, path])

test('two writers refuse each other, and the loser leaves nothing', async () => {
  const [first, second] = [open(), open()]
  expect(await lock(first)).toEqual({ kind: 'locked' })
  expect(await lock(second)).toEqual({
    kind: 'busy',
    detail: 'another program does not share the permission "write"',
  })
  expect(await unlockImage(inlineRunner, first)).toBe(0)
  expect(await lock(second)).toEqual({ kind: 'locked' })
})

test('readers bear each other but no writer, and a writer no readers', async () => {
  const [one, other, writer] = [open('read-only'), open('read-only'), open()]
  expect(await lock(one, 'read-only')).toEqual({ kind: 'locked' })
  expect(await lock(other, 'read-only')).toEqual({ kind: 'locked' })
  expect((await lock(writer)).kind).toBe('busy')
  await unlockImage(inlineRunner, one)
  expect((await lock(writer)).kind).toBe('busy')
  await unlockImage(inlineRunner, other)
  expect(await lock(writer)).toEqual({ kind: 'locked' })
  expect(await lock(one, 'read-only')).toEqual({
    kind: 'busy',
    detail: 'another program uses the permission "write"',
  })
})

test('releasing the image leaves the locks of generations alone', async () => {
  const descriptor = open()
  expect(setLock(descriptor, 'exclusive', 2n ** 62n + 3n, 1n)).toBe(0)
  expect(await lock(descriptor)).toEqual({ kind: 'locked' })
  expect(await unlockImage(inlineRunner, descriptor)).toBe(0)
  expect(queryLock(open(), 'exclusive', 2n ** 62n + 3n, 1n)).toBe(LOCK_EXCLUSIVE_ELSEWHERE)
})

test('a failing lock is told from a busy one', async () => {
  expect(await lock(99_999)).toEqual({ kind: 'failed', errno: ERRNO.EBADF })
})

test('qemu-io may not write to, and qemu-img not copy or resize, what we have open for writing', async () => {
  const descriptor = open()
  expect(await lock(descriptor)).toEqual({ kind: 'locked' })
  const written = await qemuIo('-c', 'write 0 512')
  expect(written.stderr).toContain('Failed to get "write" lock')
  const copied = await runProgram('qemu-img', ['convert', '-f', 'raw', '-O', 'raw', path, `${path}.copy`])
  expect(copied.stderr).toContain('Failed to get shared "write" lock')
  const resized = await runProgram('qemu-img', ['resize', '-f', 'raw', path, '2M'])
  expect(resized.stderr).toContain('lock')
  for (const outcome of [written, copied, resized]) expect(outcome.status).not.toBe(0)
  await unlockImage(inlineRunner, descriptor)
  expect((await qemuIo('-c', 'write 0 512')).status).toBe(0)
})

test('qemu-io may read, and not write, what we serve read-only', async () => {
  expect(await lock(open('read-only'), 'read-only')).toEqual({ kind: 'locked' })
  expect((await qemuIo('-c', 'write 0 512')).stderr).toContain('Failed to get "write" lock')
  expect((await qemuIo('-r', '-c', 'read 0 512')).status).toBe(0)
})

test('a virtual machine of QEMU keeps us off its disk, and we it off ours', async () => {
  const start = () =>
    spawnProgram('qemu-system-x86_64', [
      ...['-display', 'none', '-nodefaults', '-machine', 'q35,accel=tcg', '-S', '-monitor', 'none'],
      ...['-drive', `file=${path},format=raw,if=virtio`],
    ])
  const machine = start()
  const descriptor = open()
  const busy = await eventually('QEMU to lock its disk', async () => {
    const outcome = await lock(descriptor)
    if (outcome.kind === 'busy') return outcome
    await unlockImage(inlineRunner, descriptor)
    return undefined
  })
  expect(busy.detail).toContain('permission "write"')
  expect((await lock(open('read-only'), 'read-only')).kind).toBe('busy')
  await machine.stop()
  expect(await lock(descriptor)).toEqual({ kind: 'locked' })
  const refused = await start().exited
  expect(refused.status).not.toBe(0)
  expect(refused.stderr).toContain('Failed to get "write" lock')
})
