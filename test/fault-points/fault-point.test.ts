import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { faultPoint } from '../../src/fault-points/fault-point.ts'
import { runProgram, startProgram } from '../support/foreign-program.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'

const MODULE = join(import.meta.dirname, '../../src/fault-points/fault-point.ts')
const SCRIPT = `
  import { faultPoint } from ${JSON.stringify(MODULE)}
  for (const name of ['a', 'b', 'a', 'b']) {
    console.log('before ' + name)
    await faultPoint(name)
    console.log('after ' + name)
  }
`
const COMMAND = ['--import', 'tsx', '--input-type=module', '-e', SCRIPT]

function run(fault: string) {
  return runProgram(process.execPath, COMMAND, { environment: { INTERLOCKD_FAULT_POINT: fault } })
}

test('unless the environment names it, a point is nothing', async () => {
  await expect(faultPoint('anything')).resolves.toBeUndefined()
  expect((await run('c:kill')).stdout.split('\n').filter((line) => line !== '')).toHaveLength(8)
})

test('the process dies there, the first time or the one that is asked for', async () => {
  const first = await run('b:kill')
  expect(first.status).toBe(128 + 9)
  expect(first.stdout).toBe('before a\nafter a\nbefore b\n')
  const second = await run('b@2:kill')
  expect(second.stdout.endsWith('after a\nbefore b\n')).toBe(true)
  expect(second.stdout).toContain('after b')
})

test('the process stops there and goes on later', async () => {
  const program = startProgram(scratchOfTest(), process.execPath, COMMAND, {
    environment: { INTERLOCKD_FAULT_POINT: 'b:stop' },
  })
  await program.until('the point', 20_000, () => program.stdout.endsWith('before b\n'))
  program.signal('SIGCONT')
  const stopped = program.stdout
  expect(stopped).toBe('before a\nafter a\nbefore b\n')
  let outcome = await Promise.race([program.exited, new Promise<null>((resolve) => setTimeout(resolve, 200, null))])
  while (outcome === null) {
    program.signal('SIGCONT')
    outcome = await Promise.race([program.exited, new Promise<null>((resolve) => setTimeout(resolve, 50, null))])
  }
  expect(outcome.status).toBe(0)
})

test('a fault in a file is armed when it appears, may be at any point, and happens once', async () => {
  const file = join(scratchOfTest().directory('fault'), 'fault')
  expect((await run(file)).status).toBe(0)
  writeFileSync(file, '*@3:kill')
  const outcome = await run(file)
  expect(outcome.status).toBe(128 + 9)
  expect(outcome.stdout.endsWith('after b\nbefore a\n')).toBe(true)
  expect(existsSync(file)).toBe(false)
})

test('a point of code that does not wait throws, and only that', async () => {
  const script = `
    import { throwingFaultPoint } from ${JSON.stringify(MODULE)}
    throwingFaultPoint('a')
    console.log('passed')
  `
  const pass = (fault: string) =>
    runProgram(process.execPath, [...COMMAND.slice(0, -1), script], { environment: { INTERLOCKD_FAULT_POINT: fault } })
  const thrown = await pass('a:throw')
  expect(thrown.stdout).toBe('')
  expect(thrown.stderr).toContain("the fault point 'a' throws")
  expect((await pass('*:kill')).stdout).toBe('passed\n')
  expect((await run('*:throw')).status).toBe(0)
})

test('a fault that cannot be read is a mistake of the tester', async () => {
  const outcome = await run('b:explode')
  expect(outcome.status).not.toBe(0)
  expect(outcome.stderr).toContain('INTERLOCKD_FAULT_POINT')
})
