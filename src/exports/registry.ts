/**
 * All exports of a daemon by name: where each lives, which image each has, who is told of what happens to it. It carries
 * out nothing itself: a verb goes to its export, a connection to the worker of its export, a notice to the export that it
 * concerns.
 */

import { LIMITS } from '../config/limits.ts'
import { present } from '../foundation/assert.ts'
import { Refusal } from '../foundation/refusal.ts'
import type { RefusalCode } from '../foundation/refusal.ts'
import type { Receipt } from '../interlock/receipt.ts'
import type { ExportCatalogue, ExportOffer, ExportRefusal } from '../nbd/export-catalogue.ts'
import { servedAbilities, transmissionFlags } from '../nbd/transmission-flags.ts'
import type { DataWorker } from '../plane-link/data-worker.ts'
import type { Notice, WorkerReady } from '../plane-link/reports.ts'
import { closeDescriptor } from '../posix/descriptor.ts'
import { errnoName } from '../posix/errno.ts'
import type { EventBody, ExportContext } from './export-context.ts'
import { Evacuation } from './evacuation.ts'
import { HostedExport } from './hosted-export.ts'
import type { ImageFacts } from './image.ts'
import { imageKey } from './image.ts'
import { renewRecord, reportOwnership } from './ownership-report.ts'
import { describeExport } from './status.ts'
import type {
  AdoptOptions,
  CloseOptions,
  CloseOutcome,
  EvacuationOptions,
  EvacuationReport,
  ExportDefinition,
  ExportEvent,
  ExportStatus,
  ExportVerbs,
  OpenOptions,
  OwnershipReport,
  StackReport,
} from './verbs.ts'

/** A connection that comes out of the negotiation; the registry takes its descriptor over. */
export interface IncomingConnection {
  readonly exportName: string
  readonly terms: { readonly sizeBytes: number }
  readonly descriptor: number
  readonly unread: Uint8Array
  readonly peer: string
  readonly peerIdentity: string
}

export type RegistryContext = Omit<ExportContext, 'claimImage' | 'emit'> & { readonly workersCount: number }

/** Refusals that others end, or an operator by a verb: the export waits in standby, and the daemon has started all the same. */
const WAITS_FOR_SOMEBODY: ReadonlySet<RefusalCode> = new Set([
  'held-by-other',
  'record-unreadable',
  'record-io',
  'record-unreachable',
  'record-moved',
  'image-links',
  'image-changed',
])

const PREFERRED_BLOCK_BYTES = 4096

export class ExportRegistry implements ExportVerbs {
  readonly #context: ExportContext
  readonly #workersCount: number
  readonly #exports = new Map<string, HostedExport>()
  readonly #byId = new Map<number, HostedExport>()
  /** Who has which image. */
  readonly #images = new Map<string, string>()
  readonly #listeners = new Set<(event: ExportEvent) => void>()
  /** Adopted and not gone, by client. */
  readonly #clients = new Map<number, HostedExport>()
  #lastExportId = 0
  #lastClientId = 0
  #refusesOpening = false

