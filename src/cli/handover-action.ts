/**
 * `interlockctl handover`: one handover between two daemons, told step by step to whoever watches, with its ending as
 * the result. Ctrl-C or SIGTERM cancels it, which leads back to the source; the same command run again goes on from where
 * an earlier one was lost.
 */

import { writeFile } from 'node:fs/promises'
import { connect } from '../client/index.ts'
import type { ControlClient } from '../client/index.ts'
import { formatDurationMs } from '../config/quantity.ts'
import { drawTimeline, handOver, rehearse, sentenceOf } from '../handover/index.ts'
import type { DryRun, Ending, HandoverOptions, HandoverResult, Step, TimelineDocument } from '../handover/index.ts'
import { withProgress } from './close-progress.ts'
import { EXIT, ExitStatus, UsageError } from './exit-code.ts'
import { printable } from './presentation.ts'
import type { Terminal } from './terminal.ts'

export interface HandoverFlags {
  readonly from: string
  readonly to: string
  readonly early?: true
  readonly unsubmitted?: 'drain' | 'abort'
  readonly requests?: 'park' | 'refuse'
  readonly timeout?: number
  readonly patience?: number
  readonly sameImage?: true
  readonly allowUnsafe?: readonly string[]
  readonly dryRun?: true
  readonly timeline?: readonly string[]
}

export interface HandoverSurroundings {
  readonly json: boolean
  readonly terminal: Terminal
  /** Ends `watch`, and cancels what can be cancelled. */
  readonly interrupted: AbortSignal
  /** From now on a signal only asks; what it ends ends in order. */
  readonly endInOrder: () => void
}

export async function runHandover(
  surroundings: HandoverSurroundings,
  name: string,
  flags: HandoverFlags,
): Promise<void> {
  const { json, terminal } = surroundings
  const disk = { name, source: clientOf('--from', flags.from), destination: clientOf('--to', flags.to) }
  const options: HandoverOptions = { terms: termsOf(flags), signal: surroundings.interrupted }
  surroundings.endInOrder()
  if (flags.dryRun === true) {
    const run = await rehearse(disk, options)
    terminal.result(json ? JSON.stringify(run, null, 2) : dryRunText(name, run))
    if (run.standing.kind === 'stuck' || run.preflight?.ready === false)
      throw new ExitStatus(EXIT.refused, 'it would be refused')
    return
  }
  const teller = new Teller(name, disk.source, terminal)
  const result = await handOver(disk, {
    ...options,
    onStep: (step, atMs) => {
      teller.reached(step, atMs)
    },
  })
  await teller.end()
  await writeTimelines(flags.timeline ?? [], result.timeline)
  terminal.result(json ? JSON.stringify(result, null, 2) : endingText(name, result))
  judge(result.ending)
}

/** Says each step, and shows what is left while the source closes. */
class Teller {
  readonly #name: string
  readonly #source: ControlClient
  readonly #terminal: Terminal
  #closed: () => void = () => undefined
  #progress: Promise<void> = Promise.resolve()

  constructor(name: string, source: ControlClient, terminal: Terminal) {
    this.#name = name
    this.#source = source
    this.#terminal = terminal
  }

  reached(step: Step, atMs: number): void {
    if (step === 'closing') this.#follow()
    else this.#closed()
    this.#terminal.message(`${this.#name}: ${step} after ${formatDurationMs(atMs)}`)
  }

  async end(): Promise<void> {
    this.#closed()
    await this.#progress
  }

  #follow(): void {
    const closed = new Promise<void>((resolve) => {
      this.#closed = resolve
    })
    this.#progress = withProgress(this.#source, this.#name, this.#terminal, closed)
  }
}

function termsOf(flags: HandoverFlags): NonNullable<HandoverOptions['terms']> {
  const { early, unsubmitted, requests, timeout: timeoutMs, patience: patienceMs, sameImage, allowUnsafe } = flags
  return {
    ...(early && { early }),
    ...(unsubmitted && { unsubmitted }),
    ...(requests && { requests }),
    ...(timeoutMs !== undefined && { timeoutMs }),
    ...(patienceMs !== undefined && { patienceMs }),
    ...(sameImage && { sameImage }),
    ...(allowUnsafe && { allowUnsafe }),
  }
}

export function clientOf(flag: string, url: string): ControlClient {
  try {
    return connect(url)
  } catch (error) {
    throw new UsageError(`${flag} ${error instanceof Error ? error.message : String(error)}`)
  }
}

async function writeTimelines(paths: readonly string[], timeline: TimelineDocument): Promise<void> {
  for (const path of paths) {
    const text = path.endsWith('.svg') ? drawTimeline(timeline) : `${JSON.stringify(timeline, null, 2)}\n`
    await writeFile(path, text)
  }
}

function judge(ending: Ending): void {
  switch (ending.kind) {
    case 'handedOver':
      return
    case 'broughtBack': {
      const late = ending.failure.code === 'timed-out'
      throw new ExitStatus(late ? EXIT.stillDraining : EXIT.failed, 'brought back')
    }
    case 'unchanged': {
      const silent = ending.failure.code === 'unreachable'
      throw new ExitStatus(silent ? EXIT.unreachable : EXIT.refused, 'nothing was changed')
    }
    case 'unclear':
      throw new ExitStatus(EXIT.failed, 'unclear: a person has to decide')
  }
}

function endingText(name: string, { ending, preflight }: HandoverResult): string {
  const words =
    preflight === null ? [] : preflight.findings.map((finding) => `  ${finding.severity}: ${sentenceOf(finding)}`)
  return [...words, ...endingLines(name, ending)].map(printable).join('\n')
}

function endingLines(name: string, ending: Ending): string[] {
  switch (ending.kind) {
    case 'handedOver': {
      const how = ending.already ? 'was handed over before' : 'is handed over'
      return [`${name} ${how}: the destination has it open, generation ${ending.generation}`, ...indented(ending.notes)]
    }
    case 'broughtBack':
      return [
        `${name} was brought back: the source has it open, generation ${ending.generation}`,
        ...indented([`${ending.failure.step} failed: ${ending.failure.message}`]),
      ]
    case 'unchanged': {
      const who = ending.openAt === null ? 'neither end is known to have it open' : `the ${ending.openAt} has it open`
      return [
        `${name} was not handed over, and nothing was changed: ${who}`,
        ...indented([ending.failure.message, ...ending.advice]),
      ]
    }
    case 'unclear':
      return [
        `${name}: it is not known who has it open. ${ending.failure.step} failed: ${ending.failure.message}`,
        ...indented(ending.known),
        'What to do:',
        ...indented(ending.advice),
      ]
  }
}

function dryRunText(name: string, { standing, preflight, would }: DryRun): string {
  const findings =
    preflight === null ? [] : preflight.findings.map((finding) => `${finding.severity}: ${sentenceOf(finding)}`)
  const advice = standing.kind === 'stuck' ? standing.advice : []
  return [`${name}: ${standing.kind}`, ...indented(findings), 'A run would:', ...indented([...would, ...advice])]
    .map(printable)
    .join('\n')
}

function indented(lines: readonly string[]): string[] {
  return lines.map((line) => `  ${line}`)
}
