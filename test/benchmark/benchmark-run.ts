/**
 * One run of the benchmark from its options to its report: the rows, then the closes, then what servers cost that do
 * nothing, then how they stand a long load. Whatever it started is ended by its pid, also when it is interrupted.
 */

import { runProgram } from '../support/foreign-program.ts'
import { Scratch } from '../support/scratch.ts'
import { BenchmarkImage } from './benchmark-image.ts'
import type { BenchmarkOptions } from './benchmark-options.ts'
import type { CloseLatency } from './close-latency.ts'
import { measureClose } from './close-latency.ts'
import { CONTENDERS } from './contender.ts'
import type { Contender } from './contender.ts'
import { measureRow, reasonOf } from './measurement.ts'
import type { RowResult } from './measurement.ts'
import { describeMachine } from './report.ts'
import type { Report } from './report.ts'
import { measureStandingCost } from './standing-cost.ts'
import { measureSoak } from './soak.ts'
import type { Soak } from './soak.ts'
import type { StandingCost } from './standing-cost.ts'

const OURS = ['io_uring', 'file'] as const
const VERSIONS = {
  fio: ['fio', '--version'],
  'qemu-nbd': ['qemu-nbd', '--version'],
  nbdkit: ['nbdkit', '--version'],
  'nbd-server': ['nbd-server', '--version'],
} as const

export async function runBenchmark(
  options: BenchmarkOptions,
  say: (text: string) => void,
  signal: AbortSignal,
): Promise<Report> {
  const machine = describeMachine()
  const began = new Date().toISOString()
  const image = new BenchmarkImage(options.directory, options.imageBytes)
  const contenders = options.contenders.map((name) => CONTENDERS[name])
  const failures: string[] = []
  try {
    const { runs, seconds } = options
    const rows: RowResult[] = []
    for (const row of options.rows) {
      rows.push(await measureRow(row, { image, contenders, runs, seconds, say, signal }))
    }
    const others = { options, image, contenders, failures, say, signal }
    return {
      version: 1,
      began,
      machine,
      programs: await programVersions(),
      runs,
      seconds,
      imageBytes: options.imageBytes,
      rows,
      close: await closes(others),
      standing: await standingCosts(others),
      soak: await soaks(others),
      failures,
    }
  } finally {
    image.dispose()
  }
}

interface Others {
  readonly options: BenchmarkOptions
  readonly image: BenchmarkImage
  readonly contenders: readonly Contender[]
  readonly failures: string[]
  readonly say: (text: string) => void
  readonly signal: AbortSignal
}

async function closes(others: Others): Promise<CloseLatency[]> {
  const { options, image } = others
  const found: CloseLatency[] = []
  if (options.closes === 0) return found
  for (const engine of OURS.filter((name) => options.contenders.includes(name))) {
    for (const ownership of ['none', 'directory'] as const) {
      for (const load of ['full', 'light'] as const) {
        const what = `close, ${engine}, record: ${ownership}, ${load} load`
        await apart(what, others, async (scratch) => {
          const path = await image.prepare('written')
          const { sizeBytes } = image
          found.push(await measureClose(scratch, engine, ownership, load, { path, sizeBytes }, options.closes))
        })
      }
    }
  }
  return found
}

async function standingCosts(others: Others): Promise<StandingCost[]> {
  const { options, image, contenders } = others
  const found: StandingCost[] = []
  if (options.idleSeconds === 0) return found
  for (const contender of contenders) {
    if (contender.name === 'bare') continue
    await apart(`standing cost, ${contender.name}`, others, async (scratch) => {
      const path = await image.prepare('written')
      found.push(await measureStandingCost(scratch, contender, path, options.idleSeconds))
    })
  }
  return found
}

async function soaks(others: Others): Promise<Soak[]> {
  const { options, image } = others
  const found: Soak[] = []
  if (options.soakSeconds === 0) return found
  for (const engine of OURS.filter((name) => options.contenders.includes(name))) {
    await apart(`soak, ${engine}`, others, async (scratch) => {
      const path = await image.prepare('written')
      found.push(await measureSoak(scratch, engine, { path, sizeBytes: image.sizeBytes }, options.soakSeconds))
    })
  }
  return found
}

/** Runs one part in a scratch of its own; what fails is noted, and the rest goes on. */
async function apart(what: string, others: Others, run: (scratch: Scratch) => Promise<void>): Promise<void> {
  others.signal.throwIfAborted()
  others.say(what)
  const scratch = new Scratch()
  const dispose = (): void => void scratch.dispose()
  others.signal.addEventListener('abort', dispose)
  try {
    await run(scratch)
  } catch (error) {
    others.signal.throwIfAborted()
    others.failures.push(`${what}: ${reasonOf(error)}`)
  } finally {
    others.signal.removeEventListener('abort', dispose)
    await scratch.dispose()
  }
}

async function programVersions(): Promise<Record<string, string>> {
  const found: Record<string, string> = {}
  for (const [name, [command, argument]] of Object.entries(VERSIONS)) {
    const { stdout, stderr } = await runProgram(command, [argument])
    const version = /\d+(?:\.\d+)+/u.exec(`${stdout}${stderr}`)?.[0]
    found[name] = version === undefined ? name : `${name} ${version}`
  }
  return found
}