  constructor(context: RegistryContext) {
    this.#workersCount = context.workersCount
    this.#context = {
      ...context,
      claimImage: (name, facts) => {
        this.#claimImage(name, facts)
      },
      emit: (name, event) => {
        this.#emit(name, event)
      },
    }
  }

  /** Connections in transmission phase. */
  get connectionsCount(): number {
    return this.#clients.size
  }

  /** Connections on one worker. */
  connectionsOn(worker: number): number {
    return [...this.#clients.values()].filter((hosted) => hosted.workerIndex === worker).length
  }

  readonly catalogue: ExportCatalogue = {
    list: () =>
      [...this.#exports.values()].map(({ name, definition }) => ({ name, description: definition.description })),
    offer: (name) => this.#offer(name),
  }

  list(): Promise<readonly ExportStatus[]> {
    return Promise.all([...this.#exports.values()].map((hosted) => describeExport(this.#context, hosted)))
  }

  status(name: string): Promise<ExportStatus> {
    return describeExport(this.#context, this.#find(name))
  }

  async requests(name: string, countMax: number): ReturnType<ExportVerbs['requests']> {
    const hosted = this.#find(name)
    if (hosted.data.placement?.worker.alive !== true) return { requests: [], truncated: false }
    return hosted.data.requests(countMax)
  }

  /** A new export, in standby or, where its definition does not say so, open. What cannot be opened is not added. */
  async add(definition: ExportDefinition, adopt: AdoptOptions | null = null): Promise<ExportStatus> {
    const hosted = this.#register(definition)
    try {
      await (adopt === null ? hosted.start() : hosted.adopt(adopt))
      if (definition.standby) this.#context.stacks.lookSoon(definition)
      else await hosted.open()
    } catch (error) {
      await this.#forget(hosted)
      throw error
    }
    return this.status(definition.name)
  }

  /** The same at the daemon's start: an export that cannot be opened stays, and its status says why. */
  async addAtStart(definition: ExportDefinition, lockTimeoutMs: number): Promise<Refusal | null> {
    try {
      const hosted = this.#register(definition)
      await hosted.start()
      if (definition.standby) this.#context.stacks.lookSoon(definition)
      await hosted.resume(lockTimeoutMs)
      return null
    } catch (error) {
      if (!(error instanceof Refusal)) throw error
      this.#context.log.error({ export: definition.name, code: error.code }, error.message)
      return WAITS_FOR_SOMEBODY.has(error.code) ? null : error
    }
  }

  async remove(name: string): Promise<void> {
    const hosted = this.#find(name)
    await hosted.remove()
    this.#drop(hosted)
    this.#emit(name, { kind: 'removed' })
  }

  async open(name: string, options: OpenOptions): Promise<ExportStatus> {
    const hosted = this.#find(name)
    if (this.#refusesOpening) throw new Refusal('shutting-down', 'the daemon is shutting down and opens nothing')
    await hosted.open(options)
    return this.status(name)
  }

  close(name: string, options: CloseOptions): Promise<CloseOutcome> {
    return this.#find(name).close(options)
  }

  evacuate(options: EvacuationOptions): Promise<EvacuationReport> {
    return new Evacuation(this.#context, () => [...this.#exports.values()], options).run()
  }

  async standby(name: string): Promise<ExportStatus> {
    const hosted = this.#find(name)
    await hosted.standby()
    this.#context.stacks.lookSoon(hosted.definition)
    return this.status(name)
  }

  async clear(
    name: string,
    options: { readonly receipt: Receipt | null; readonly takeover: boolean },
  ): Promise<ExportStatus> {
    await this.#find(name).clear(options)
    return this.status(name)
  }

  async adopt(name: string, options: AdoptOptions): Promise<ExportStatus> {
    await this.#find(name).adopt(options)
    return this.status(name)
  }

  async fence(name: string): Promise<ExportStatus> {
    this.#find(name).fence('fenced by the operator')
    return this.status(name)
  }

  stack(name: string): Promise<StackReport> {
    return this.#context.stacks.of(this.#find(name).definition)
  }

  check(path: string, timeoutMs: number | null): Promise<StackReport> {
    return this.#context.stacks.check(path, timeoutMs)
  }

  ownership(name: string): Promise<OwnershipReport> {
    return reportOwnership(this.#context, this.#find(name))
  }

  async renew(name: string): Promise<OwnershipReport> {
    await renewRecord(this.#find(name))
    return this.ownership(name)
  }

  subscribe(listener: (event: ExportEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => {
      this.#listeners.delete(listener)
    }
  }

  /** Hands a connection to the worker of its export. */
  takeConnection(connection: IncomingConnection): void {
    const hosted = this.#exports.get(connection.exportName)
    const problem = hosted === undefined ? 'it was removed' : hosted.negotiationProblem
    if (hosted === undefined || problem !== null || hosted.facts?.sizeBytes !== connection.terms.sizeBytes) {
      closeDescriptor(connection.descriptor)
      const detail = problem ?? 'its size changed'
      this.#context.log.warn({ export: connection.exportName, peer: connection.peer, detail }, 'connection dropped')
      return
    }
    this.#lastClientId += 1
    const clientId = this.#lastClientId
    const { descriptor, unread, peer, peerIdentity } = connection
    this.#clients.set(clientId, hosted)
    hosted.data.adopt({ clientId, descriptor, unread, peer, peerIdentity }).then(
      (adopted) => {
        if (!adopted) return
        this.#context.log.info({ export: hosted.name, client: clientId, peer }, 'client connected')
        this.#emit(hosted.name, { kind: 'client', clientId, change: 'adopted', detail: peer })
      },
      // The worker is gone, and the descriptor with it.
      () => this.#clients.delete(clientId),
    )
  }

  /** Something that a worker says unasked. */
  noticed(notice: Exclude<Notice, WorkerReady>): void {
    const hosted = this.#byId.get(notice.exportId)
    switch (notice.kind) {
      case 'clientGone':
        this.#clientGone(hosted, notice)
        return
      case 'exportFaulted':
        hosted?.fence(
          `${notice.during} failed: ${errnoName(notice.errno)}`,
          notice.during === 'sync' ? 'sync-failed' : 'export-fenced',
        )
        if (hosted !== undefined) {
          this.#emit(hosted.name, { kind: 'fault', detail: `${notice.during} failed: ${errnoName(notice.errno)}` })
        }
        return
      case 'writeFailed': {
        if (hosted === undefined) return
        const { offset, length } = notice.range
        const detail = `a write of ${length} bytes at ${offset} failed: ${errnoName(notice.errno)}`
        this.#context.log.error({ export: hosted.name, offset, length, errno: notice.errno }, detail)
        this.#emit(hosted.name, { kind: 'fault', detail })
        return
      }
    }
  }

  workerDied(worker: DataWorker, cause: Error): void {
    this.#context.log.error({ worker: worker.index, error: cause.stack ?? cause.message }, 'a data worker died')
    for (const hosted of this.#exports.values()) {
      if (!hosted.data.isOn(worker)) continue
      for (const [clientId, of] of this.#clients) if (of === hosted) this.#clients.delete(clientId)
      hosted.workerDied(cause.message)
    }
  }

  /** Closes everything that is open, all at once. Settles when every close has ended; says which did not end closed. */
  async closeAll(): Promise<readonly string[]> {
    this.#refusesOpening = true
    // Also those that are not open: one that is about to be learns of it.
    const failures = await Promise.all([...this.#exports.values()].map((hosted) => closeForShutdown(hosted)))
    return failures.filter((failure) => failure !== null)
  }

  /** After `closeAll`: lets go of every image. */
  async dispose(): Promise<void> {
    await Promise.all([...this.#exports.values()].map((hosted) => hosted.dispose()))
  }

  #offer(name: string): ExportOffer | ExportRefusal {
    const only = this.#exports.size === 1 ? [...this.#exports.values()][0] : undefined
    const hosted = this.#exports.get(name) ?? (name === '' ? only : undefined)
    if (hosted === undefined) return { refused: 'unknown', message: `there is no export '${name}'` }
    const problem = hosted.negotiationProblem
    if (problem !== null) return { refused: 'shutdown', message: problem }
    const { definition } = hosted
    const { sizeBytes } = present(hosted.facts, 'the facts of an export that accepts clients')
    return {
      name: hosted.name,
      description: definition.description,
      sizeBytes,
      transmissionFlags: transmissionFlags(servedAbilities(definition.readOnly, definition.clients === 'shared')),
      preferredBlockBytes: PREFERRED_BLOCK_BYTES,
      minimumBlockBytes: 1,
    }
  }

  #clientGone(hosted: HostedExport | undefined, notice: Extract<Notice, { kind: 'clientGone' }>): void {
    this.#clients.delete(notice.clientId)
    if (hosted === undefined) return
    const { clientId, reason, detail } = notice
    // A barred client is told of once; its further attempts come without words.
    if (detail !== '') this.#context.log.info({ export: hosted.name, client: clientId, reason, detail }, 'client gone')
    this.#emit(hosted.name, { kind: 'client', clientId, change: 'gone', detail: `${reason}: ${detail}` })
  }

  #register(definition: ExportDefinition): HostedExport {
    const { name } = definition
    if (this.#refusesOpening) throw new Refusal('shutting-down', 'the daemon is shutting down and adds nothing')
    if (this.#exports.has(name)) throw new Refusal('export-exists', `there is an export '${name}' already`)
    if (this.#exports.size >= LIMITS.exportsMax) {
      throw new Refusal('export-exists', `a daemon serves ${LIMITS.exportsMax} exports at most`)
    }
    this.#lastExportId += 1
    const hosted = new HostedExport(this.#context, this.#lastExportId, this.#leastLoadedWorker(), definition)
    this.#exports.set(name, hosted)
    this.#byId.set(this.#lastExportId, hosted)
    this.#emit(name, { kind: 'added' })
    return hosted
  }

  async #forget(hosted: HostedExport): Promise<void> {
    await hosted.dispose()
    this.#drop(hosted)
    this.#emit(hosted.name, { kind: 'removed' })
  }

  #drop(hosted: HostedExport): void {
    this.#exports.delete(hosted.name)
    this.#context.stacks.forget(hosted.name)
    for (const [id, one] of this.#byId) if (one === hosted) this.#byId.delete(id)
    for (const [key, name] of this.#images) if (name === hosted.name) this.#images.delete(key)
  }

  #leastLoadedWorker(): number {
    const loads = new Array<number>(this.#workersCount).fill(0)
    for (const { workerIndex } of this.#exports.values()) loads[workerIndex] = (loads[workerIndex] ?? 0) + 1
    return loads.indexOf(Math.min(...loads))
  }

  #claimImage(name: string, facts: ImageFacts): void {
    const key = imageKey(facts)
    const other = this.#images.get(key)
    if (other !== undefined && other !== name) {
      throw new Refusal('image-exported', `${facts.realPath} is exported already, as '${other}'`)
    }
    for (const [known, owner] of this.#images) if (owner === name) this.#images.delete(known)
    this.#images.set(key, name)
  }

  #emit(name: string, event: EventBody): void {
    const whole: ExportEvent = { at: new Date().toISOString(), export: name, ...event }
    for (const listener of this.#listeners) listener(whole)
  }

  #find(name: string): HostedExport {
    const hosted = this.#exports.get(name)
    if (hosted === undefined) throw new Refusal('export-unknown', `there is no export '${name}'`)
    return hosted
  }
}

async function closeForShutdown(hosted: HostedExport): Promise<string | null> {
  try {
    await hosted.closeForShutdown()
    return null
  } catch (error) {
    return `${hosted.name}: ${error instanceof Error ? error.message : String(error)}`
  }
}
