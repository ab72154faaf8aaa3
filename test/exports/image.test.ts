import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  constants,
  linkSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import {
  closeImage,
  IMAGE_DEFAULTS,
  imageIdentity,
  imageKey,
  inspectImage,
  openImage,
} from '../../src/exports/image.ts'
import type { ImageMode, ImageOptions, OpenImage } from '../../src/exports/image.ts'
import { Refusal } from '../../src/foundation/refusal.ts'
import { sameImage } from '../../src/ownership/home.ts'
import { closesOnExec, descriptorFlags } from '../../src/posix/descriptor.ts'
import { inlineRunner } from '../blocking/inline-runner.ts'
import { Scratch } from '../support/scratch.ts'
import { startWitnessDisk } from '../support/witness-disk.ts'

const MIB = 2 ** 20
const NOBODY = 65534
const BUFFERED: ImageOptions = { ...IMAGE_DEFAULTS, cache: 'buffered' }

let scratch: Scratch
let directory: string

beforeEach(() => {
  scratch = new Scratch()
  directory = scratch.directory('image')
  const descriptorsBefore = readdirSync('/proc/self/fd').length
  return async () => {
    await scratch.dispose()
    // Every test ends with as many open descriptors as it began with: refusals leave nothing behind.
    expect(readdirSync('/proc/self/fd').length).toBe(descriptorsBefore)
  }
})

function makeImage(name = 'image.raw', sizeBytes = MIB): string {
  const path = join(directory, name)
  writeFileSync(path, '')
  truncateSync(path, sizeBytes)
  return path
}

function attachLoop(path: string, ...options: string[]): string {
  const device = execFileSync('losetup', ['--find', '--show', ...options, path], { encoding: 'utf8' }).trim()
  scratch.defer(device, () => {
    execFileSync('losetup', ['--detach', device])
  })
  return device
}

async function open(path: string, mode: ImageMode, options: ImageOptions = IMAGE_DEFAULTS): Promise<OpenImage> {
  const image = await openImage(inlineRunner, path, mode, options)
  scratch.defer(`descriptor of ${path}`, () => closeImage(inlineRunner, image))
  return image
}

async function refusal(path: string, mode: ImageMode = 'write', options: ImageOptions = IMAGE_DEFAULTS) {
  const outcome: unknown = await openImage(inlineRunner, path, mode, options).catch((error: unknown) => error)
  if (!(outcome instanceof Refusal)) throw new Error(`${path} was not refused`, { cause: outcome })
  expect(outcome.message).toContain(path)
  return { code: outcome.code, detail: outcome.message }
}

describe('a regular file', () => {
  test('is measured', async () => {
    const path = makeImage()
    const { facts } = await open(path, 'write')
    const stats = statSync(path)
    expect(facts).toEqual({
      realPath: path,
      kind: 'file',
      sizeBytes: MIB,
      alignmentBytes: expect.toSatisfy((bytes: unknown) => bytes === 512 || bytes === 4096) as number,
      device: execFileSync('stat', ['-c', '%Hd:%Ld', path], { encoding: 'utf8' }).trim(),
      inode: stats.ino,
      inodeText: String(stats.ino),
      links: 1,
      fileSystem: expect.any(String) as string,
      wwid: null,
      deviceReadOnly: false,
    })
  })

  test.each([
    { mode: 'write', durability: 'sync', cache: 'direct', expected: ['O_RDWR', 'O_DIRECT', 'O_DSYNC'] },
    { mode: 'write', durability: 'writeback', cache: 'direct', expected: ['O_RDWR', 'O_DIRECT'] },
    { mode: 'write', durability: 'sync', cache: 'buffered', expected: ['O_RDWR', 'O_DSYNC'] },
    { mode: 'standby', durability: 'sync', cache: 'direct', expected: ['O_DIRECT'] },
    { mode: 'read-only', durability: 'sync', cache: 'direct', expected: ['O_DIRECT'] },
  ] as const)('is opened for $mode, $durability, $cache with $expected', async (given) => {
    const { descriptor } = await open(makeImage(), given.mode, { ...IMAGE_DEFAULTS, ...given })
    const flags = descriptorFlags(descriptor.number)
    const set = (['O_RDWR', 'O_DIRECT', 'O_DSYNC'] as const).filter((flag) => (flags & constants[flag]) !== 0)
    expect(set).toEqual(given.expected)
    expect(closesOnExec(descriptor.number)).toBe(true)
  })

  test('is the same under every name that leads to it, and another than its neighbour', async () => {
    const path = makeImage()
    const alias = join(directory, 'alias')
    symlinkSync(path, alias)
    const [first, second] = [await inspectImage(inlineRunner, path), await inspectImage(inlineRunner, alias)]
    const neighbour = await inspectImage(inlineRunner, makeImage('neighbour.raw'))
    expect(second.realPath).toBe(path)
    expect(imageKey(second)).toBe(imageKey(first))
    expect(imageKey(neighbour)).not.toBe(imageKey(first))
    expect(sameImage(imageIdentity(first), imageIdentity(second))).toBe(true)
    expect(sameImage(imageIdentity(first), imageIdentity(neighbour))).toBe(false)
    renameSync(path, join(directory, 'moved.raw'))
    const moved = await inspectImage(inlineRunner, join(directory, 'moved.raw'))
    expect(sameImage(imageIdentity(first), imageIdentity(moved))).toBe(true)
  })

  test('on a file system that declares no alignment is measured by reading', async () => {
    const disk = await startWitnessDisk(scratch, { sizeBytes: MIB })
    const { facts } = await open(disk.path, 'write')
    expect(facts).toMatchObject({ fileSystem: 'fuse', alignmentBytes: 512, sizeBytes: MIB })
  })
})

