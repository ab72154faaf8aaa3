/**
 * A scratch and a directory that end with the running test, whatever its outcome. For what several tests share, make a
 * `Scratch` and dispose it in `afterAll`.
 */

import { onTestFinished } from 'vitest'
import { Scratch } from './scratch.ts'

/** Call it inside a test: everything made with it is undone when that test is over. */
export function scratchOfTest(): Scratch {
  const scratch = new Scratch()
  onTestFinished(async () => {
    await scratch.dispose()
  })
  return scratch
}

/** The path of a new, empty directory, removed with all its content after the running test. */
export function temporaryDirectory(purpose = 'test'): string {
  return scratchOfTest().directory(purpose)
}
