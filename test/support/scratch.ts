/**
 * What a test made and must be gone after it: directories, programs, mounts, virtual machines. Everything is undone in
 * reverse order by `disposeScratch`, which test files call from `afterEach` or `afterAll`; a failure to undo one thing
 * never keeps the others from being undone, and is reported.
 */

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export class Scratch {
  readonly #undo: { readonly what: string; readonly run: () => Promise<void> | void }[] = []

  /** Registers what undoes something just done. */
  defer(what: string, run: () => Promise<void> | void): void {
    this.#undo.push({ what, run })
  }

  /** A directory of its own, removed with everything in it. */
  directory(purpose: string): string {
    const path = mkdtempSync(join(tmpdir(), `interlockd-${purpose}-${process.pid}-`))
    this.defer(`directory ${path}`, () => {
      rmSync(path, { recursive: true, force: true })
    })
    return path
  }

  async dispose(): Promise<void> {
    const failures: Error[] = []
    for (let step = this.#undo.pop(); step !== undefined; step = this.#undo.pop()) {
      try {
        await step.run()
      } catch (error) {
        failures.push(new Error(`could not undo: ${step.what}`, { cause: error }))
      }
    }
    if (failures.length > 0) throw new AggregateError(failures, failures.map((failure) => failure.message).join('; '))
  }
}
