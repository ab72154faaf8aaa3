import { readFileSync, renameSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, onTestFinished, test } from 'vitest'
import { claimGenerations, proveFree, proveFreeByPath } from '../../src/ownership/generation-lock.ts'
import type { GenerationLock } from '../../src/ownership/generation-lock.ts'
import { closeDescriptor } from '../../src/posix/descriptor.ts'
import { ERRNO } from '../../src/posix/errno.ts'
import { OPEN, openFile } from '../../src/posix/file.ts'
import { setLock } from '../../src/posix/locks.ts'
import { measureImage } from '../../src/blocking/image-measurement.ts'
import type { ImageMark } from '../../src/blocking/image-measurement.ts'
import { inlineRunner } from '../blocking/inline-runner.ts'
import { spawnNode, waitForLine } from '../support/child-process.ts'
import { eventually } from '../support/eventually.ts'
import { scratchOfTest, temporaryDirectory } from '../support/temporary-directory.ts'
import { startWitnessDisk } from '../support/witness-disk.ts'

const RIG = join(import.meta.dirname, 'holder-rig.mjs')
const BASE = 2n ** 62n

function makeImage(): string {
  const path = join(temporaryDirectory(), 'image.raw')
  writeFileSync(path, '')
  truncateSync(path, 2 ** 20)
  return path
}

function markAt(path: string): ImageMark {
  const measured = measureImage({ path, write: false, direct: false, dataSync: false, exclusive: false })
  if (!('image' in measured)) throw new Error(`${path} cannot be measured`)
  closeDescriptor(measured.image.descriptor)
  return measured.image
}

function open(path: string): { readonly descriptor: number; readonly close: () => void } {
  const descriptor = openFile(path, OPEN.readWrite)
  expect(descriptor).toBeGreaterThanOrEqual(0)
  let isOpen = true
  const close = (): void => {
    if (isOpen) closeDescriptor(descriptor)
    isOpen = false
  }
  onTestFinished(close)
  return { descriptor, close }
}

async function claim(descriptor: number, draining: readonly number[] = []): Promise<GenerationLock> {
  const outcome = await claimGenerations(inlineRunner, descriptor, draining)
  if (outcome.kind !== 'claimed') throw new Error(`the claim is ${JSON.stringify(outcome)}`)
  return outcome.lock
}

/** What the kernel holds for the file, as [first, last] of each lock behind 2^62. */
function locksOf(path: string): readonly string[] {
  const { ino } = statSync(path)
  const lines = readFileSync('/proc/locks', 'utf8').split('\n')
  return lines
    .filter((line) => line.includes(`:${ino} `))
    .map((line) => line.split(' ').slice(-2))
    .map(([first, last]) => `${BigInt(first ?? '0') - BASE}..${last === 'EOF' ? last : BigInt(last ?? '0') - BASE}`)
    .sort()
}

test('a claim covers everything from 2^62 on, and narrows to one byte', async () => {
  const path = makeImage()
  const lock = await claim(open(path).descriptor)
  expect(locksOf(path)).toEqual(['0..EOF'])
  expect(lock.generation).toBeNull()
  expect(await lock.narrow(7)).toBe(0)
  expect(locksOf(path)).toEqual(['7..7'])
  expect(lock.generation).toBe(7)
  await expect(lock.narrow(8)).rejects.toThrow('narrowed once')
})

test('a claim leaves out the generations that are still draining', async () => {
  const path = makeImage()
  const source = await claim(open(path).descriptor)
  await source.narrow(3)
  const { descriptor } = open(path)
  expect(await claimGenerations(inlineRunner, descriptor, [])).toEqual({ kind: 'busy' })
  const destination = await claim(descriptor, [3])
  expect(await destination.narrow(4)).toBe(0)
  expect(locksOf(path)).toEqual(['3..3', '4..4'])
  const third = open(path).descriptor
  expect(await claimGenerations(inlineRunner, third, [3])).toEqual({ kind: 'busy' })
  expect(await claimGenerations(inlineRunner, third, [4])).toEqual({ kind: 'busy' })
})

test('a claim that fails leaves no lock behind, whatever it had taken before', async () => {
  const path = makeImage()
  await (await claim(open(path).descriptor)).narrow(9)
  const { descriptor } = open(path)
  // The ranges before and between the exceptions are free and are taken first; the last one is not.
  expect(await claimGenerations(inlineRunner, descriptor, [2, 5])).toEqual({ kind: 'busy' })
  expect(locksOf(path)).toEqual(['9..9'])
})

test('closing the last descriptor frees the generation, and a fresh one proves it', async () => {
  const path = makeImage()
  const { descriptor, close } = open(path)
  await (await claim(descriptor)).narrow(5)
  expect(await proveFreeByPath(inlineRunner, markAt(path), 5)).toEqual({ kind: 'held' })
  expect(await proveFreeByPath(inlineRunner, markAt(path), 6)).toEqual({ kind: 'free' })
  // The holder itself cannot be asked: its own lock is not in its way.
  expect(await proveFree(inlineRunner, descriptor, 5)).toEqual({ kind: 'free' })
  close()
  expect(await proveFreeByPath(inlineRunner, markAt(path), 5)).toEqual({ kind: 'free' })
})

