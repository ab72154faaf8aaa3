/**
 * The daemon in Prometheus' terms. What exists now (states, outstanding requests, totals) is read from the exports at
 * each scrape; what happens in between (closes, faults) is counted from their events. Labels are bounded by the number
 * of exports; no client, offset or detail of an error ever becomes one.
 */

import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { ExportEvent, ExportStatus, ExportVerbs } from '../exports/verbs.ts'
import type { ExportState } from '../interlock/lifecycle.ts'
import type { DaemonFacts } from './daemon-facts.ts'

const STATES: readonly ExportState[] = ['standby', 'opening', 'open', 'closing', 'closed', 'fenced']
const PHASES = ['parsed', 'admitted', 'held', 'submitted', 'cleared'] as const

/** As a period of Node's clock; nothing may be longer. */
const NEVER_MS = 2 ** 31 - 1
const QUANTILES_OF_LAG = ['min', 'max', 'mean', 'stddev', 'p50', 'p90', 'p99']

export class Metrics {
  readonly #registry = new Registry()
  readonly #verbs: ExportVerbs
  readonly #facts: DaemonFacts
  readonly #unsubscribe: () => void
  readonly #perExport = perExportMetrics(this.#registry)
  readonly #perDaemon = perDaemonMetrics(this.#registry)
  readonly #happenings = happeningMetrics(this.#registry)

