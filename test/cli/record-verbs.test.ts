/**
 * `interlockctl record` on the records that a real daemon has written, and on what a bad day makes of them; then what the
 * daemon makes of a repaired one.
 *
 * @module-tag slow
 */

import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { newestOf, recordsOf, refusal, startHost } from '../exports/ownership-rig.ts'
import { INTERLOCKCTL, runProgram } from '../support/control-command.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'

const record = (...argv: string[]) => runProgram(INTERLOCKCTL, ['record', ...argv])

/** As a crash of the disk, or a hand, leaves it. */
function tearNext(path: string): string {
  const torn = join(`${path}.interlock`, `${String(newestOf(path).sequence + 1).padStart(16, '0')}.json`)
  writeFileSync(torn, '{"format":"interlockd-record","version":1')
  return torn
}

test('show prints every record with its validity, by image or by folder, and needs no daemon', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const daemon = await startHost(scratch, path)
  await daemon.close('vda')
  await daemon.kill()
  const shown = await record('show', path)
  expect(shown).toMatchObject({ status: 0, stderr: '' })
  const lines = shown.stdout.split('\n')
  expect(lines[0]).toMatch(/^RECORD +VALID +STATE +GENERATION +HOLDER +NOTE$/)
  expect(lines.slice(1, 5).map((line) => line.trim().split(/ +/).slice(0, 4).join(' '))).toEqual([
    ...['1 yes opening 1', '2 yes open 1', '3 yes closing 1', '4 yes closed 1'],
  ])
  expect(shown.stdout).toMatch(/^state +closed for handover$/m)
  expect(shown.stdout).toMatch(/^drained +0 requests/m)
  const json = await record('show', `${path}.interlock`, '-o', 'json')
  const { place, records } = JSON.parse(json.stdout) as { place: string; records: { valid: boolean }[] }
  expect(place).toBe(`${path}.interlock`)
  expect(records).toMatchObject(
    recordsOf(path).map(({ sequence, state, holder, receipt }) => ({
      ...{ sequence, valid: true, record: { sequence, state, holder, receipt } },
    })),
  )
  tearNext(path)
  const torn = await record('show', path)
  expect(torn.stdout).toMatch(/^ +5 +NO +.*torn or no JSON$/m)
  expect(torn.stdout).toContain('nobody opens the image before it is repaired')
})

test('of a holder that died the repaired record opens by the lock, and by nothing less', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const first = await startHost(scratch, path)
  await first.kill()
  const torn = tearNext(path)
  const other = await startHost(scratch, path, { standby: true })
  expect(await refusal(other, 'open')).toMatchObject({ code: 'record-unreadable' })
  const plan = await record('repair', path, '--dry-run')
  expect(plan.stdout).toMatch(/^would write record 4 on top of the unreadable 3: fenced, generation 1/)
  expect(readdirSync(`${path}.interlock`)).toHaveLength(3)
  const repaired = await record('repair', path)
  expect(repaired).toMatchObject({ status: 0, stderr: '' })
  expect(repaired.stdout).toContain(`kept as ${torn}.unreadable`)
  expect(readFileSync(`${torn}.unreadable`, 'utf8')).toBe(readFileSync(torn, 'utf8'))
  expect(await refusal(other, 'open')).toMatchObject({ code: 'held-by-other' })
  const again = await startHost(scratch, path, { stateDirectory: first.stateDirectory, standby: true })
  expect(await again.open('vda')).toMatchObject({ generation: 2, clearedBy: 'lock' })
})

test('a holder that lives goes on through the repair, and closes', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const holder = await startHost(scratch, path)
  tearNext(path)
  expect((await record('repair', path)).status).toBe(0)
  expect(newestOf(path)).toMatchObject({ state: 'fenced', generation: 1 })
  const { receipt } = await holder.close('vda')
  expect(newestOf(path)).toMatchObject({ state: 'closed', generation: 1, receipt })
})

test('where anybody could have opened it is repaired on the word that nobody writes only', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  const source = await startHost(scratch, path)
  await source.close('vda')
  tearNext(path)
  const refused = await record('repair', path)
  expect(refused).toMatchObject({ status: 3, stdout: '' })
  expect(refused.stderr).toMatch(/^interlockctl: record-unreadable: .*--nobody-writes/)
  const word = await record('repair', path, '--nobody-writes', '-o', 'json')
  expect(JSON.parse(word.stdout)).toMatchObject({ record: { sequence: 6, state: 'closed', generation: 2 } })
  expect(await source.open('vda')).toMatchObject({ generation: 3 })
  expect(await record('repair', path)).toMatchObject({
    status: 3,
    stderr: expect.stringContaining('nothing to repair'),
  })
})

test('what is not there, or not to be read, is said', async () => {
  const scratch = scratchOfTest()
  const path = makeImage(scratch, MEBIBYTE)
  expect(await record('show', path)).toMatchObject({ status: 0, stdout: `no records in ${path}.interlock\n` })
  expect(await record('show', `${path}.not-there`)).toMatchObject({
    status: 1,
    stderr: expect.stringContaining('image-missing'),
  })
  expect(await record('repair', path)).toMatchObject({ status: 1, stderr: expect.stringContaining('no record') })
})
