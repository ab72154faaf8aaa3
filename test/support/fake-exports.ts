/**
 * Exports without images: they implement the face that the control plane sees and nothing below it, so that HTTP, client
 * and command line can be tested through real sockets. Time stands still: a close ends when the test says so. Whatever
 * the real exports can refuse, these refuse when told to.
 */

import type {
  AdoptOptions,
  CloseOptions,
  CloseOutcome,
  ExportDefinition,
  ExportEvent,
} from '../../src/exports/verbs.ts'
import type { EvacuatedExport, EvacuationOptions, EvacuationReport } from '../../src/exports/verbs.ts'
import type { ExportStatus, ExportVerbs, OpenOptions, OwnershipReport } from '../../src/exports/verbs.ts'
import type { StackReport } from '../../src/exports/verbs.ts'
import { Refusal } from '../../src/foundation/refusal.ts'
import type { ExportState } from '../../src/interlock/lifecycle.ts'
import type { Receipt } from '../../src/interlock/receipt.ts'
import type { PhaseCounts, RequestInspection } from '../../src/plane-link/reports.ts'

const NOTHING: PhaseCounts = { parsed: 0, admitted: 0, held: 0, submitted: 0, cleared: 0, bytes: 0, oldestMs: 0 }
const XENBUS = { standby: 2, opening: 3, open: 4, closing: 5, closed: 6, fenced: 6 } as const
const HOLDER = { host: 'host-1', boot: 'boot-1', instance: 'run-1' }
const AT = '2026-01-02T03:04:05.000Z'

type EventBody = ExportEvent extends infer E ? (E extends ExportEvent ? Omit<E, 'at' | 'export'> : never) : never

export class FakeExports implements ExportVerbs {
  /** Every call, for tests that ask what arrived. */
  readonly calls: { readonly verb: string; readonly name: string; readonly options?: unknown }[] = []
  readonly #exports = new Map<string, ExportStatus>()
  readonly #listeners = new Set<(event: ExportEvent) => void>()
  readonly #closing = new Map<string, { promise: Promise<Receipt>; end: (receipt: Receipt) => void }>()
  #refusal: { readonly verb: string; readonly error: Error } | undefined

  get subscribers(): number {
    return this.#listeners.size
  }

  /** The next call of the verb rejects with this. */
  refuseNext(verb: string, error: Error): void {
    this.#refusal = { verb, error }
  }

  put(name: string, status: Partial<ExportStatus> = {}): ExportStatus {
    const complete = { ...statusOf(name), ...status }
    this.#exports.set(name, complete)
    return complete
  }