  constructor(verbs: ExportVerbs, facts: DaemonFacts) {
    this.#verbs = verbs
    this.#facts = facts
    collectProcessMetrics(this.#registry)
    this.#perDaemon.info.set({ version: facts.version }, 1)
    this.#unsubscribe = verbs.subscribe((event) => {
      this.#count(event)
    })
  }

  get contentType(): string {
    return this.#registry.contentType
  }

  async scrape(eventStreams: number): Promise<string> {
    const exports = await this.#verbs.list()
    for (const metric of Object.values(this.#perExport)) metric.reset()
    for (const status of exports) this.#readExport(status)
    this.#readDaemon(eventStreams)
    return this.#registry.metrics()
  }

  close(): void {
    this.#unsubscribe()
    this.#registry.clear()
  }

  #readExport(status: ExportStatus): void {
    const labels = { export: status.name }
    const metrics = this.#perExport
    for (const state of STATES) metrics.state.set({ ...labels, state }, state === status.state ? 1 : 0)
    metrics.generation.set(labels, status.generation)
    metrics.sizeBytes.set(labels, status.size)
    metrics.engine.set({ ...labels, kind: status.engine.kind, reason: status.engine.reason }, 1)
    for (const code of status.unsafe) metrics.unsafe.set({ ...labels, code }, 1)
    for (const phase of PHASES) metrics.outstanding.set({ ...labels, phase }, status.outstanding[phase])
    metrics.outstandingBytes.set(labels, status.outstanding.bytes)
    metrics.oldestSeconds.set(labels, status.outstanding.oldestMs / 1000)
    metrics.orphans.set(labels, status.orphans)
    metrics.clients.set(labels, status.clients.length)
    metrics.holds.set(labels, status.holds.length)
    metrics.holdWaiting.set(labels, sum(status.holds.map(({ waiting }) => waiting)))
    metrics.heldSeconds.set(labels, status.heldForMs / 1000)
    metrics.indeterminate.set(labels, status.indeterminate.length)
    metrics.indeterminateBytes.set(labels, sum(status.indeterminate.map(({ length }) => length)))
    for (const command of ['reads', 'writes', 'flushes', 'trims'] as const) {
      metrics.requests.inc({ ...labels, command: COMMAND_LABELS[command] }, status.totals[command])
    }
    metrics.bytes.inc({ ...labels, direction: 'read' }, status.totals.bytesRead)
    metrics.bytes.inc({ ...labels, direction: 'write' }, status.totals.bytesWritten)
    metrics.errors.inc(labels, status.totals.errors)
  }

  #readDaemon(eventStreams: number): void {
    const metrics = this.#perDaemon
    metrics.ready.set(this.#facts.notReady() === null ? 1 : 0)
    metrics.negotiating.set(this.#facts.negotiating())
    metrics.eventStreams.set(eventStreams)
    metrics.recordsUnreachable.set(this.#facts.recordsUnreachableMs() / 1000)
    for (const worker of this.#facts.workers()) {
      const labels = { worker: String(worker.worker) }
      metrics.workerAlive.set(labels, worker.alive ? 1 : 0)
      metrics.connections.set(labels, worker.connections)
      metrics.arenaBytes.set(labels, worker.arenaBytes)
      metrics.arenaUsedBytes.set(labels, worker.arenaUsedBytes)
      metrics.turns.remove(labels)
      metrics.turns.inc(labels, worker.turns)
    }
  }

  #count(event: ExportEvent): void {
    const labels = { export: event.export }
    if (event.kind === 'hold' && event.change === 'overdue') this.#happenings.holdsOverdue.inc(labels)
    if (event.kind === 'fault') this.#happenings.faults.inc(labels)
    if (event.kind !== 'receipt') return
    const { reason, clearedBy, elapsedMs } = event.receipt
    this.#happenings.closes.inc({ ...labels, reason, cleared_by: clearedBy })
    for (const step of ['drain', 'sync', 'record', 'total'] as const) {
      this.#happenings.closeSeconds.observe({ step }, elapsedMs[step] / 1000)
    }
  }
}

const COMMAND_LABELS = { reads: 'read', writes: 'write', flushes: 'flush', trims: 'trim' } as const

function perExportMetrics(registry: Registry) {
  const gauge = (name: string, help: string, ...labels: string[]): Gauge =>
    new Gauge({ name: `interlockd_${name}`, help, labelNames: ['export', ...labels], registers: [registry] })
  const counter = (name: string, help: string, ...labels: string[]): Counter =>
    new Counter({ name: `interlockd_${name}`, help, labelNames: ['export', ...labels], registers: [registry] })
  return {
    state: gauge('export_state', '1 for the state that the export is in, 0 for the others', 'state'),
    generation: gauge('export_generation', 'Generation under which the export was opened last; 0 for none'),
    sizeBytes: gauge('export_size_bytes', 'Size of the export'),
    engine: gauge('export_engine_info', 'What moves the bytes of the export, and why that', 'kind', 'reason'),
    unsafe: gauge('export_unsafe', '1 for each code of what makes a migration of the export unsafe', 'code'),
    outstanding: gauge('outstanding_requests', 'Requests that are not answered, by phase', 'phase'),
    outstandingBytes: gauge('outstanding_bytes', 'Bytes of the requests that are not answered'),
    oldestSeconds: gauge('oldest_request_seconds', 'Age of the oldest request that is not answered'),
    orphans: gauge('orphaned_writes', 'Admitted writes whose connection is gone'),
    clients: gauge('clients', 'Connections in transmission phase'),
    holds: gauge('holds', 'Ranges in which a write of an earlier generation may still land'),
    holdWaiting: gauge('hold_waiting_requests', 'Writes that wait for such a range: guests are waiting'),
    heldSeconds: gauge('hold_seconds', 'How long a predecessor has been holding writes back'),
    indeterminate: gauge('indeterminate_ranges', 'Ranges of failed writes that were not overwritten since'),
    indeterminateBytes: gauge('indeterminate_bytes', 'Bytes of those ranges'),
    requests: counter('requests_total', 'Requests answered, by command', 'command'),
    bytes: counter('bytes_total', 'Bytes read and written by requests', 'direction'),
    errors: counter('request_errors_total', 'Requests answered with an error'),
  }
}

function perDaemonMetrics(registry: Registry) {
  const gauge = (name: string, help: string, ...labelNames: string[]): Gauge =>
    new Gauge({ name: `interlockd_${name}`, help, labelNames, registers: [registry] })
  return {
    info: gauge('info', 'Always 1', 'version'),
    ready: gauge('ready', '1 while the daemon serves'),
    negotiating: gauge('negotiating_connections', 'Connections that have not chosen an export yet'),
    eventStreams: gauge('event_streams', 'Readers of the event stream'),
    recordsUnreachable: gauge(
      'records_unreachable_seconds',
      'How long the home of the records (etcd) has answered nobody; 0 while it answers',
    ),
    workerAlive: gauge('worker_alive', '1 while the data worker runs', 'worker'),
    connections: gauge('worker_connections', 'Connections that the data worker serves', 'worker'),
    arenaBytes: gauge('arena_bytes', 'Size of the buffer arena', 'worker'),
    arenaUsedBytes: gauge('arena_used_bytes', 'What is reserved of the buffer arena', 'worker'),
    turns: new Counter({
      name: 'interlockd_worker_turns_total',
      help: 'Rounds of the data worker, each with all that had come by then',
      labelNames: ['worker'],
      registers: [registry],
    }),
  }
}

function happeningMetrics(registry: Registry) {
  const registers = [registry]
  return {
    closes: new Counter({
      name: 'interlockd_closes_total',
      help: 'Closes that ended with a receipt',
      labelNames: ['export', 'reason', 'cleared_by'],
      registers,
    }),
    faults: new Counter({
      name: 'interlockd_faults_total',
      help: 'Faults of an image or its worker',
      labelNames: ['export'],
      registers,
    }),
    holdsOverdue: new Counter({
      name: 'interlockd_holds_overdue_total',
      help: 'Alarms that writes have been held back for a predecessor for longer than hold_alarm',
      labelNames: ['export'],
      registers,
    }),
    closeSeconds: new Histogram({
      name: 'interlockd_close_duration_seconds',
      help: 'How long the steps of a close took',
      labelNames: ['step'],
      buckets: [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60],
      registers,
    }),
  }
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}

/**
 * What every Node program tells of itself, without the quantiles of the event loop's lag: they are sampled by a clock
 * that would wake an idle daemon a hundred times a second. The lag itself is measured at each scrape.
 */
function collectProcessMetrics(registry: Registry): void {
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: NEVER_MS })
  for (const quantile of QUANTILES_OF_LAG) registry.removeSingleMetric(`nodejs_eventloop_lag_${quantile}_seconds`)
}