test('another file in the place of the image proves nothing', async () => {
  const path = makeImage()
  const mark = markAt(path)
  await (await claim(open(path).descriptor)).narrow(5)
  renameSync(path, `${path}.moved`)
  writeFileSync(path, '')
  expect(await proveFreeByPath(inlineRunner, mark, 5)).toEqual({ kind: 'failed', errno: ERRNO.ESTALE })
  renameSync(`${path}.moved`, path)
  expect(await proveFreeByPath(inlineRunner, mark, 5)).toEqual({ kind: 'held' })
})

test('what cannot be asked proves nothing', async () => {
  const missing = join(temporaryDirectory(), 'missing')
  expect(await proveFreeByPath(inlineRunner, { ...markAt(makeImage()), realPath: missing }, 1)).toEqual({
    kind: 'failed',
    errno: ERRNO.ENOENT,
  })
  expect(await proveFree(inlineRunner, 99_999, 1)).toEqual({ kind: 'failed', errno: ERRNO.EBADF })
  expect(await claimGenerations(inlineRunner, 99_999, [])).toEqual({ kind: 'failed', errno: ERRNO.EBADF })
  await expect(proveFree(inlineRunner, 0, 0)).rejects.toThrow('0 is not a generation')
})

test('a descriptor that is open for reading only cannot claim', async () => {
  const descriptor = openFile(makeImage(), OPEN.readOnly)
  expect(await claimGenerations(inlineRunner, descriptor, [])).toEqual({ kind: 'failed', errno: ERRNO.EBADF })
  closeDescriptor(descriptor)
})

test('whatever drains, a claim succeeds exactly when nothing else is held', async () => {
  const path = makeImage()
  const generation = fc.oneof(fc.integer({ min: 1, max: 12 }), fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }))
  const generations = fc.uniqueArray(generation, { maxLength: 6 })
  const property = fc.asyncProperty(generations, generations, async (held, draining) => {
    const holder = openFile(path, OPEN.readWrite)
    const claimant = openFile(path, OPEN.readWrite)
    try {
      for (const number of held) expect(setLock(holder, 'exclusive', BASE + BigInt(number), 1n)).toBe(0)
      const before = locksOf(path)
      const outcome = await claimGenerations(inlineRunner, claimant, draining)
      const others = held.filter((number) => !draining.includes(number))
      expect(outcome.kind).toBe(others.length === 0 ? 'claimed' : 'busy')
      if (outcome.kind !== 'claimed') {
        expect(locksOf(path)).toEqual(before)
        return
      }
      const next = Math.min(Math.max(0, ...draining) + 1, Number.MAX_SAFE_INTEGER)
      if (draining.includes(next)) return
      expect(await proveFree(inlineRunner, holder, next)).toEqual({ kind: 'held' })
      expect(await outcome.lock.narrow(next)).toBe(0)
      expect(locksOf(path)).toContain(`${next}..${next}`)
      expect(await proveFree(inlineRunner, holder, next + 1 > Number.MAX_SAFE_INTEGER ? 1 : next + 1)).toEqual({
        kind: 'free',
      })
    } finally {
      closeDescriptor(holder)
      closeDescriptor(claimant)
    }
  })
  await fc.assert(property, { numRuns: 100 })
})

test('the death of an idle holder frees its generation', async () => {
  const path = makeImage()
  const holder = spawnNode(RIG, [path, '11'])
  await waitForLine(holder, /^locked$/)
  expect(await proveFreeByPath(inlineRunner, markAt(path), 11)).toEqual({ kind: 'held' })
  await holder.stop('SIGKILL')
  await eventually(
    'the lock to be free',
    async () => (await proveFreeByPath(inlineRunner, markAt(path), 11)).kind === 'free',
  )
})

test('a holder killed during a write keeps its generation until the write has landed', async () => {
  const disk = await startWitnessDisk(scratchOfTest(), { writeDelayMs: 1_500 })
  const holder = spawnNode(RIG, [disk.path, '12', 'write'])
  await waitForLine(holder, /^submitted$/)
  expect(disk.log.inDisk()).toHaveLength(1)
  holder.signal('SIGKILL')
  const { descriptor } = open(disk.path)
  expect(await claimGenerations(inlineRunner, descriptor, [])).toEqual({ kind: 'busy' })
  await eventually(
    'the generation to be free',
    async () => (await proveFree(inlineRunner, descriptor, 12)).kind === 'free',
  )
  expect(disk.log.inDisk()).toEqual([])
  expect(
    readFileSync(disk.backingPath)
      .subarray(0, 4096)
      .every((byte) => byte === 0xee),
  ).toBe(true)
  expect((await claimGenerations(inlineRunner, descriptor, [])).kind).toBe('claimed')
  expect((await holder.exited).stdout).not.toContain('written')
})
