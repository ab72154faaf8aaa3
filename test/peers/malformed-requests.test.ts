/**
 * What a client must not send, sent all the same: by libnbd with its checks off, and by hand where libnbd cannot. The
 * server answers the error that the specification asks for, touches nothing, and keeps the connection wherever it still
 * knows where the next request begins.
 */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ENGINES, startDaemon } from '../support/daemon.ts'
import type { Daemon } from '../support/daemon.ts'
import { runChecked } from '../support/foreign-program.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { answerWithin, connectFrontend, encodeRequest, NBD_ERRORS, numberedBlock } from '../support/nbd-frontend.ts'
import { Scratch } from '../support/scratch.ts'

/** A type of request in the header's bytes 6 and 7. */
function requestOfType(type: number, cookie: bigint, length: number): Buffer {
  const bytes = encodeRequest('READ', cookie, { length })
  bytes.writeUInt16BE(type, 6)
  return bytes
}

describe.each(ENGINES)('malformed requests against the %s engine', (engine) => {
  const scratch = new Scratch()
  let image: string
  let daemon: Daemon

  beforeAll(async () => {
    image = makeImage(scratch, MEBIBYTE)
    daemon = await startDaemon(scratch, {
      engine,
      exports: [
        { name: 'vda', path: image },
        { name: 'vdb', path: makeImage(scratch, MEBIBYTE), read_only: true },
      ],
    })
  })
  afterAll(() => scratch.dispose())

  test('libnbd without its checks gets the right error for each, and the connection lives', async () => {
    const script = join(import.meta.dirname, 'malformed-requests.py')
    const { stdout } = await runChecked('/usr/bin/python3', [script, daemon.uri('vda'), daemon.uri('vdb')])
    const results = JSON.parse(stdout) as Record<string, string>
    expect(results).toEqual({
      'read past the end': 'EINVAL',
      'read across the end': 'EINVAL',
      'read at the top of the address space': 'EINVAL',
      'read that wraps around': 'EINVAL',
      'write past the end': 'ENOSPC',
      'write across the end': 'ENOSPC',
      'write that wraps around': 'ENOSPC',
      'trim past the end': 'EINVAL',
      'trim that wraps around': 'EINVAL',
      'zero past the end': 'ENOSPC',
      'zero across the end': 'ENOSPC',
      'cache past the end': 'EINVAL',
      'read with an unknown flag': 'EINVAL',
      'write with an unknown flag': 'EINVAL',
      'flush with an unknown flag': 'EINVAL',
      'trim with an unknown flag': 'EINVAL',
      'zero with an unknown flag': 'EINVAL',
      'read with FUA': 'ok',
      'flush with FUA': 'ok',
      'trim with FUA': 'ok',
      'zero with FUA': 'ok',
      'first block': 'untouched',
      'last block': 'untouched',
      'write to a read-only export': 'EPERM',
      'trim of a read-only export': 'EPERM',
      'zero of a read-only export': 'EPERM',
      'read of a read-only export': 'ok',
      'read-only block': 'untouched',
    })
    expect(readFileSync(image).every((byte) => byte === 0)).toBe(true)
  })

  test('a command that does not exist is refused, and the connection lives', async () => {
    const frontend = await connectFrontend(scratch, daemon.address, 'vda')
    for (const type of [7, 8, 9, 0x7fff, 0xffff]) {
      const sent = frontend.expect('FLUSH')
      frontend.sendBytes(requestOfType(type, sent.cookie, 4_096))
      expect((await answerWithin(sent, 5_000)).error, `command ${type}`).toBe(NBD_ERRORS.EINVAL)
    }
    await frontend.request('FLUSH')
    await frontend.disconnect()
  })

  test('a request without its magic number ends the connection and nothing else', async () => {
    const witness = await connectFrontend(scratch, daemon.address, 'vda')
    const frontend = await connectFrontend(scratch, daemon.address, 'vda')
    const bytes = encodeRequest('WRITE', 1n, { offset: 0, data: numberedBlock(7) })
    bytes.writeUInt32BE(0x25609512, 0)
    frontend.sendBytes(bytes)
    await frontend.ended
    expect((await witness.read(0, 4_096)).every((byte) => byte === 0)).toBe(true)
    await witness.disconnect()
  })

  test('half a request, then silence and a lost connection, writes nothing', async () => {
    const frontend = await connectFrontend(scratch, daemon.address, 'vda')
    frontend.sendBytes(encodeRequest('WRITE', 1n, { offset: 0, data: numberedBlock(7) }).subarray(0, 28 + 2_048))
    frontend.drop()
    await frontend.ended
    const witness = await connectFrontend(scratch, daemon.address, 'vda')
    expect((await witness.read(0, 4_096)).every((byte) => byte === 0)).toBe(true)
    await witness.disconnect()
  })

  test('a payload longer than any server takes does not take the server down', async () => {
    const frontend = await connectFrontend(scratch, daemon.address, 'vda')
    frontend.sendBytes(encodeRequest('WRITE', 1n, { offset: 0, length: 0xffff_ffff }))
    const next = await connectFrontend(scratch, daemon.address, 'vda')
    expect((await next.read(0, 4_096)).every((byte) => byte === 0)).toBe(true)
    frontend.drop()
    await next.disconnect()
  })
})
