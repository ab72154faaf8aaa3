/**
 * Two hosts over one image for tests of the orchestrator's side: real daemons from the build, each a host of its own with
 * its own state directory, both with the record beside the image; and the orchestrator as the program that an operator
 * runs, in a process that can be killed.
 */

import { symlinkSync, unlinkSync } from 'node:fs'
import { join } from 'node:path'
import { connect } from '../../src/client/index.ts'
import type { HandoverResult } from '../../src/handover/index.ts'
import type { Daemon, DaemonOptions } from '../support/daemon.ts'
import { startDaemon } from '../support/daemon.ts'
import { runProgram } from '../support/foreign-program.ts'
import type { Outcome, Program } from '../support/foreign-program.ts'
import { startProgram } from '../support/foreign-program.ts'
import type { Scratch } from '../support/scratch.ts'

const INTERLOCKCTL = join(import.meta.dirname, '../../bin/interlockctl.cjs')

/** A daemon that serves the image as `vda`, with its record beside it. */
export function startEnd(scratch: Scratch, path: string, options: Partial<DaemonOptions> = {}): Promise<Daemon> {
  const exports = [{ name: 'vda', path }]
  return startDaemon(scratch, { exports, ownership: 'directory', engine: 'file', tcp: false, ...options })
}

/** A source, and a destination in standby that reaches the same image by a link, and refuses to open it without. */
export async function startPairOverLink(scratch: Scratch, path: string) {
  const link = join(scratch.directory('link'), 'vda.raw')
  symlinkSync(path, link)
  const source = await startEnd(scratch, path)
  const destination = await startEnd(scratch, link, { standby: true })
  const cutLink = (): void => {
    unlinkSync(link)
  }
  return { source, destination, cutLink }
}

export function diskOf(source: Daemon, destination: Daemon) {
  return { name: 'vda', source: connect(urlOf(source)), destination: connect(urlOf(destination)) }
}

export interface HandoverRun extends Outcome {
  /** What it printed as JSON; undefined where it printed none. */
  readonly result: HandoverResult
}

function commandLine(source: Daemon, destination: Daemon, further: readonly string[]): string[] {
  const ends = ['--from', urlOf(source), '--to', urlOf(destination)]
  return [INTERLOCKCTL, '-o', 'json', 'handover', 'vda', ...ends, ...further]
}

/** `interlockctl handover`, to its end. */
export async function handOverByProgram(
  source: Daemon,
  destination: Daemon,
  further: readonly string[] = [],
  environment: Readonly<Record<string, string>> = {},
): Promise<HandoverRun> {
  const outcome = await runProgram(process.execPath, commandLine(source, destination, further), { environment })
  const result = (outcome.stdout === '' ? undefined : JSON.parse(outcome.stdout)) as HandoverResult
  return { ...outcome, result }
}

/** The same, while it runs. */
export function startHandover(
  scratch: Scratch,
  source: Daemon,
  destination: Daemon,
  further: readonly string[] = [],
): Program {
  return startProgram(scratch, process.execPath, commandLine(source, destination, further))
}

export function urlOf(daemon: Daemon): string {
  return `unix:${daemon.controlPath}`
}
