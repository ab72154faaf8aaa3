/** Which engine is chosen, and what is said about it, where the kernel or its keeper forbids something. */

import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, expect, test } from 'vitest'
import { Scratch } from '../support/scratch.ts'

const CHILD = fileURLToPath(new URL('./restricted-child.ts', import.meta.url))
const scratch = new Scratch()
afterEach(() => scratch.dispose())

function run(restriction: string, setting: string, before: readonly string[] = [], path = ''): string {
  const command = [...before, process.execPath, '--import', 'tsx', CHILD, restriction, setting, path]
  const result = spawnSync(command[0] ?? '', command.slice(1), { encoding: 'utf8', timeout: 30_000 })
  expect(result.status, result.stderr).toBe(0)
  return result.stdout
}

test('auto takes io_uring where it is offered, and says with what', () => {
  expect(run('none', 'auto')).toMatch(/^io_uring: the kernel offers it, with/u)
})

test('file is taken where it is asked for', () => {
  expect(run('none', 'file')).toBe('file: the configuration asks for it')
})

test('auto falls back to file under a seccomp filter, and names it', () => {
  expect(run('EPERM', 'auto')).toMatch(/^file: there is no io_uring: .*EPERM: a seccomp filter forbids it/u)
})

test('io_uring fails hard under a seccomp filter, and names it', () => {
  expect(run('EPERM', 'io_uring')).toMatch(/^refused: io_uring_setup failed with EPERM: a seccomp filter forbids it/u)
})

test('a filter that pretends that the kernel is too old is seen through', () => {
  expect(run('ENOSYS', 'auto')).toMatch(/^file: .*ENOSYS: a seccomp filter hides it/u)
})

test('where no memory may be locked, the engine works without registered buffers', () => {
  const directory = scratch.directory('memlock')
  const path = join(directory, 'image.raw')
  writeFileSync(path, new Uint8Array(8192))
  // Root's capabilities would lift the limit; the file must stay readable without them.
  const unprivileged = ['setpriv', '--bounding-set', '-all', '--inh-caps', '-all', '--']
  // Enough for the rings, those of newer versions of Node included, and not for the arena.
  const limited = ['prlimit', '--memlock=262144:262144', ...(process.getuid?.() === 0 ? unprivileged : [])]
  const free = run('memlock', 'io_uring', [], path)
  const bound = run('memlock', 'io_uring', limited, path)
  expect(free).toMatch(/^read 4096 with .*registered buffers/u)
  expect(bound).toMatch(/^read 4096 with /u)
  expect(bound).not.toContain('registered buffers')
})