describe('refused by kind and name', () => {
  test('what is missing', async () => {
    expect(await refusal(join(directory, 'missing'))).toMatchObject({ code: 'image-missing' })
    symlinkSync(join(directory, 'nowhere'), join(directory, 'dangling'))
    expect(await refusal(join(directory, 'dangling'))).toMatchObject({ code: 'image-missing' })
    const below = await refusal(join(makeImage(), 'below'))
    expect(below.code).toBe('image-missing')
    symlinkSync('loop', join(directory, 'loop'))
    expect((await refusal(join(directory, 'loop'))).detail).toContain('ELOOP')
  })

  test('a directory, a FIFO, a socket, a character device', async () => {
    const fifo = join(directory, 'fifo')
    execFileSync('mkfifo', [fifo])
    const socket = join(directory, 'socket')
    const server = createServer().listen(socket)
    onTestFinished(() => {
      server.close()
    })
    await new Promise((resolve) => server.once('listening', resolve))
    const kinds = {
      [directory]: 'a directory',
      [fifo]: 'a FIFO',
      [socket]: 'a socket',
      '/dev/null': 'a character device',
    }
    for (const [path, kind] of Object.entries(kinds)) {
      expect(await refusal(path, 'read-only')).toEqual({
        code: 'image-kind',
        detail: `${path} is ${kind}, neither a regular file nor a block device`,
      })
    }
    await new Promise((resolve) => server.close(resolve))
  })

  test('a second hard link, unless it is allowed', async () => {
    const path = makeImage()
    linkSync(path, join(directory, 'second'))
    expect(await refusal(path)).toMatchObject({ code: 'image-links', detail: expect.stringContaining('2 hard links') })
    const { facts } = await open(path, 'write', { ...IMAGE_DEFAULTS, linksMax: 2 })
    expect(facts.links).toBe(2)
  })
})

describe('refused by size', () => {
  test.each([
    [0, 'is empty'],
    [1, 'odd size: 1 bytes'],
    [MIB + 513, 'resize it to 1049600'],
  ])('%i bytes', async (sizeBytes, words) => {
    const path = makeImage('image.raw', sizeBytes)
    for (const options of [IMAGE_DEFAULTS, BUFFERED]) {
      const { code, detail } = await refusal(path, 'write', options)
      expect(code).toBe('image-size')
      expect(detail).toContain(words)
    }
  })

  test('one sector is enough', async () => {
    expect((await open(makeImage('sector', 512), 'write', BUFFERED)).facts.sizeBytes).toBe(512)
  })

  test('more than can be counted exactly', async () => {
    const mount = join(directory, 'memory')
    mkdirSync(mount)
    execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', mount])
    scratch.defer(mount, () => {
      execFileSync('umount', [mount])
    })
    const path = join(mount, 'huge')
    execFileSync('truncate', ['-s', '9007199254741504', path])
    expect(await refusal(path, 'write', BUFFERED)).toMatchObject({
      code: 'image-size',
      detail: `${path} is larger than 9007199254740991 bytes`,
    })
  })
})

