/**
 * The programs that people use with NBD servers, against the real daemon: libnbd's, QEMU's and fio. What they read is
 * compared with the image itself, never only with what they wrote a moment ago through the same server.
 */

import { randomBytes } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ENGINES, startDaemon } from '../support/daemon.ts'
import type { Daemon } from '../support/daemon.ts'
import { runChecked, runProgram } from '../support/foreign-program.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { connectFrontend } from '../support/nbd-frontend.ts'
import { Scratch } from '../support/scratch.ts'

const SIZE_BYTES = 32 * MEBIBYTE

describe.each(ENGINES)('foreign programs against the %s engine', (engine) => {
  const scratch = new Scratch()
  let image: string
  let daemon: Daemon

  beforeAll(async () => {
    image = makeImage(scratch, SIZE_BYTES, 'numbered')
    daemon = await startDaemon(scratch, {
      engine,
      exports: [
        { name: 'vda', path: image, description: 'the first disk' },
        { name: 'vdb', path: makeImage(scratch, MEBIBYTE), read_only: true },
      ],
    })
  })
  afterAll(() => scratch.dispose())

  test('nbdinfo lists every export with its size and abilities', async () => {
    const { stdout } = await runChecked('nbdinfo', ['--list', '--json', daemon.uri('')])
    const listed = JSON.parse(stdout) as { protocol: string; exports: Record<string, unknown>[] }
    expect(listed.protocol).toBe('newstyle-fixed')
    const named = new Map(listed.exports.map((entry) => [entry['export-name'], entry]))
    expect([...named.keys()].sort()).toEqual(['vda', 'vdb'])
    expect(named.get('vda')).toMatchObject({
      description: 'the first disk',
      'export-size': SIZE_BYTES,
      is_read_only: false,
      can_flush: true,
      can_fua: true,
      can_trim: true,
      can_zero: true,
      can_cache: true,
      can_multi_conn: false,
    })
    expect(named.get('vdb')).toMatchObject({ 'export-size': MEBIBYTE, is_read_only: true })
  })

  test('nbdcopy writes a random image and reads the same back', async () => {
    const directory = scratch.directory('nbdcopy')
    const source = join(directory, 'source.raw')
    const copy = join(directory, 'copy.raw')
    writeFileSync(source, randomBytes(SIZE_BYTES))
    await runChecked('nbdcopy', ['--flush', source, daemon.uri('vda')])
    expect(readFileSync(image).equals(readFileSync(source)), 'the image holds what was copied').toBe(true)
    await runChecked('nbdcopy', [daemon.uri('vda'), copy])
    expect(readFileSync(copy).equals(readFileSync(source)), 'the copy back holds it too').toBe(true)
  })

  test('qemu-img converts to the export, compares and describes it', async () => {
    const source = makeImage(scratch, SIZE_BYTES, 'numbered')
    await runChecked('qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw', source, daemon.uri('vda')])
    expect(readFileSync(image).equals(readFileSync(source)), 'the image holds what was converted').toBe(true)
    const same = await runChecked('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', source, daemon.uri('vda')])
    expect(same.stdout).toContain('identical')
    const { stdout } = await runChecked('qemu-img', ['info', '--output=json', '-f', 'raw', daemon.uri('vda')])
    expect(JSON.parse(stdout)).toMatchObject({ 'virtual-size': SIZE_BYTES })
    const changed = readFileSync(source)
    changed[SIZE_BYTES - 1] = 0xff
    writeFileSync(source, changed)
    const different = await runProgram('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', source, daemon.uri('vda')])
    expect(different.status, 'a difference in the last byte is seen').toBe(1)
  })

  test('qemu-io writes patterns, aligned and not, and finds them where they belong', async () => {
    const commands = [
      'write -P 0x11 0 1M',
      'write -P 0x22 1000 3000',
      'write -f -P 0x33 65535 2',
      'write -P 0x44 4M 9M',
      'write -z 128k 64k',
      'write -z -u 256k 64k',
      'discard 5M 1M',
      'flush',
      'write -P 0x55 33554431 1',
      'read -P 0x11 0 1000',
      'read -P 0x22 1000 3000',
      'read -P 0x11 4000 61535',
      'read -P 0x33 65535 2',
      'read -P 0 128k 64k',
      'read -P 0 256k 64k',
      'read -P 0x11 320k 64k',
      'read -P 0x44 4M 1M',
      'read -P 0x44 6M 7M',
      'read -P 0x55 33554431 1',
    ]
    const outcome = await runChecked('qemu-io', [
      '-f',
      'raw',
      ...commands.flatMap((command) => ['-c', command]),
      daemon.uri('vda'),
    ])
    expect(outcome.stdout).not.toContain('failed')
    const bytes = readFileSync(image)
    expect(bytes.subarray(1_000, 4_000).every((byte) => byte === 0x22)).toBe(true)
    expect([bytes[65_534], bytes[65_535], bytes[65_536], bytes[65_537]]).toEqual([0x11, 0x33, 0x33, 0x11])
    expect(bytes[SIZE_BYTES - 1]).toBe(0x55)
    const wrong = await runProgram('qemu-io', ['-f', 'raw', '-c', 'read -P 0x12 0 512', daemon.uri('vda')])
    expect(`${wrong.stdout}${wrong.stderr}`, 'a wrong pattern is seen').toContain('Pattern verification failed')
  })

  test.each([
    ['4 KiB blocks at random', ['--rw=randwrite', '--bs=4k', '--iodepth=32']],
    ['unaligned mixes', ['--rw=randrw', '--bsrange=512-17k', '--bs_unaligned=1', '--iodepth=16']],
  ])('fio verifies %s by checksum', async (_name, workload) => {
    const common = [
      '--name=verify',
      '--ioengine=nbd',
      `--uri=${daemon.uri('vda')}`,
      '--size=8M',
      '--verify=crc32c',
      '--randseed=20060731',
    ]
    const job = [...common, ...workload, '--verify_fatal=1']
    await runChecked('fio', [...job, '--do_verify=1'], { directory: scratch.directory('fio') })
    const frontend = await connectFrontend(scratch, daemon.address, 'vda')
    const spoilt = await frontend.read(4 * MEBIBYTE, 64 * 1024)
    for (let position = 0; position < spoilt.length; position += 256) spoilt[position] = (spoilt[position] ?? 0) ^ 1
    await frontend.request('WRITE', { offset: 4 * MEBIBYTE, data: spoilt })
    await frontend.disconnect()
    const outcome = await runProgram('fio', [...job, '--verify_only=1'], { directory: scratch.directory('fio') })
    expect(outcome.status, 'spoilt blocks are seen').not.toBe(0)
  })
})