  /** What a close will have to wait for. */
  setOutstanding(name: string, outstanding: Partial<PhaseCounts>): void {
    this.put(name, { ...this.#of(name), outstanding: { ...NOTHING, ...outstanding } })
  }

  emit(name: string, event: EventBody): void {
    const complete = { at: AT, export: name, ...event } as ExportEvent
    for (const listener of [...this.#listeners]) listener(complete)
  }

  /** The disk has done everything: whoever waits for the close gets the receipt. */
  finishClose(name: string, receipt: Partial<Receipt> = {}): Receipt {
    const complete = { ...receiptOf(this.#of(name)), ...receipt }
    this.put(name, { ...this.#of(name), outstanding: NOTHING, lastReceipt: complete })
    this.#move(name, 'closed', null)
    this.emit(name, { kind: 'receipt', receipt: complete })
    this.#closing.get(name)?.end(complete)
    this.#closing.delete(name)
    return complete
  }

  list(): Promise<readonly ExportStatus[]> {
    return this.#run('list', '', undefined, () => [...this.#exports.values()])
  }

  status(name: string): Promise<ExportStatus> {
    return this.#run('status', name, undefined, () => this.#of(name))
  }

  requests(name: string, countMax: number): Promise<{ requests: readonly RequestInspection[]; truncated: boolean }> {
    return this.#run('requests', name, countMax, () => {
      const count = this.#of(name).outstanding.submitted
      const requests = Array.from({ length: Math.min(count, countMax) }, (_, index) => requestOf(index))
      return { requests, truncated: count > countMax }
    })
  }

  add(definition: ExportDefinition): Promise<ExportStatus> {
    return this.#run('add', definition.name, definition, () => {
      if (this.#exports.has(definition.name))
        throw new Refusal('export-exists', `'${definition.name}' is there already`)
      this.put(definition.name, { path: definition.path, readOnly: definition.readOnly, state: 'standby' })
      this.emit(definition.name, { kind: 'added' })
      return this.#of(definition.name)
    })
  }

  remove(name: string): Promise<void> {
    return this.#run('remove', name, undefined, () => {
      this.#refuseIn(name, 'remove', ['open', 'opening', 'closing'])
      this.#exports.delete(name)
      this.emit(name, { kind: 'removed' })
    })
  }

  open(name: string, options: OpenOptions): Promise<ExportStatus> {
    return this.#run('open', name, options, () => {
      this.#refuseIn(name, 'open', ['open', 'closing'])
      this.put(name, { ...this.#of(name), generation: this.#of(name).generation + 1, holder: HOLDER })
      return this.#move(name, 'open', null)
    })
  }

  async close(name: string, options: CloseOptions): Promise<CloseOutcome> {
    const status = await this.#run('close', name, options, () => this.#of(name))
    if (status.state === 'closed' && status.lastReceipt !== null) return { done: true, receipt: status.lastReceipt }
    if (status.state !== 'closing') this.#beginClose(name)
    const closing = this.#closing.get(name)
    if (this.#of(name).outstanding.submitted === 0) return { done: true, receipt: this.finishClose(name) }
    if (!options.wait || closing === undefined) return { done: false, status: this.#of(name) }
    const late = new Refusal('still-draining', `export '${name}' has not cleared its requests in time`)
    const timeout = new Promise<never>((_resolve, reject) => {
      if (options.timeoutMs !== null) setTimeout(reject, options.timeoutMs, late).unref()
    })
    return { done: true, receipt: await Promise.race([closing.promise, timeout]) }
  }

  /** Closes that are not finished by the test within the time are reported as draining. */
  evacuate(options: EvacuationOptions): Promise<EvacuationReport> {
    return this.#run('evacuate', '', options, () => undefined).then(async () => {
      const { early, unsubmitted, requests, timeoutMs } = options
      const close = { early, unsubmitted, requests, timeoutMs, disconnect: false, nonce: null, wait: true } as const
      const leave = async (name: string): Promise<EvacuatedExport> => {
        const outcome = await this.close(name, { ...close, reason: 'handover' }).catch((error: unknown) => error)
        return evacuated(this.#of(name), outcome)
      }
      const exports = await Promise.all([...this.#exports.keys()].map(leave))
      const complete = exports.every(({ outcome }) => outcome !== 'notClosed')
      return { complete, quiet: complete, startedAt: AT, elapsedMs: 1234.5, exports }
    })
  }

  standby(name: string): Promise<ExportStatus> {
    return this.#run('standby', name, undefined, () => {
      this.#refuseIn(name, 'standby', ['open', 'closing'])
      this.put(name, { ...this.#of(name), nonce: 'nonce-1' })
      return this.#move(name, 'standby', null)
    })
  }

  clear(name: string, options: { receipt: Receipt | null; takeover: boolean }): Promise<ExportStatus> {
    return this.#run('clear', name, options, () => this.put(name, { ...this.#of(name), holds: [] }))
  }

  adopt(name: string, options: AdoptOptions): Promise<ExportStatus> {
    return this.#run('adopt', name, options, () => this.#of(name))
  }

  fence(name: string): Promise<ExportStatus> {
    return this.#run('fence', name, undefined, () => this.#move(name, 'fenced', 'fenced by hand'))
  }

  stack(name: string): Promise<StackReport> {
    return this.#run('stack', name, undefined, () => reportOf(this.#of(name).path))
  }

  check(path: string, timeoutMs: number | null): Promise<StackReport> {
    return this.#run('check', path, timeoutMs, () => reportOf(path))
  }

  ownership(name: string): Promise<OwnershipReport> {
    return this.#run('ownership', name, undefined, () => ownershipOf(this.#of(name)))
  }

  renew(name: string): Promise<OwnershipReport> {
    return this.#run('renew', name, undefined, () => ownershipOf(this.#of(name)))
  }

  subscribe(listener: (event: ExportEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  #beginClose(name: string): void {
    this.#refuseIn(name, 'close', ['standby', 'opening', 'fenced'])
    let end: (receipt: Receipt) => void = () => undefined
    const promise = new Promise<Receipt>((resolve) => {
      end = resolve
    })
    this.#closing.set(name, { promise, end })
    this.#move(name, 'closing', null)
  }

  #move(name: string, to: ExportState, reason: string | null): ExportStatus {
    const from = this.#of(name)
    const status = this.put(name, { ...from, state: to, xenbusState: XENBUS[to], stateReason: reason })
    this.emit(name, { kind: 'transition', from: from.state, to, reason })
    return status
  }

  #refuseIn(name: string, verb: string, states: readonly ExportState[]): void {
    const { state } = this.#of(name)
    if (states.includes(state))
      throw new Refusal('wrong-state', `export '${name}' is ${state} and cannot '${verb}'`, { state })
  }

  #of(name: string): ExportStatus {
    const status = this.#exports.get(name)
    if (status === undefined) throw new Refusal('export-unknown', `there is no export '${name}'`)
    return status
  }

  #run<T>(verb: string, name: string, options: unknown, run: () => T): Promise<T> {
    this.calls.push({ verb, name, ...(options !== undefined && { options }) })
    const refusal = this.#refusal
    if (refusal?.verb === verb) {
      this.#refusal = undefined
      return Promise.reject(refusal.error)
    }
    return new Promise((resolve) => {
      resolve(run())
    })
  }
}

export function statusOf(name: string): ExportStatus {
  return {
    name,
    path: `/srv/${name}.raw`,
    description: '',
    size: 10 * 1024 ** 3,
    blockSize: 4096,
    state: 'open',
    xenbusState: 4,
    stateReason: null,
    generation: 3,
    readOnly: false,
    durability: 'sync',
    cache: 'direct',
    clientsMode: 'exclusive',
    unsafe: [],
    engine: { kind: 'file', reason: 'the test says so' },
    worker: 0,
    holder: HOLDER,
    clients: [{ id: 1, peer: '127.0.0.1:4711', since: AT, writer: true, outstanding: NOTHING }],
    outstanding: NOTHING,
    orphans: 0,
    holds: [],
    heldForMs: 0,
    clearedBy: null,
    indeterminate: [],
    totals: { reads: 10, writes: 20, flushes: 3, trims: 1, bytesRead: 40_960, bytesWritten: 81_920, errors: 0 },
    nonce: null,
    lastReceipt: null,
  }
}

export function reportOf(path: string): StackReport {
  const layer = { depth: 0, kind: 'fileSystem', words: 'ext4 from /dev/vda', verdict: 'condition', facts: {} } as const
  const finding = {
    code: 'local-file-system',
    severity: 'condition',
    detail: 'it belongs to one host',
    mend: 'move it with its host',
  } as const
  return {
    path,
    realPath: path,
    verdict: 'condition',
    codes: [finding.code],
    layers: [{ ...layer, findings: [finding] }],
    waitingFor: null,
    at: AT,
  }
}

export function ownershipOf(status: ExportStatus): OwnershipReport {
  return {
    export: status.name,
    declaredId: null,
    image: {
      realPath: status.path,
      kind: 'file',
      device: '8:1',
      inode: 42,
      wwid: null,
      sizeBytes: status.size,
    },
    home: { kind: 'directory', shared: true, place: `${status.path}.interlock` },
    formats: { record: 1, receipt: 1 },
    record: {
      sequence: 7,
      generation: status.generation,
      state: 'open',
      closeReason: null,
      holder: { ...HOLDER, name: 'one' },
      heldHere: true,
      draining: [],
      takeoverBy: null,
      receiptNonce: null,
      fingerprint: '0'.repeat(32),
    },
    unreadable: null,
  }
}

export function receiptOf(status: ExportStatus): Receipt {
  return {
    version: 1,
    export: status.name,
    image: { path: status.path, size: status.size, device: '8:1', inode: 42 },
    generation: status.generation,
    holder: HOLDER,
    state: 'closed',
    closedAt: AT,
    durability: status.durability,
    drained: { requests: 4, writes: 4, bytes: 16_384 },
    aborted: [],
    indeterminate: [],
    reason: 'handover',
    nonce: 'nonce-1',
    clearedBy: 'drain',
    elapsedMs: { drain: 12.5, sync: 1.25, record: 2, total: 15.75 },
  }
}

function evacuated(status: ExportStatus, outcome: unknown): EvacuatedExport {
  const { name, state, generation, lastReceipt, outstanding } = status
  const facts = { export: name, state, generation, beganMs: 0, endedMs: 15.5 }
  if (!(outcome instanceof Refusal)) return { ...facts, outcome: 'closed', receipt: lastReceipt, problem: null }
  const problem = { code: outcome.code, detail: outcome.message, outstanding }
  return { ...facts, outcome: 'notClosed', endedMs: null, receipt: null, problem }
}

function requestOf(index: number): RequestInspection {
  const cookie = index.toString(16).padStart(16, '0')
  return {
    clientId: 1,
    cookie,
    command: 'NBD_CMD_WRITE',
    offset: index * 4096,
    length: 4096,
    phase: 'submitted',
    ageMs: 1500,
    orphan: false,
  }
}