describe('refused by what may not or cannot be done', () => {
  test('an immutable file for writing, not for reading', async () => {
    const path = makeImage()
    execFileSync('chattr', ['+i', path])
    scratch.defer('immutable flag', () => {
      execFileSync('chattr', ['-i', path])
    })
    expect(await refusal(path)).toMatchObject({ code: 'image-permission', detail: expect.stringContaining('EPERM') })
    expect((await open(path, 'standby')).facts.sizeBytes).toBe(MIB)
  })

  test("another user's file, and one behind another user's directory", async () => {
    const path = makeImage()
    chmodSync(path, 0o600)
    const asNobody = async () => {
      process.seteuid?.(NOBODY)
      try {
        return await refusal(path, 'read-only')
      } finally {
        process.seteuid?.(0)
      }
    }
    expect((await asNobody()).detail).toContain('EACCES on its path')
    chmodSync(directory, 0o755)
    const denied = await asNobody()
    expect(denied).toMatchObject({ code: 'image-permission', detail: expect.stringContaining('may not (EACCES)') })
  })

  test('a file system that is read-only', async () => {
    const mount = join(directory, 'mount')
    mkdirSync(mount)
    execFileSync('mount', ['--bind', directory, mount])
    scratch.defer(mount, () => {
      execFileSync('umount', [mount])
    })
    execFileSync('mount', ['-o', 'remount,bind,ro', mount])
    makeImage()
    const path = join(mount, 'image.raw')
    expect(await refusal(path)).toMatchObject({
      code: 'image-permission',
      detail: expect.stringContaining('read-only file system'),
    })
    expect((await open(path, 'read-only')).facts.sizeBytes).toBe(MIB)
  })

  test('a file system without direct I/O, unless the export is buffered', async () => {
    const mount = join(directory, 'mount')
    mkdirSync(mount)
    execFileSync('mount', ['-t', 'ramfs', 'ramfs', mount])
    scratch.defer(mount, () => {
      execFileSync('umount', [mount])
    })
    const path = join(mount, 'image.raw')
    writeFileSync(path, Buffer.alloc(MIB))
    const { code, detail } = await refusal(path)
    expect(code).toBe('image-no-direct')
    expect(detail).toContain('ramfs')
    expect(detail).toContain('cache = "buffered"')
    const image = await openImage(inlineRunner, path, 'write', BUFFERED)
    expect(image.facts.alignmentBytes).toBe(512)
    await closeImage(inlineRunner, image)
  })

  test('a disk that fails when it is read', async () => {
    const disk = await startWitnessDisk(scratch, { sizeBytes: MIB })
    await disk.cutPower()
    const { code, detail } = await refusal(disk.path, 'read-only')
    expect(code).toBe('image-io')
    expect(detail).toMatch(/E[A-Z]+/)
  })
})

describe('a block device', () => {
  test('is measured, and exclusive for whoever writes', async () => {
    const device = attachLoop(makeImage())
    const standby = await open(device, 'standby')
    expect(standby.facts).toMatchObject({
      kind: 'block',
      sizeBytes: MIB,
      alignmentBytes: 512,
      fileSystem: 'block device',
    })
    expect(standby.facts.device).toBe(`7:${device.slice('/dev/loop'.length)}`)
    await open(device, 'write')
    expect(await refusal(device)).toMatchObject({ code: 'image-in-use' })
    expect(imageKey((await open(device, 'standby')).facts)).toBe(imageKey(standby.facts))
  })

  test('with large blocks needs large alignment', async () => {
    const device = attachLoop(makeImage(), '--sector-size', '4096')
    expect((await open(device, 'write')).facts.alignmentBytes).toBe(4096)
  })

  test('that is read-only is served read-only', async () => {
    const device = attachLoop(makeImage(), '--read-only')
    expect(await refusal(device)).toMatchObject({
      code: 'image-permission',
      detail: expect.stringContaining('is a read-only device'),
    })
    expect((await open(device, 'read-only')).facts.deviceReadOnly).toBe(true)
  })

  test('that is mounted is in use', async () => {
    const path = makeImage('fs.raw', 16 * MIB)
    execFileSync('mkfs.ext4', ['-q', path])
    const device = attachLoop(path)
    const mount = join(directory, 'mount')
    mkdirSync(mount)
    execFileSync('mount', [device, mount])
    scratch.defer(mount, () => {
      execFileSync('umount', [mount])
    })
    expect(await refusal(device)).toMatchObject({ code: 'image-in-use' })
  })
})

test('an image is closed once', async () => {
  const image = await openImage(inlineRunner, makeImage(), 'write')
  await closeImage(inlineRunner, image)
  expect(image.descriptor.open).toBe(false)
  await expect(closeImage(inlineRunner, image)).rejects.toThrow('closed or given away')
  rmSync(image.facts.realPath)
})
