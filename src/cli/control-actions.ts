/**
 * What each verb of `interlockctl` does: one call of the client, and its answer as text or JSON. Failures are thrown;
 * the program turns them into messages and an exit status.
 */

import { readFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { text as readText } from 'node:stream/consumers'
import { connect } from '../client/index.ts'
import type { ChangeOptions, CloseOptions, ControlClient, ExportStatus, OpenOptions, Receipt } from '../client/index.ts'
import { parseExportDeclaration } from '../config/environment.ts'
import { withProgress } from './close-progress.ts'
import type { AddFlags, AdoptFlags, ChangeFlags, CheckFlags, CloseFlags, OpenFlags } from './control-program.ts'
import { evacuateAll, failureOf } from './evacuation.ts'
import { evacuationText } from './evacuation-presentation.ts'
import type { EvacuationFlags } from './evacuation-verb.ts'
import { StackUnsafe, UsageError } from './exit-code.ts'
import type { HandoverFlags, HandoverSurroundings } from './handover-action.ts'
import { runHandover } from './handover-action.ts'
import type { MigrateFlags } from './migrate-action.ts'
import { runMigration } from './migrate-action.ts'
import { checkedStack } from './stack-check.ts'
import { stackDetails } from './stack-presentation.ts'
import { eventLine, exportDetails, exportTable, receiptDetails, requestTable } from './presentation.ts'

export interface ActionSurroundings extends HandoverSurroundings {
  /** At least one; all verbs but `evacuate` take exactly one. */
  readonly urls: readonly string[]
  readonly workingDirectory: string
}

export class ControlActions {
  readonly #clients: readonly ControlClient[]
  readonly #surroundings: ActionSurroundings

  /** Throws a UsageError where a URL is none. */
  constructor(surroundings: ActionSurroundings) {
    this.#surroundings = surroundings
    this.#clients = surroundings.urls.map(connectOrRefuse)
  }

  get #client(): ControlClient {
    const [client, ...others] = this.#clients
    if (client !== undefined && others.length === 0) return client
    throw new UsageError('this verb asks one daemon: give --control once')
  }

  async status(name: string | undefined): Promise<void> {
    if (name !== undefined) {
      this.#print(await this.#client.status(name), exportDetails)
      return
    }
    this.#print(await this.#client.list(), exportTable)
  }

  async requests(name: string): Promise<void> {
    const list = await this.#client.requests(name)
    this.#print(list, ({ requests }) => requestTable(requests))
    if (list.truncated) this.#surroundings.terminal.message('there are more requests than are listed')
  }

  async watch(name: string | undefined): Promise<void> {
    const { terminal, json, interrupted } = this.#surroundings
    const filter = name === undefined ? {} : { export: name }
    for await (const event of this.#client.events({ ...filter, signal: interrupted })) {
      if (json) terminal.result(JSON.stringify(event))
      else if (event.kind === 'ready' || event.kind === 'missed') terminal.message(eventLine(event))
      else terminal.result(eventLine(event))
    }
  }

  async close(name: string, flags: CloseFlags): Promise<void> {
    const options: Partial<CloseOptions> = {
      ...pick(flags, ['early', 'unsubmitted', 'requests', 'disconnect', 'nonce', 'reason', 'wait']),
      timeoutMs: flags.timeout ?? null,
    }
    const closing = this.#client.close(name, options, changeOptions(flags))
    const outcome = await withProgress(this.#client, name, this.#surroundings.terminal, closing)
    if (outcome.done) this.#printReceipt(outcome.receipt)
    else this.#print(outcome.status, ({ state }) => `${name} is ${state}; ask again for the receipt`)
  }

  async evacuate(flags: EvacuationFlags): Promise<void> {
    const evacuations = await evacuateAll(this.#clients, flags, this.#surroundings.terminal)
    const daemons = evacuations.map(({ control, report, failure }) => ({ control, ...report, failure }))
    this.#print({ complete: daemons.every(({ failure }) => failure === null), daemons }, () =>
      evacuationText(evacuations),
    )
    const failure = failureOf(evacuations)
    if (failure !== null) throw failure
  }

  async open(name: string, flags: OpenFlags): Promise<void> {
    const options: Partial<OpenOptions> = {
      ...(await this.#proof(flags)),
      timeoutMs: flags.timeout ?? null,
      ...pick(flags, ['awaitClose', 'allowUnsafe']),
    }
    this.#printState(await this.#client.open(name, options, changeOptions(flags)))
  }

  async check(path: string, flags: CheckFlags): Promise<void> {
    const { workingDirectory, terminal } = this.#surroundings
    const absolute = resolve(workingDirectory, path)
    const report = await checkedStack(this.#client, absolute, flags, (text) => {
      terminal.message(text)
    })
    this.#print(report, stackDetails)
    if (report.waitingFor !== null) throw new Error(`no verdict: no answer to ${report.waitingFor}`)
    if (report.verdict === 'unsafe') throw new StackUnsafe(`${path} is not safe to migrate`)
  }

  async clear(name: string, flags: OpenFlags): Promise<void> {
    this.#printState(await this.#client.clear(name, await this.#proof(flags), changeOptions(flags)))
  }

  async standby(name: string, flags: ChangeFlags): Promise<void> {
    this.#printState(await this.#client.standby(name, changeOptions(flags)))
  }

  async adopt(name: string, flags: AdoptFlags): Promise<void> {
    this.#printState(await this.#client.adopt(name, pick(flags, ['copy']), changeOptions(flags)))
  }

  async fence(name: string, flags: ChangeFlags): Promise<void> {
    this.#printState(await this.#client.fence(name, changeOptions(flags)))
  }

  async add(declared: string, flags: AddFlags): Promise<void> {
    const declaration = parseExportDeclaration(declared, this.#surroundings.workingDirectory)
    if ('problem' in declaration) throw new UsageError(declaration.problem)
    const options = pick(flags, [
      'description',
      'imageId',
      'readOnly',
      'durability',
      'clients',
      'standby',
      'adopt',
      'standbyReads',
      'clusterLocks',
      'cache',
      'allowUnsafe',
    ])
    this.#printState(await this.#client.add({ ...declaration, ...options }, changeOptions(flags)))
  }

  async remove(name: string, flags: ChangeFlags): Promise<void> {
    await this.#client.remove(name, changeOptions(flags))
    this.#print({ removed: name }, () => `${name} is removed`)
  }

  handover(name: string, flags: HandoverFlags): Promise<void> {
    return runHandover(this.#surroundings, name, flags)
  }

  migrateQemu(flags: MigrateFlags): Promise<void> {
    return runMigration(this.#surroundings, flags)
  }

  #print<T>(value: T, toText: (value: T) => string): void {
    const { terminal, json } = this.#surroundings
    terminal.result(json ? JSON.stringify(value, null, 2) : toText(value))
  }

  /** A receipt is a document that `open` takes: what goes into a file or a pipe is always the document itself. */
  #printReceipt(receipt: Receipt): void {
    const { terminal, json } = this.#surroundings
    const forProgram = json || !terminal.resultsAreRead
    terminal.result(forProgram ? JSON.stringify(receipt, null, 2) : receiptDetails(receipt))
  }

  #printState(status: ExportStatus): void {
    this.#print(status, exportDetails)
  }

  async #proof({ receipt, takeover }: OpenFlags): Promise<{ receipt: Receipt | null; takeover: boolean }> {
    return { receipt: receipt === undefined ? null : await readReceipt(receipt), takeover: takeover ?? false }
  }
}

function connectOrRefuse(url: string): ControlClient {
  try {
    return connect(url)
  } catch (error) {
    throw new UsageError(`--control ${error instanceof Error ? error.message : String(error)}`)
  }
}

/** Whether it is a receipt, and the right one, is for the daemon to say; it must be JSON to be sent at all. */
async function readReceipt(file: string): Promise<Receipt> {
  let text: string
  try {
    text = file === '-' ? await readText(process.stdin) : await readFile(file, 'utf8')
  } catch (error) {
    throw new UsageError(`--receipt ${error instanceof Error ? error.message : String(error)}`)
  }
  try {
    return JSON.parse(text) as Receipt
  } catch {
    throw new UsageError(`--receipt ${file === '-' ? 'standard input' : file} does not hold JSON`)
  }
}

function changeOptions({ idempotencyKey }: ChangeFlags): ChangeOptions {
  return idempotencyKey === undefined ? {} : { idempotencyKey }
}

/** The members that are there. */
function pick<T extends object, K extends keyof T>(from: T, keys: readonly K[]): Pick<T, K> {
  return Object.fromEntries(keys.filter((key) => from[key] !== undefined).map((key) => [key, from[key]])) as Pick<T, K>
}
