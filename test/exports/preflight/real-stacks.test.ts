/**
 * The preflight on real stacks of this very machine: a file, its extents and names, tmpfs, FUSE, loops; and that it
 * writes nothing and answers whatever happens meanwhile. What this kernel lacks is in test/preflight.
 */

import { createHash } from 'node:crypto'
import {
  closeSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { perform } from '../../../src/blocking/calls.ts'
import type { BlockingRunner } from '../../../src/blocking/calls.ts'
import { Preflight } from '../../../src/exports/preflight/preflight.ts'
import { ERRNO } from '../../../src/posix/errno.ts'
import { runChecked, runProgram, startProgram } from '../../support/foreign-program.ts'
import { Scratch } from '../../support/scratch.ts'
import { attachLoop, inline, kinds, look } from './stack-rig.ts'

const MIB = 1024 * 1024

let scratch: Scratch
let directory: string
beforeEach(() => {
  scratch = new Scratch()
  directory = scratch.directory('stack')
})
afterEach(() => scratch.dispose())

function sparseImage(name = 'image.raw', sizeBytes = 4 * MIB): string {
  const path = join(directory, name)
  closeSync(openSync(path, 'wx'))
  truncateSync(path, sizeBytes)
  return path
}

async function writtenImage(name = 'image.raw'): Promise<string> {
  const path = join(directory, name)
  writeFileSync(path, Buffer.alloc(4 * MIB, 'x'))
  await runChecked('sync', [path])
  return path
}

async function mountTmpfs(): Promise<string> {
  const place = join(directory, 'memory')
  mkdirSync(place)
  await runChecked('mount', ['-t', 'tmpfs', 'memory', place])
  scratch.defer(`mount ${place}`, async () => {
    await runProgram('umount', [place])
  })
  return place
}

describe('files', () => {
  test('written, sparse and unwritten blocks are told apart', async () => {
    expect((await look(await writtenImage('written.raw'))).codes).not.toContain('sparse')
    expect((await look(sparseImage('sparse.raw'))).codes).toContain('sparse')
    const unwritten = join(directory, 'unwritten.raw')
    await runChecked('fallocate', ['-l', '4M', unwritten])
    const { codes } = await look(unwritten)
    expect(codes).toContain('unwritten')
    expect(codes).not.toContain('sparse')
  })

  test('a second name', async () => {
    const path = sparseImage()
    expect((await look(path)).codes).not.toContain('hard-links')
    linkSync(path, join(directory, 'other.raw'))
    expect((await look(path)).codes).toContain('hard-links')
  })

  test('somebody else who has it open is named', async () => {
    const path = sparseImage()
    const { pid } = startProgram(scratch, 'sh', ['-c', 'exec sleep 60 < "$1"', 'sh', path])
    await expect
      .poll(
        async () => (await look(path)).layers[0]?.findings.find(({ code }) => code === 'open-elsewhere')?.detail ?? '',
      )
      .toContain(`(${pid})`)
  })

  test('nothing is written: neither a byte nor a time', async () => {
    const path = await writtenImage()
    const digest = (): string => createHash('sha256').update(readFileSync(path)).digest('hex')
    const before = [digest(), statSync(path, { bigint: true }).mtimeNs, statSync(path, { bigint: true }).ctimeNs]
    const device = await attachLoop(scratch, path, '--direct-io=on')
    await look(path)
    await look(device)
    const after = [digest(), statSync(path, { bigint: true }).mtimeNs, statSync(path, { bigint: true }).ctimeNs]
    expect(after).toEqual(before)
  })

  test('a million files beside it are not looked at', async () => {
    const path = sparseImage()
    const asked: string[] = []
    const listening: BlockingRunner = {
      run: (call) => {
        if (call.kind === 'listNames') asked.push(call.path)
        return inline.run(call)
      },
    }
    await new Preflight(listening).check(path, { users: false, timeoutMs: 5_000 })
    expect(asked.every((folder) => folder.startsWith('/sys/'))).toBe(true)
  })
})

describe('memory', () => {
  test('tmpfs is not safe', async () => {
    const path = join(await mountTmpfs(), 'image.raw')
    writeFileSync(path, Buffer.alloc(MIB))
    const report = await look(path)
    expect(kinds(report)).toEqual(['file', 'tmpfs'])
    expect(report.codes).toContain('volatile-memory')
    expect(report.verdict).toBe('unsafe')
  })

  test('a loop over it is not either, however direct', async () => {
    const path = join(await mountTmpfs(), 'image.raw')
    writeFileSync(path, Buffer.alloc(MIB))
    const report = await look(await attachLoop(scratch, path))
    expect(kinds(report)).toEqual(['device', 'file', 'tmpfs'])
    expect(report.codes).toContain('volatile-memory')
  })
})

describe('loop devices', () => {
  test('buffered is not safe, and the mend makes it so', async () => {
    const device = await attachLoop(scratch, await writtenImage())
    const buffered = await look(device)
    expect(buffered.verdict).toBe('unsafe')
    const finding = buffered.layers[0]?.findings.find(({ code }) => code === 'loop-buffered')
    expect(finding?.detail).toBe(`${device} is buffered: it acknowledges before the disk does`)
    const [command = '', ...words] = (finding?.mend.split(',')[0] ?? '').split(' ')
    await runChecked(command, words)
    expect((await look(device)).codes).not.toContain('loop-buffered')
  })

  test('the file under it may be gone, or not be the file of that name', async () => {
    const path = await writtenImage()
    const device = await attachLoop(scratch, path, '--direct-io=on')
    rmSync(path)
    expect((await look(device)).codes).toContain('loop-backing-unknown')
    await writtenImage()
    expect((await look(device)).codes, 'another file of the same name').toContain('loop-backing-unknown')
  })

  test('one over another: every layer is there, and the one at the bottom counts', async () => {
    const outer = await attachLoop(scratch, await writtenImage())
    const inner = await attachLoop(scratch, outer, '--direct-io=on')
    const report = await look(inner)
    expect(report.layers.filter(({ kind }) => kind === 'device').length).toBeGreaterThanOrEqual(2)
    expect(report.codes).toContain('loop-buffered')
    expect(report.layers[0]?.findings.map(({ code }) => code)).not.toContain('loop-buffered')
  })
})

describe('trouble on the way', () => {
  test('what is no image is refused with its reason', async () => {
    await expect(look(join(directory, 'none.raw'))).rejects.toMatchObject({ code: 'image-missing' })
    await expect(look(directory)).rejects.toMatchObject({ code: 'image-kind' })
    await expect(look('/dev/null')).rejects.toMatchObject({ code: 'image-kind' })
    await expect(look('/dev/a\0b')).rejects.toMatchObject({ code: 'image-missing' })
    await expect(look(join(directory, 'x'.repeat(300)))).rejects.toMatchObject({ code: 'image-missing' })
  })

  test('what is opened for a question is of the kind that it was asked about: to open a tape moves it', () => {
    expect(perform({ kind: 'probeExtents', path: '/dev/null' })).toBe(-ERRNO.EINVAL)
    expect(perform({ kind: 'probeLoop', path: '/dev/null' })).toBe(-ERRNO.EINVAL)
  })

  test('a path that vanishes at any step: an answer or a refusal, never anything else', async () => {
    const steps = await countCalls(sparseImage('counted.raw'))
    expect(steps).toBeGreaterThan(8)
    for (let vanishAt = 0; vanishAt < steps; vanishAt += 1) {
      const path = sparseImage(`vanishing-${vanishAt}.raw`)
      let calls = 0
      const runner: BlockingRunner = {
        run: (call) => {
          if (calls === vanishAt) rmSync(path)
          calls += 1
          return inline.run(call)
        },
      }
      const outcome = await new Preflight(runner).check(path, { users: true, timeoutMs: 5_000 }).then(
        ({ verdict }) => verdict,
        (error: unknown) => (error as { code?: string }).code,
      )
      expect(['condition', 'unsafe', 'image-missing']).toContain(outcome)
    }
  })

  test('a call that hangs: what is waited for is said in time, with what is known; the next one joins the same walk', async () => {
    const path = sparseImage()
    for (const hanging of ['resolvePath', 'statPath', 'probeDirect', 'statFileSystem']) {
      let hung = 0
      const runner: BlockingRunner = {
        run: (call) => {
          if (call.kind !== hanging) return inline.run(call)
          hung += 1
          return new Promise(() => undefined)
        },
      }
      const preflight = new Preflight(runner)
      const begunMs = performance.now()
      const report = await preflight.check(path, { users: true, timeoutMs: 200 })
      // What hangs does so for ever; the walk itself takes its time on a busy machine.
      expect(performance.now() - begunMs).toBeLessThan(10_000)
      expect(report.waitingFor).toContain(path)
      expect(report.codes).toContain('not-answering')
      expect(report.verdict).not.toBe('safe')
      await preflight.check(path, { users: true, timeoutMs: 50 })
      expect(hung).toBe(1)
    }
  })

  test('before the path answers, the mount table already says what it is on', async () => {
    const path = join(await mountTmpfs(), 'image.raw')
    const runner: BlockingRunner = {
      run: (call) => (call.kind === 'resolvePath' ? new Promise(() => undefined) : inline.run(call)),
    }
    const report = await new Preflight(runner).check(path, { users: false, timeoutMs: 100 })
    expect(report.codes).toEqual(['volatile-memory', 'not-answering'])
    expect(report.verdict).toBe('unsafe')
    await sleep(0)
  })

  test('without the right to: a clear answer', async () => {
    const path = sparseImage()
    await runChecked('chmod', ['600', path])
    const denied: BlockingRunner = {
      run: (call) => {
        if (call.kind === 'probeDirect') return Promise.resolve({ works: false, alignmentBytes: 0, errno: 13 } as never)
        if (call.kind === 'probeExtents' || call.kind === 'probeMapper') return Promise.resolve(-13 as never)
        return inline.run(call)
      },
    }
    const report = await new Preflight(denied).check(path, { users: false, timeoutMs: 5_000 })
    expect(report.codes).toContain('direct-unproved')
    expect(report.verdict).toBe('condition')
  })
})

async function countCalls(path: string): Promise<number> {
  let calls = 0
  const runner: BlockingRunner = {
    run: (call) => {
      calls += 1
      return inline.run(call)
    },
  }
  await new Preflight(runner).check(path, { users: true, timeoutMs: 5_000 })
  return calls
}
