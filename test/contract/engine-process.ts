/**
 * The test's side of an engine child: it is started when first needed, asked for one scenario after the other, killed
 * when one hangs, and then started anew for the next.
 */

import { fork } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { ScenarioOrder, ScenarioReport } from './engine-child.ts'

const PATIENCE_MS = 20_000
const CHILD = fileURLToPath(new URL('./engine-child.ts', import.meta.url))

export class EngineProcess {
  readonly #kind: string
  #directory: string | undefined
  #child: ChildProcess | undefined

  constructor(kind: string) {
    this.#kind = kind
  }

  async run(order: ScenarioOrder): Promise<ScenarioReport> {
    this.#child ??= await this.#start()
    const child = this.#child
    const answer = this.#answer(child)
    child.send(order)
    const report = await answer
    if (report === undefined) {
      child.kill('SIGKILL')
      this.#child = undefined
      return { outcome: 'failed', detail: `no answer within ${PATIENCE_MS} ms, or the process died` }
    }
    return report as ScenarioReport
  }

  /** Kills the process, if there is one, and removes what it left. */
  close(): void {
    this.#child?.kill('SIGKILL')
    this.#child = undefined
    if (this.#directory !== undefined) rmSync(this.#directory, { recursive: true, force: true })
    this.#directory = undefined
  }

  async #start(): Promise<ChildProcess> {
    this.#directory ??= mkdtempSync(join(tmpdir(), `interlockd-contract-${process.pid}-`))
    const child = fork(CHILD, [this.#kind, this.#directory], {
      execArgv: ['--import', 'tsx'],
      env: { ...process.env, UV_THREADPOOL_SIZE: '12' },
    })
    const ready = await this.#answer(child)
    if (ready !== 'ready') throw new Error(`the ${this.#kind} engine's process does not start`)
    return child
  }

  #answer(child: ChildProcess): Promise<unknown> {
    return new Promise((resolve) => {
      const finish = (value: unknown): void => {
        clearTimeout(timer)
        child.off('message', finish)
        child.off('exit', gone)
        resolve(value)
      }
      const gone = (): void => {
        this.#child = undefined
        finish(undefined)
      }
      const timer = setTimeout(finish, PATIENCE_MS, undefined)
      child.on('message', finish)
      child.on('exit', gone)
    })
  }
}
