/**
 * What is under the image of each export, as the last look found it: taken before every opening, which it can refuse,
 * and in the background whenever an export goes to standby. The codes of what is not safe stay with the export, so that
 * its status, its receipt and the metrics carry them for as long as it is open.
 */

import { Refusal } from '../foundation/refusal.ts'
import { isStackCode, REFUSED_ELSEWHERE, REMOTE_CODES, STACK_CODES } from './preflight/codes.ts'
import type { Preflight } from './preflight/preflight.ts'
import { Foresight } from './preflight/questions.ts'
import type { ExportDefinition, StackReport } from './verbs.ts'

/** An answer within a second, if only to say what is waited for. */
const CHECK_TIMEOUT_MS = 900
/** An opening waits so long for the facts before it refuses: without them it cannot be judged. */
const OPENING_TIMEOUT_MS = 30_000

/**
 * An opening is looked for by threads that are there already: starting one takes longer than all the rest of it. Anybody
 * else's look may be at any path, and hang there, without costing an image a thread.
 */
export interface Preflights {
  readonly ofOpenings: Preflight
  readonly ofOthers: Preflight
}

export class ExportStacks {
  readonly #preflights: Preflights
  readonly #reports = new Map<string, StackReport>()
  readonly #foresights = new Map<string, Foresight>()

  constructor(preflights: Preflights) {
    this.#preflights = preflights
  }

  /** Of any path. Rejects with a Refusal where there is no image. */
  check(path: string, timeoutMs: number | null): Promise<StackReport> {
    return this.#preflights.ofOthers.check(path, { users: true, timeoutMs: timeoutMs ?? CHECK_TIMEOUT_MS })
  }

  /** The last look at the image of an export that was finished, or one now. */
  async of(definition: ExportDefinition): Promise<StackReport> {
    const known = this.#reports.get(definition.name)
    if (known?.waitingFor === null) return known
    return this.#look(this.#preflights.ofOthers, definition, CHECK_TIMEOUT_MS)
  }

  /** Codes of what is not safe under the image, as far as anybody has looked. */
  unsafeCodes(name: string): readonly string[] {
    const report = this.#reports.get(name)
    return report === undefined ? [] : unsafeCodesOf(report)
  }

  /** Whether everything under the image has answered, and nothing of it is reached over a network. */
  async isLocal(definition: ExportDefinition): Promise<boolean> {
    const report = await this.of(definition).catch((error: unknown) => {
      if (error instanceof Refusal) return null
      throw error
    })
    if (report?.waitingFor !== null) return false
    return !report.codes.some((code) => isStackCode(code) && REMOTE_CODES.includes(code))
  }

  /** For an export that goes to standby: nobody waits for it. */
  lookSoon(definition: ExportDefinition): void {
    // What cannot be looked at is told by the standby itself.
    void this.#look(this.#preflights.ofOthers, definition, OPENING_TIMEOUT_MS).catch(() => undefined)
  }

  /**
   * Before an opening for writing. Refuses what is not safe and was not allowed by name, and what does not answer. An
   * image that is not there at all is left to the opening, which says it better.
   */
  async pass(definition: ExportDefinition, allowedNow: readonly string[] = []): Promise<void> {
    const allowed = [...allowedNow, ...(definition.allowUnsafe ?? [])]
    for (const code of allowed) refuseUnlessUnsafeCode(code)
    const report = await this.#look(this.#preflights.ofOpenings, definition, OPENING_TIMEOUT_MS).catch(
      (error: unknown) => {
        if (error instanceof Refusal) return null
        throw error
      },
    )
    if (report === null) return
    if (report.waitingFor !== null) {
      throw new Refusal('image-io', `${definition.path} does not answer: waited for ${report.waitingFor}`)
    }
    const left = unsafeCodesOf(report).filter((code) => !allowed.includes(code))
    if (left.length > 0) throw unsafeRefusal(definition.path, report, left)
  }

  forget(name: string): void {
    this.#reports.delete(name)
    this.#foresights.delete(name)
  }

  async #look(preflight: Preflight, { name, path }: ExportDefinition, timeoutMs: number): Promise<StackReport> {
    const report = await preflight.check(path, { users: false, timeoutMs, foresight: this.#foresightOf(name) })
    this.#reports.set(name, report)
    return report
  }

  /** What anybody's look at an export has learned, the next one knows, whichever threads it has. */
  #foresightOf(name: string): Foresight {
    const foresight = this.#foresights.get(name) ?? new Foresight()
    this.#foresights.set(name, foresight)
    return foresight
  }
}

/** Those that an opening refuses unless they are named. */
function unsafeCodesOf(report: StackReport): readonly string[] {
  return report.codes.filter(
    (code) => isStackCode(code) && STACK_CODES[code] === 'unsafe' && !REFUSED_ELSEWHERE.includes(code),
  )
}

function unsafeRefusal(path: string, report: StackReport, codes: readonly string[]): Refusal {
  const findings = report.layers.flatMap((layer) => layer.findings).filter(({ code }) => codes.includes(code))
  const words = findings.map(({ code, detail, mend }) => `${code}: ${detail}; ${mend}`).join('. ')
  const flags = codes.map((code) => `--allow-unsafe ${code}`).join(' ')
  return new Refusal('stack-unsafe', `${path} is not safe to migrate. ${words}. To open it all the same: ${flags}`, {
    unsafe: codes,
  })
}

function refuseUnlessUnsafeCode(code: string): void {
  if (isStackCode(code) && STACK_CODES[code] === 'unsafe') return
  const known = Object.entries(STACK_CODES).filter(([, severity]) => severity === 'unsafe')
  throw new Refusal(
    'bad-request',
    `'${code}' is no code of something unsafe (known: ${known.map(([name]) => name).join(', ')})`,
  )
}
