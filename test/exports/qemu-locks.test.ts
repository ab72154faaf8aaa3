/**
 * A daemon and QEMU's programs over one image: whoever has it open for writing keeps the other off, in either order, and
 * neither is kept off for longer than that.
 */

import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { ENGINES } from '../support/daemon.ts'
import { eventually } from '../support/eventually.ts'
import { runProgram, startProgram } from '../support/foreign-program.ts'
import type { Outcome } from '../support/foreign-program.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { connectFrontend } from '../support/nbd-frontend.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { BLOCK, newestOf, refusal, startHost } from './ownership-rig.ts'

const PATTERN = 0x5a
/** Longer than the test. */
const HOLD_MS = 600_000

function writing(path: string, ...more: string[]): string[] {
  return ['-f', 'raw', '-c', `write -P ${PATTERN} 0 4096`, ...more.flatMap((command) => ['-c', command]), path]
}

function write(path: string): Promise<Outcome> {
  return runProgram('qemu-io', writing(path))
}

describe.each(ENGINES)('with the %s engine', (engine) => {
  test('qemu-io may not write to what is open here, and may once it is closed', async () => {
    const scratch = scratchOfTest()
    const path = makeImage(scratch, MEBIBYTE)
    const daemon = await startHost(scratch, path, { engine })
    const frontend = await connectFrontend(scratch, daemon.address, 'vda')
    await frontend.request('WRITE', { offset: 0, data: BLOCK })
    const refused = await write(path)
    expect([refused.status, refused.stderr]).toEqual([1, expect.stringContaining('Failed to get "write" lock')])
    expect((await frontend.read(0, BLOCK.length)).equals(BLOCK)).toBe(true)
    await daemon.close('vda')
    expect(await write(path)).toMatchObject({ status: 0, stderr: '' })
  })

  test('an open is refused while qemu-io has it, changes no record, and is not refused afterwards', async () => {
    const scratch = scratchOfTest()
    const path = makeImage(scratch, MEBIBYTE)
    const daemon = await startHost(scratch, path, { engine })
    await daemon.close('vda')
    const record = newestOf(path)
    const other = startProgram(scratch, 'qemu-io', writing(path, `sleep ${HOLD_MS}`))
    await eventually('its write', () => readFileSync(path)[0] === PATTERN)
    expect(await refusal(daemon, 'open', { timeoutMs: 500 })).toMatchObject({
      code: 'image-in-use',
      detail: expect.stringContaining('permission "write"') as string,
    })
    expect((await daemon.status('vda')).state).not.toBe('open')
    expect(newestOf(path)).toEqual(record)
    await other.stop()
    expect(await daemon.open('vda')).toMatchObject({ state: 'open', generation: 2 })
    expect((await write(path)).status).toBe(1)
  })
})
